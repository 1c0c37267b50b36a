"""Every rule's good and bad cases through the real engine and pack."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from policies import sources
from policies.catalog import RULES
from policies.pages import Example, read_page
from policies.rules import AnyRule, Rule
from tests.policy.corpus import BAD, GOOD, IMAGE, Case
from tests.policy.world import Engine, Images

# Signatures have tests of their own, on images that exist.
UNSIGNED: dict[str, Any] = {"signed-images": {"enforcementLevel": "disabled"}}
Given = list[dict[str, Any]]


def _refusals(output: str) -> dict[str, set[str]]:
    """Of each resource, the rules that refused it."""
    refused: dict[str, set[str]] = {}
    for rule, name in re.findall(r"\[mandatory\].*?  ([a-z0-9-]+)  \(.*: ([^)]+)\)", output):
        refused.setdefault(name, set()).add(rule)
    return refused


@pytest.fixture
def preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Preview resources under the pack: the exit code, the rules that refused each resource, the output."""

    def run(resources: Given, settings: dict[str, Any] | None = None) -> tuple[int, dict[str, set[str]], str]:
        (tmp_path / "resources.json").write_text(json.dumps(resources))
        monkeypatch.setenv("RESOURCES", str(tmp_path / "resources.json"))
        images = Images(tmp_path, "", {"signed": IMAGE, "offline": IMAGE})
        code, output = Engine(tmp_path).run("preview", "given", images, UNSIGNED | (settings or {}))
        return code, _refusals(output), output

    return run


def _in_cluster(rule: AnyRule) -> bool:
    """Whether a rule has cases in the corpus, or needs a signed image."""
    return rule.id == "signed-images" or (isinstance(rule, Rule) and rule.admission is not None)


def _of(cases: list[Case]) -> Given:
    return [{"type": case.type, "name": case.name, "inputs": case.manifest} for case in cases]


def _example(rule: AnyRule, example: Example, folder: Path, word: str) -> Given:
    file = folder / f"{rule.id}-{word}.{example.language}"
    file.write_text(example.text)
    found = sources.read([str(file)])
    assert not found.problems
    return [
        {"type": one.resource.type, "name": f"{rule.id}-{word}", "inputs": one.resource.inputs}
        for one in found.found
    ]


def test_every_good_object_passes(preview: Any) -> None:
    code, refused, output = preview(_of(GOOD))
    assert code == 0, output
    assert not refused


def test_every_bad_object_is_refused_by_its_rule(preview: Any) -> None:
    code, refused, output = preview(_of(BAD))
    assert code != 0
    missed = {case.name: case.rule for case in BAD if case.rule not in refused.get(case.name, set())}
    assert not missed, output
    print(f"\n{len(GOOD)} good objects pass, {len(BAD)} bad ones are refused, each by its rule")


def test_pods_that_other_things_hold(tmp_path: Path) -> None:
    """In a custom resource, in a ConfigGroup's manifests, and in what a Helm chart renders."""
    images = Images(tmp_path, "", {"signed": IMAGE, "offline": IMAGE})
    code, output = Engine(tmp_path).run("preview", "rendered", images, UNSIGNED)
    assert code != 0
    refused = _refusals(output)
    for name in ("in-custom-resource", "group:default/in-group", "chart:default/in-chart-a"):
        assert "resource-limits" in refused.get(name, set()), output


@pytest.mark.parametrize("rule", [rule for rule in RULES if not _in_cluster(rule)], ids=lambda rule: rule.id)
def test_the_other_rules_examples(rule: AnyRule, preview: Any, tmp_path: Path) -> None:
    """What the corpus has no cases of: these rules are tried in the engine with their own examples."""
    page = read_page(rule)
    others = {each.id: {"enforcementLevel": "disabled"} for each in RULES}
    settings = others | {rule.id: {"enforcementLevel": "mandatory"}}
    good = preview(_example(rule, page.good, tmp_path, "good"), settings)
    assert good[0] == 0, good[2]
    code, refused, output = preview(_example(rule, page.bad, tmp_path, "bad"), settings)
    assert code != 0
    assert refused == {f"{rule.id}-bad": {rule.id}}, output
