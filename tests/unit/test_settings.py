"""Settings: what is wrong is named with its path, what was found and what to do."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacks.manifest import load_manifest
from stacks.settings import Settings, SettingsError, parse

STACKS = Path(__file__).parents[2] / "stacks"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJr0"


def _stack(name: str) -> dict[str, Any]:
    config = yaml.safe_load((STACKS / f"Pulumi.{name}.yaml").read_text())["config"]
    return {key.removeprefix("edge-inference:"): value for key, value in config.items()}


@pytest.mark.parametrize("name", ["local", "dev", "staging", "prod"])
def test_each_stack_is_valid(name: str) -> None:
    assert parse(_stack(name)).services[0].name == "ai-inference"


def test_schema_is_current() -> None:
    written = json.loads((STACKS / "settings.schema.json").read_text())
    assert written == Settings.model_json_schema(), (
        "run: python -m stacks.settings > stacks/settings.schema.json"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hosts": None}, "edge-inference:hosts: found None"),
        ({"artifacts": {}}, "edge-inference:artifacts.manifest: missing: add it"),
        ({"serivces": []}, "edge-inference:serivces: unknown setting"),
        ({"namespace": "Bad Name"}, "edge-inference:namespace: found 'Bad Name'"),
        (
            {"hosts": [{"name": "a", "role": "agent", "address": "h", "hostKey": KEY}]},
            "0 with role server found",
        ),
        (
            {"hosts": [{"name": "a", "role": "server", "address": "h"}]},
            "hosts[0]: need exactly one of hostKey",
        ),
        (
            {"hosts": [{"name": "a", "role": "server", "address": "h", "hostKey": KEY, "port": 70000}]},
            "edge-inference:hosts[0].port: found 70000",
        ),
        ({"services": [{"name": "s", "image": "registry/x:v1"}]}, "edge-inference:services[0].image: found"),
        ({"services": [{"name": "s"}]}, "services[0]: need exactly one of image and imageFile"),
        ({"nvidia": {"enabled": True}}, "nvidia.devicePluginImage: missing"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse(_stack("local") | change)
    assert message in str(raised.value)


def _manifest(folder: Path, sha256: str | None, source: str = "k3s") -> str:
    (folder / "k3s").write_bytes(b"bytes")
    file = folder / "manifest.json"
    file.write_text(json.dumps({"artifacts": {"k3s": {"version": "v1", "source": source, "sha256": sha256}}}))
    return str(file)


def test_a_corrupt_artifact_is_named(tmp_path: Path) -> None:
    _, problems = load_manifest(_manifest(tmp_path, "0" * 64), {"k3s"}, preview=True)
    found = hashlib.sha256(b"bytes").hexdigest()
    assert len(problems) == 1
    assert f"k3s has sha256 {found}, wanted {'0' * 64}" in problems[0]


def test_an_unknown_sum_previews_but_is_refused_by_up(tmp_path: Path) -> None:
    path = _manifest(tmp_path, None, "https://mirror.example.com/k3s")
    assert load_manifest(path, {"k3s"}, preview=True)[1] == []
    assert "sha256 is null" in load_manifest(path, {"k3s"}, preview=False)[1][0]


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    _, problems = load_manifest(_manifest(tmp_path, None), {"k3s", "digits"}, preview=True)
    assert any("has no artifact digits" in problem for problem in problems)


def test_hosts_may_stand_in_a_file(tmp_path: Path) -> None:
    config = _stack("local")
    file = tmp_path / "hosts.yaml"
    file.write_text(yaml.safe_dump(config["hosts"]))
    assert parse(config | {"hosts": str(file)}) == parse(config)
    file.write_text("- {name: [")
    for path, message in ((file, "is not YAML"), (tmp_path / "none", "mend the path or make the file")):
        with pytest.raises(SettingsError, match=f"edge-inference:hosts: {path}.*{message}"):
            parse(config | {"hosts": str(path)})
