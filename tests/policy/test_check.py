"""The command line on files: what it says in each format, and how it ends."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from junitparser import JUnitXml
from sarif_kit.validate import assert_valid

from policies import config
from policies.catalog import RULES
from tests.policy.files import BAD, GOOD, LIMITS, report, run, write


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file, and for `-`, standard input is read."""
    for arguments in ((), ("-",)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAD.encode())))
        assert run(*arguments, *LIMITS) == 1
        assert "<stdin>:6" in capsys.readouterr().out


def test_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has rule, resource, line, finding and fix; control characters are made visible."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "m.yaml", BAD.replace("name: c", 'name: "a\\e[31m"'))
    assert run("m.yaml", *LIMITS) == 1
    output = capsys.readouterr().out
    assert "\x1b" not in output
    for text in ("resource-limits", "Pod/default/bad", "m.yaml:6", "a\\x1b[31m", "requests.cpu", '"100m"'):
        assert text in output
    assert re.search(r"4 violations; 1 resource, 1 rule, \d+\.\d s$", output.strip())


def test_ascii_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen that shows only ASCII gets tables of it, and other characters as escapes."""
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(write(tmp_path, "m.yaml", BAD.replace("name: c", "name: 日本")), *LIMITS) == 1
    screen.seek(0)
    output = screen.read()
    assert "+----" in output
    assert "\\u65e5\\u672c" in output


def test_no_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed or empty standard input, and a terminal instead of one, are no pass."""
    for stdin, message in (
        (None, "<stdin>: is closed"),
        (io.TextIOWrapper(io.BytesIO()), "<stdin>: no resource found"),
    ):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run(*LIMITS) == 2
        assert message in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert run(*LIMITS) == 2
    assert "no file given" in capsys.readouterr().err


def test_junit(tmp_path: Path) -> None:
    """JUnit has a case for each rule and resource, and counts that a parser of it agrees with."""
    output = tmp_path / "junit.xml"
    text = f"{GOOD}---\n{BAD}"
    file = write(tmp_path, "m.yaml", text.replace("image: edge.local/app", 'image: "\\0é<"'))
    assert run(file, tmp_path / "none", "--format=junit", "--output", output, *LIMITS) == 2
    parsed = JUnitXml.fromfile(str(output))
    assert (parsed.tests, parsed.failures, parsed.errors, parsed.skipped) == (3, 1, 1, 0)
    cases = {case.name: case for suite in parsed for case in suite}
    assert cases["Pod/default/good"].is_passed
    assert len(cases["Pod/default/bad"].result[0].text.splitlines()) == 4


def test_sarif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SARIF is valid by the standard's schema; fingerprints stay when lines move."""
    monkeypatch.chdir(tmp_path)
    settings = write(tmp_path, "c.json", json.dumps({"signed-images": "disabled", "probes": "advisory"}))
    prints = []
    for name, text in (("a b.yaml", BAD), ("moved.yaml", f"# one line more\n{BAD}")):
        write(tmp_path, name, text)
        assert run(name, "--format=sarif", "--output=out.sarif", "--config", settings) == 1
        log = json.loads(Path("out.sarif").read_text(encoding="utf-8"))
        assert_valid(log)
        results = log["runs"][0]["results"]
        rules = log["runs"][0]["tool"]["driver"]["rules"]
        prints.append([result["partialFingerprints"] for result in results])
        location = results[0]["locations"][0]["physicalLocation"]
    assert prints[0] == prints[1]
    assert location == {"artifactLocation": {"uri": "moved.yaml"}, "region": {"startLine": 7}}
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in results)
    levels = {result["ruleId"]: result["level"] for result in results}
    assert (levels["resource-limits"], levels["probes"]) == ("error", "warning")


def test_exceptions(tmp_path: Path) -> None:
    """An exception lets through and is shown with its owner; an expired one fails and says so."""
    let = {"resource": "Pod/default/bad", "owner": "team-a", "reason": "old", "expires": "2999-01-01"}
    settings = write(tmp_path, "c.json", json.dumps({"resource-limits": {"exceptions": [let]}}))
    found = report(tmp_path, BAD, "--config", settings, *LIMITS, code=0)
    assert found["summary"]["exception"] == 4
    assert found["findings"][0]["exception"]["owner"] == "team-a"
    for form in ("table", "junit", "sarif"):
        output = tmp_path / form
        file = tmp_path / "input.yaml"
        assert run(file, "--config", settings, *LIMITS, "--format", form, "--output", output) == 0
        assert "team-a" in output.read_text(encoding="utf-8")
    let["expires"] = "2020-01-01"
    settings.write_text(json.dumps({"resource-limits": {"exceptions": [let]}}), encoding="utf-8")
    found = report(tmp_path, BAD, "--config", settings, *LIMITS, code=1)
    assert "the exception of team-a (old) expired on 2020-01-01" in found["findings"][0]["found"]


