"""What the command line reads: manifests of all shapes, odd files, and what Pulumi writes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.policy.files import BAD, GOOD, LIMITS, RESOURCES, report, resources, run, write


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (GOOD, 0),
        (BAD, 1),
        (f"# Source: a\n---\n# only a comment\n---\n---\n{GOOD}---\n...\n---\n", 0),
        (f"--- # Source: chart/templates/pod.yaml\n{BAD}\n---", 1),
        (f"\ufeff{GOOD}".replace("\n", "\r\n"), 0),
        (json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}), 0),
        ("{apiVersion: v1, kind: ConfigMap, data: {8080: x, yes: y}}", 0),
        ("apiVersion: v1\nkind: List\nitems: []\n---\n" + GOOD, 0),
        (GOOD + "---\napiVersion: apps/v1\nkind: Deployment\nspec: []\n", 1),
        (GOOD.replace(RESOURCES, "resources: {requests: &a {cpu: 1, memory: 1Gi}, limits: *a}"), 0),
        ("apiVersion: v1\nkind: Pod\nspec: {containers: [{name: 日本, image: é}]}", 1),
        ("apiVersion: v1\nkind: Pod\nspec: {containers: [{name: \"\\0\\e[31m\", image: 3}]}", 1),
    ],
)  # fmt: skip
def test_manifests(tmp_path: Path, content: str, code: int) -> None:
    """Manifests of all shapes are read, and the rules decide."""
    assert run(write(tmp_path, "m.yaml", content), *LIMITS) == code


NESTED = b"a: " + b"[" * 300 + b"]" * 300
LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b",".join([b"*%c" % (letter - 1)] * 10)) for letter in range(98, 112)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no resource found"),
        (b"---\n# nothing\n---\n", "no resource found"),
        (b"a: 1\na: 2\n", "bad.yaml:2: has the key 'a' twice in one mapping"),
        (b'{"a": {"b": 1, "b": 2}}', "bad.yaml: has the key 'b' twice in one object"),
        (b"x: &x {a: 1}\ny: {<<: *x, a: 2}\n", "is no manifest"),
        (b"a: &a [*a]", "has an alias *a to what holds it"),
        (LAUGHS, "bad.yaml:6: has more than 1000000 values, aliases written out"),
        (NESTED, "bad.yaml:1: is nested more than 200 deep"),
        (b"- " * 100_000, "is nested more than 200 deep"),
        (b"[" * 100_000, "is nested more than 200 deep"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "is nested more than 200 deep"),
        (b"? [a]\n: b\n", "has a key that is not a text"),
        (b"? {a: b}\n: b\n", "has a key that is not a text"),
        (b"~: b\n", "has a key that is not a text"),
        (b"a: b\nc: \x00\n", "bad.yaml:2: is not YAML: control characters are not allowed"),
        (b"\x7fELF\x01\x02", "is not YAML: control characters"),
        (b"a: b\n\xff\xfe", "bad.yaml:2: is not UTF-8: byte 0xff"),
        ("a: b".encode("utf-16"), "is not UTF-8"),
        (b"a: b\n\tc: d\n", "bad.yaml:2: is not YAML: while scanning"),
        (b"a: *b\n", "undefined alias"),
        (b"a: !Ref b\n", "has the tag !Ref, which no manifest has"),
        (b"a: !!python/object/apply:os.system [id]\n", "which no manifest has"),
        (b"a: !!bool maybe\n", "bad.yaml:1: is not YAML: no bool: 'maybe'"),
        (b"a: " + b"9" * 5000, "bad.yaml:1: is not YAML: no int"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number has thousands of digits"),
        (b'{"a": NaN}', "is not JSON: NaN"),
        (b'{"a": 1\n', "bad.yaml:2: is not JSON"),
        (b"a: {{ .Values.x }}\n", "(a template? Render it first"),
        (b"kind: Pod\n", "bad.yaml:1: is no manifest (it lacks apiVersion or kind)"),
        (b"apiVersion: v1\nkind: [Pod]\n", "bad.yaml:2: kind is ['Pod']"),
        (b"apiVersion: v1\nkind: List\nitems: 3\n", "bad.yaml:3: List: items is no list"),
        (b"apiVersion: v1\nkind: List\nitems:\n- 3\n", "bad.yaml:4: List: items[0] is no object"),
        (b"apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n", "bad.yaml:4: apiVersion is missing"),
        (b"3", "is no manifest"),
        (b"[]", "is no manifest"),
        (b'[{"type": "a:b:C", "inputs": {}}, 3]', "is no manifest"),
        (b'{"type": 3, "inputs": {}}', "a resource has no type"),
        (b'{"steps": 3, "changeSummary": {}}', "steps is no list of objects"),
        (b'{"resourcePlans": {"u": 3}}', "resourcePlans is no object of objects"),
        (b'{"version": 3, "deployment": {"resources": {}}}', "no resource found"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str) -> None:
    """What cannot be read ends with 2 and says file, line and reason."""
    assert run(write(tmp_path, "bad.yaml", content), "--format", "json", *LIMITS) == 2
    assert message in capsys.readouterr().err


def test_one_bad_file_among_many(tmp_path: Path) -> None:
    """The others are reported all the same; what is no manifest in a folder is skipped, and said."""
    write(tmp_path, "a/bad.yml", BAD)
    write(tmp_path, "a/b/good.json", json.dumps({"apiVersion": "v1", "kind": "ConfigMap"}))
    write(tmp_path, "a/values.yaml", "image: x\n---\n" + GOOD)
    write(tmp_path, "a/broken.yaml", "a: [")
    write(tmp_path, "a/readme.md", "a: [")
    output = tmp_path / "report"
    assert run(tmp_path / "a", tmp_path / "none.yaml", "--format=json", "--output", output, *LIMITS) == 2
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["summary"]["resources"] == 3
    assert resources(found) == {"Pod/default/bad"}
    assert [re.sub(r".*/", "", text) for text in found["problems"]] == [
        "broken.yaml:2: is not YAML: while parsing a flow node, did not find expected node content",
        "none.yaml: cannot be read: No such file or directory",
    ]
    assert [re.sub(r".*/", "", text).split(":")[:2] for text in found["skipped"]] == [["values.yaml", "1"]]


def test_lists(tmp_path: Path) -> None:
    """A list of any kind is taken apart, lists in lists too; fields are found by line."""
    typed = "apiVersion: apps/v1\nkind: DeploymentList\nitems:\n- metadata: {name: d}\n  spec: []\n"
    item = "\n".join(f"    {line}" for line in BAD.splitlines())
    mixed = f"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  -\n{item}\n"
    found = report(tmp_path, f"{typed}---\n{mixed}", *LIMITS, code=1)
    assert resources(found) == {"Deployment//d", "Pod/default/bad"}
    assert {Path(finding["source"]).name for finding in found["findings"]} == {
        "input.yaml:5",
        "input.yaml:19",
    }


def test_yaml_is_read_as_kubernetes_does(tmp_path: Path) -> None:
    """`y` is a truth value, a date and 22:22 are texts, aliases and merges are written out."""
    pod = """\
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {day: 2026-01-01, time: 22:22}}
spec:
  hostNetwork: y
  securityContext: {runAsNonRoot: yes}
  containers:
    - &c {name: c, image: i}
    - {<<: *c, name: d}
