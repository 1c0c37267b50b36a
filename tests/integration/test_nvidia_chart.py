"""The device plugin's objects are those of NVIDIA's chart, but for what docs/gpu-chart.yaml lists."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from components.nvidia import NvidiaRuntimeArgs
from tests.integration.local_site import CHECKOUT, STACK, LocalSite

CHART = yaml.safe_load((CHECKOUT / "docs/gpu-chart.yaml").read_text())
IMAGE = "k8s-device-plugin:v0.17.4"
ABSENT = "absent"
NAMES = ("mountPath", "name")
"""What tells the items of a list apart."""
Facts = dict[str, Any]


def facts(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf of an object by its path; what is empty is nothing."""
    if isinstance(value, dict) and set(value) == {"value"}:
        yield at, value["value"]
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from facts(item, f"{at}.{key}" if at else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, item in enumerate(value):
            name = next((key for key in NAMES if key in item), "")
            rest = {key: inner for key, inner in item.items() if key != name}
            yield from facts(rest, f"{at}[{item.get(name, index)}]")
    elif value not in (None, {}, []):
        yield at, "a sha256" if re.fullmatch(r"[0-9a-f]{64}", str(value)) else value


def written(inputs: dict[str, Any]) -> Facts:
    """An object as the record writes it."""
    result: Facts = {"made": True}
    for path, value in facts(inputs):
        short = path.replace("spec.template.metadata", "pod.metadata").replace("spec.template.spec", "pod")
        if path.startswith("data."):
            value = "the configuration"
        result[short] = "the release" if path.endswith("/instance") else value
    return result


def recorded(case: str) -> dict[str, Facts]:
    """What the chart makes of a case's values, by kind and name."""
    objects = CHART["cases"][case]["makes"]
    return {
        name: {path: value for path, value in made.items() if value is not None}
        for name, made in objects.items()
    }


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Facts]]:
    """What the component makes of each case, from the real engine's preview."""
    site = LocalSite(tmp_path_factory.mktemp("chart"), "none", "10.216.13")
    site.make_project()
    (site.project / "__main__.py").unlink()
    shutil.copy(CHECKOUT / "tests/integration/nvidia_program/__main__.py", site.project)
    file = site.project / "config" / f"Pulumi.{STACK}.yaml"
    cases = {name: {"image": IMAGE} | case["arguments"] for name, case in CHART["cases"].items()}
    salt = yaml.safe_load(file.read_text())["encryptionsalt"]
    file.write_text(yaml.safe_dump({"encryptionsalt": salt, "config": {"nvidia:cases": cases}}))
    done = site.pulumi("preview", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, dict[str, Facts]] = {name: {} for name in cases}
    for state in (step["newState"] for step in json.loads(done.stdout)["steps"]):
        if state["type"].startswith("kubernetes:"):
            case = state["parent"].rsplit("::", 1)[1]
            inputs = state["inputs"]
            result[case][f"{inputs['kind']}/{inputs['metadata']['name']}"] = written(inputs)
    return result


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where the chart's object and ours differ, and both values, as JSON."""

    object: str
    path: str
    chart: str
    ours: str


def differences(case: str, ours: dict[str, Facts]) -> Iterator[Difference]:
    """Everything in which a case's objects differ from the chart's."""
    theirs = recorded(case)
    for name in theirs.keys() | ours.keys():
        chart, own = theirs.get(name, {}), ours.get(name, {})
        for path in chart.keys() | own.keys():
            pair = [json.dumps(side.get(path, ABSENT)) for side in (chart, own)]
            if pair[0] != pair[1]:
                yield Difference(name, path, *pair)


def listed(entry: dict[str, Any]) -> Iterator[Difference]:
    """The differences that an entry of `different on purpose` allows."""
    assert entry["why"], entry
    paths = entry["at"] if isinstance(entry["at"], list) else [entry["at"]]
    pair = [json.dumps(entry.get(side, ABSENT)) for side in ("chart", "ours")]
    every = {name for case in CHART["cases"].values() for name in case["makes"]}
    for name in entry.get("objects", every):
        for path in paths:
            yield Difference(name, path, *pair)


def test_what_differs_from_the_chart_is_listed_and_what_is_listed_differs(
    declared: dict[str, dict[str, Facts]],
) -> None:
    found = {each for case, ours in declared.items() for each in differences(case, ours)}
    allowed = [set(listed(entry)) for entry in CHART["different on purpose"]]
    for each in found - set().union(*allowed):
        print(each)
    assert found <= set().union(*allowed), "printed above, and not listed under `different on purpose`"
    for entry, own in zip(CHART["different on purpose"], allowed, strict=True):
        assert {each.path for each in own & found} == {each.path for each in own}, f"no difference: {entry}"
        assert {each.object for each in own & found} >= set(entry.get("objects", ())), f"not in all: {entry}"


ARGUMENTS = {field.name: field for field in dataclasses.fields(NvidiaRuntimeArgs)}
OFFERED = {name: value for name, value in CHART["values"].items() if "ours" in value}


def test_each_argument_is_a_value_of_the_chart() -> None:
    assert sorted(value["ours"] for value in OFFERED.values()) == sorted(ARGUMENTS)
    for name, value in CHART["values"].items():
        assert ("ours" in value) != bool(value.get("none")), f"{name}: neither offered nor said why not"


@pytest.mark.parametrize("name", OFFERED)
def test_an_arguments_default_is_the_charts_or_differs_for_a_reason(name: str) -> None:
    value = OFFERED[name]
    field = ARGUMENTS[value["ours"]]
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    ours = None if made is dataclasses.MISSING else json.loads(json.dumps(made))
    theirs = value.get("program", value["default"])
    assert (ours != theirs) == bool(value.get("differs")), (theirs, ours)