def test_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Advisory does not count, remediate says what Pulumi sets, disabled does not run."""
    settings = write(tmp_path, "c.json", json.dumps({"resource-limits": "advisory"}))
    assert report(tmp_path, BAD, "--config", settings, *LIMITS, code=0)["summary"]["advice"] == 4
    settings.write_text(json.dumps({"resource-limits": "remediate"}), encoding="utf-8")
    found = report(tmp_path, BAD, "--config", settings, *LIMITS, code=0)
    assert found["summary"]["remediated"] == 4
    assert found["findings"][0]["path"] == "spec.containers[0].resources.requests.cpu"
    assert found["findings"][0]["found"] == "is set to '100m'"
    negative = BAD.replace("image: edge.local/app", "resources: {limits: {cpu: -1}}")
    assert report(tmp_path, negative, "--config", settings, *LIMITS, code=1)["summary"]["violation"] > 0
    settings.write_text(json.dumps({"resource-limits": "disabled"}), encoding="utf-8")
    assert run(tmp_path / "input.yaml", "--config", settings, *LIMITS) == 2
    assert "no rule to run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{", "c.json: cannot be read as JSON"),
        ('{"no-rule": {}}', "c.json: unknown rule 'no-rule'"),
        ('{"resource-limits": {"maxCpu": "lots"}}', "resource-limits.maxCpu"),
        ('{"resource-limits": "severe"}', "resource-limits.enforcementLevel: 'severe' is none of"),
        ('{"resource-limits": {"exceptions": [{"resource": "Pod"}]}}', "resource-limits.exceptions.0"),
        (None, "c.json: cannot be read"),
    ],
)
def test_malformed_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str | None, message: str
) -> None:
    """Settings that cannot be used end with 2 and are named."""
    if settings is not None:
        write(tmp_path, "c.json", settings)
    assert run(write(tmp_path, "m.yaml", GOOD), "--config", tmp_path / "c.json", *LIMITS) == 2
    assert message in capsys.readouterr().err


def test_stack_picks_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--stack` adds that stack's file to config.json."""
    for file in config.PACK.glob("*.json"):
        write(tmp_path / "pack", file.name, file.read_bytes())
    write(tmp_path / "pack", "config.test.json", '{"resource-limits": {"maxCpu": "500m"}}')
    monkeypatch.setattr(config, "PACK", tmp_path / "pack")
    file = write(tmp_path, "m.yaml", GOOD)
    assert run(file, *LIMITS) == 0
    assert run(file, *LIMITS, "--stack", "test") == 1


SIGNED = GOOD.replace("edge.local/app", f"edge.local/app@sha256:{'a' * 64}")


def test_signatures_need_their_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without cosign, and with a key that cannot be read, the check is not complete."""
    settings = write(tmp_path, "c.json", json.dumps({"signed-images": {"keys": [{"file": "no/such.pub"}]}}))
    arguments = (write(tmp_path, "m.yaml", SIGNED), "--rule", "signed-images", "--config", settings)
    monkeypatch.setenv("PATH", "")
    assert run(*arguments, "--format", "json") == 2
    error = capsys.readouterr().err
    assert "cosign is not on PATH" in error
    assert "no/such.pub" in error


def test_faults_are_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule that fails, a report that cannot be written, an unknown rule or format: 2, and no traceback."""
    file = write(tmp_path, "m.yaml", GOOD)
    assert run(file, *LIMITS, "--output", tmp_path / "no" / "out") == 2
    assert "the report cannot be written: No such file" in capsys.readouterr().err
    for arguments in (("--rule", "nonsense"), ("--format", "xml")):
        with pytest.raises(SystemExit, match="2"):
            run(file, *arguments)
    assert "Traceback" not in capsys.readouterr().err

    def fault(*_: object) -> None:
        raise RuntimeError("boom")

    rule = next(rule for rule in RULES if rule.id == "resource-limits")
    monkeypatch.setitem(rule.__dict__, "check", fault)
    assert run(file, *LIMITS, "--format", "json") == 2
    assert "m.yaml:1: Pod/default/good: rule resource-limits failed: RuntimeError: boom" in (
        capsys.readouterr().err
    )


def test_rules_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`--rules` lists every rule with its level; `--help` has an example."""
    assert run("--rules") == 0
    output = capsys.readouterr().out
    assert all(rule.id in output for rule in RULES)
    assert "advisory" in output
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    assert "example: helm template" in capsys.readouterr().out


def test_thousand_containers(tmp_path: Path) -> None:
    """Each of a thousand containers is reported in each format."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "spec": {"containers": [{"name": f"c{n}"} for n in range(1000)]},
    }
    assert report(tmp_path, pod, *LIMITS, code=1)["summary"]["violation"] == 4000
    for form in ("table", "junit", "sarif"):
        assert run(tmp_path / "input.yaml", *LIMITS, "--format", form, "--output", tmp_path / form) == 1