"""
    found = report(tmp_path, pod, "--rule", "pod-security", code=1)
    assert any(finding["path"] == "spec.hostNetwork" for finding in found["findings"])
    found = report(tmp_path, pod, *LIMITS, code=1)
    assert {finding["container"] for finding in found["findings"]} == {"c", "d"}


UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
TYPE = "kubernetes:core/v1:Pod"
URN = f"urn:pulumi:dev::p::my:mod:C${TYPE}::a::b"


def state(cpu: Any, **more: Any) -> dict[str, Any]:
    """Return a pod as the engine writes it."""
    bounds = {"cpu": cpu, "memory": "1Gi"}
    containers = [{"name": "c", "resources": {"requests": bounds, "limits": bounds}}]
    return {"urn": URN, "type": TYPE, "inputs": {"spec": {"containers": containers}}, **more}


def secret(**content: Any) -> dict[str, Any]:
    """Return a secret as the engine writes it."""
    return {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", **content}


def preview(cpu: Any, op: str = "create", **more: Any) -> dict[str, Any]:
    """Return the output of `pulumi preview --json`."""
    return {"steps": [{"op": op, "urn": URN, "newState": state(cpu)}], "changeSummary": {op: 1}, **more}


def plan(cpu: Any, step: str = "create") -> dict[str, Any]:
    """Return the file of `pulumi preview --save-plan`."""
    goal = {"type": TYPE, "name": "a::b", "inputDiff": {"adds": state(cpu)["inputs"]}}
    return {
        "manifest": {},
        "resourcePlans": {URN: {"goal": goal, "steps": [step]}, "u": {"steps": ["delete"]}},
    }


def export(cpu: Any, **more: Any) -> dict[str, Any]:
    """Return the output of `pulumi stack export`."""
    return {"version": 3, "deployment": {"resources": [state(cpu, **more), {"type": "a:b:C", "urn": "u"}]}}


@pytest.mark.parametrize("form", [preview, plan, export, state, lambda cpu: [state(cpu)]])
@pytest.mark.parametrize(
    ("cpu", "status"),
    [
        ("1", None),
        ("5", "violation"),
        (UNKNOWN, "unknown"),
        ("[secret]", "unknown"),
        (secret(ciphertext="v1:x"), "unknown"),
        (secret(plaintext='"1"'), None),
        (secret(plaintext='"5"'), "violation"),
        (secret(plaintext=json.dumps(UNKNOWN)), "unknown"),
    ],
)
def test_engine_files(tmp_path: Path, form: Any, cpu: Any, status: str | None) -> None:
    """What Pulumi writes is read in each form; what is not known never passes and counts with --strict."""
    code = 1 if status == "violation" else 0
    found = report(tmp_path, form(cpu), *LIMITS, code=code)
    assert {finding["status"] for finding in found["findings"]} == ({status} if status else set())
    assert resources(found) == ({"Pod//a::b"} if status else set())
    report(tmp_path, form(cpu), *LIMITS, "--strict", code=1 if status else 0)


@pytest.mark.parametrize(
    ("content", "message", "findings"),
    [
        (preview("1", diagnostics=[{"severity": "error", "message": "error: boom\nx"}]), ": boom$", 0),
        (preview("5", changeSummary={"create": 1, "same": 3}), "leaves out 3 unchanged .*--show-sames", 1),
        (preview("5", op="delete"), "no resource found", 0),
        (plan("1", step="update"), "1 resources exist already", 0),
        (plan(secret(plaintext="{")), "is not JSON", 0),
        (export("5", delete=True) | {"version": 3}, "", 0),
        ([{"type": "a:b:C", "inputs": []}], "", 0),
        ([{"type": "a:b:C", "inputs": [3]}], "a:b:C: inputs is no object", 0),
    ],
)  # fmt: skip
def test_engine_files_that_lack_something(tmp_path: Path, content: Any, message: str, findings: int) -> None:
    """A preview that failed or leaves something out, and a plan of differences, are no pass."""
    found = report(tmp_path, content, *LIMITS, code=2 if message else 0)
    assert len(found["findings"]) == findings
    assert re.search(message, "".join(found["problems"]))


KEYS = ["apiVersion", "kind", "items", "metadata", "name", "spec", "containers", "steps", "changeSummary"]
KEYS += ["newState", "urn", "op", "type", "inputs", "resourcePlans", "goal", "inputDiff", "adds", "plaintext"]
KEYS += ["deployment", "version", "resources", "diagnostics", "4dabf18193072939515e22adb298388d"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)
FUZZ = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@FUZZ
@given(VALUES)
def test_any_json(tmp_path: Path, value: Any) -> None:
    """No JSON makes it fail, whatever its shape."""
    output = tmp_path / "out"
    assert run(
        write(tmp_path, "f.json", json.dumps(value)), *LIMITS, "--format=json", "--output", output
    ) in (0, 1, 2)
    assert "failed" not in output.read_text(encoding="utf-8").split('"problems"')[1]


@FUZZ
@given(st.text(alphabet="ab:-?&*!<{}[]|>#%@'\"\n\t ,~0\0é", max_size=60) | st.binary(max_size=40))
def test_any_bytes(tmp_path: Path, content: str | bytes) -> None:
    """No file makes it fail, and none of these passes."""
    output = tmp_path / "out"
    assert run(write(tmp_path, "f.yaml", content), *LIMITS, "--format=junit", "--output", output) == 2
