"""The command line on what the real engine writes says what the pack says in the engine."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from policies import check
from tests.policy.world import Engine, Images

_REPORT = re.compile(r"- \[(mandatory|advisory)\] \[severity: \w+\] +(\S+) +\((\S+): (\S+)\)")
_NOT_KNOWN = re.compile(r"can't run policy .* during preview: (.*)\. `pulumi up` checks it")


def pack_says(output: str) -> set[tuple[str, ...]]:
    """Return level, rule, type, name and message of each report in the engine's output."""
    found = set()
    lines = [line.strip() for line in output.splitlines()]
    for line, first, second in zip(lines, lines[1:], lines[2:], strict=False):
        if head := _REPORT.match(line):
            # What is not known yet stands together where the rule's description stands otherwise.
            waiting = _NOT_KNOWN.match(first)
            for message in (waiting[1] if waiting else second).split("; "):
                found.add((*head.groups(), message))
    return found


def check_says(report: Path) -> set[tuple[str, ...]]:
    """Return the same of a JSON report."""
    found: set[tuple[str, ...]] = set()
    for each in json.loads(report.read_text(encoding="utf-8"))["findings"]:
        name = each["urn"].split("::", 3)[-1]
        subject = f'container "{each["container"]}": {each["path"]}' if each["container"] else each["path"]
        fix = f". Fix: {each['fix']}" if each["fix"] else ""
        # The engine tells what is not known yet as advice.
        level = "mandatory" if each["known"] and each["level"] != "advisory" else "advisory"
        for message in f"{name}: {subject} {each['found']}{fix}".split("; "):
            found.add((level, each["rule"], each["type"], name, message))
    return found


def preview(engine: Engine, stack: str, *options: str) -> str:
    """Run `pulumi preview` without the pack and return what it prints."""
    environment: dict[str, Any] = {
        **os.environ,
        "PULUMI_BACKEND_URL": (engine.folder / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "policy-test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
    command = ["pulumi", "preview", "--stack", stack, "--non-interactive", "--color=never", *options]
    result = subprocess.run(
        command, cwd=engine.folder / stack, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout


@pytest.mark.parametrize("stack", ["good", "late", "bad"])
def test_verdicts_equal_the_packs(images: Images, tmp_path: Path, stack: str) -> None:
    """The preview's JSON and the plan give the verdicts that the pack gives in the engine, word by word."""
    engine = Engine(tmp_path)  # a new stack: a plan holds only what changes
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(images.settings()), encoding="utf-8")
    ended, output = engine.run("preview", stack, images, images.settings())
    expected = pack_says(output)
    assert expected, output
    code = int(any(level == "mandatory" for level, *_ in expected))
    assert (ended != 0) == (code != 0), output
    plan, shown = tmp_path / "plan.json", tmp_path / "preview.json"
    shown.write_text(preview(engine, stack, "--json", "--show-sames"), encoding="utf-8")
    preview(engine, stack, "--save-plan", str(plan))
    for file in (shown, plan):
        report = tmp_path / "report.json"
        arguments = ["--stack", stack, "--config", str(settings), "--format", "json", "--output", str(report)]
        assert check.main([str(file), *arguments]) == code
        assert check_says(report) == expected
        assert check.main([str(file), *arguments, "--strict"]) == 1
