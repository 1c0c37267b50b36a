"""Levels, remediation and exceptions, in the real engine."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.catalog import RULES
from tests.policy.corpus import IMAGE, container, pod, workload
from tests.policy.world import ROOT, Engine, Images

# One object that three rules refuse and could mend; nothing else is wrong with it.
BARE = container(resources=None, livenessProbe=None)
OBJECT = workload("Deployment", "bare", pod(BARE, automountServiceAccountToken=None))
MENDED = ("resource-limits", "probes", "service-account-token")
OFF = {"signed-images": "disabled"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the engine on the object: verb and settings to exit code and output."""
    resources = [{"type": "kubernetes:apps/v1:Deployment", "name": "bare", "inputs": OBJECT}]
    (tmp_path / "resources.json").write_text(json.dumps(resources))
    monkeypatch.setenv("RESOURCES", str(tmp_path / "resources.json"))
    images = Images(tmp_path, "", {"signed": IMAGE, "offline": IMAGE})

    def call(verb: str, settings: Any, pack: Path = ROOT / "policies") -> tuple[int, str]:
        return Engine(tmp_path, pack).run(verb, "given", images, settings)

    return call


def test_remediation_writes_what_is_missing(run: Any, tmp_path: Path) -> None:
    """At level remediate the object is created with what the rules fill in, and none of them refuses it."""
    code, output = run("up", OFF | dict.fromkeys(MENDED, "remediate"))
    assert code == 0, output
    assert output.count("[remediate]") == 2 * 3, "at the preview and at the update"
    assert "[mandatory]" not in output
    (file,) = (tmp_path / "given/rendered").rglob("*deployment*bare.yaml")
    spec = yaml.safe_load(file.read_text())["spec"]["template"]["spec"]
    one = spec["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert one["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "256Mi"},
    }
    assert one["livenessProbe"] == {"tcpSocket": {"port": 8080}, "periodSeconds": 10, "failureThreshold": 3}
    assert one["readinessProbe"] == container()["readinessProbe"], "what is stated stays"


def test_advice_and_disabled_rules_refuse_nothing(run: Any) -> None:
    levels = {"resource-limits": "advisory", "probes": "disabled", "service-account-token": "advisory"}
    code, output = run("preview", OFF | levels)
    assert code == 0, output
    assert output.count("[advisory] [severity: high]  resource-limits") == 4
    assert "livenessProbe" not in output


@pytest.mark.parametrize(("day", "is_refused"), [("2999-12-31", False), ("2020-12-31", True)])
def test_exceptions(run: Any, day: str, is_refused: bool) -> None:
    """One that holds lets its resource through; an expired one fails and says whose it was."""
    exception = {"resource": "Deployment/corpus/bare", "owner": "shop", "reason": "legacy", "expires": day}
    others = dict.fromkeys(MENDED[1:], "disabled")
    code, output = run("preview", OFF | others | {"resource-limits": {"exceptions": [exception]}})
    assert (code != 0) == is_refused, output
    assert ("the exception of shop (legacy) expired on 2020-12-31" in output) == is_refused


def test_a_stacks_own_file_sets_its_levels(run: Any, tmp_path: Path) -> None:
    """Without any --policy-pack-config: what is mandatory elsewhere is advice for the stack `given`."""
    pack = tmp_path / "policies"
    shutil.copytree(ROOT / "policies", pack, ignore=shutil.ignore_patterns("__pycache__", "config*.json"))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    disabled = {rule.id: "disabled" for rule in RULES}
    (pack / "config.json").write_text(json.dumps(disabled | {"probes": "mandatory"}))
    code, output = run("preview", None, pack)
    assert code != 0
    assert "[mandatory] [severity: medium]  probes" in output
    (pack / "config.given.json").write_text(json.dumps({"probes": "advisory"}))
    code, output = run("preview", None, pack)
    assert code == 0, output
    assert "[advisory] [severity: medium]  probes" in output
