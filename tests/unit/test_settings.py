"""Settings: what is wrong is named with its path, what was found and what to do."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacks.manifest import load_manifest
from stacks.settings import SettingsError, parse
from stacks.sites import stack_schema

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
    assert written == stack_schema(), "run: make generate"


def _hosts(servers: int, **changes: Any) -> list[dict[str, Any]]:
    host = {"role": "server", "address": "h", "hostKey": KEY} | changes
    return [host | {"name": f"h{number}"} for number in range(servers)]


@pytest.mark.parametrize("servers", [1, 3, 5])
def test_an_odd_number_of_servers(servers: int) -> None:
    assert len(parse(_stack("local") | {"hosts": _hosts(servers)}).hosts) == servers


@pytest.mark.parametrize(
    ("servers", "datastore", "etcd"), [(1, None, False), (1, "etcd", True), (3, None, True)]
)
def test_where_etcd_is(servers: int, datastore: str | None, etcd: bool) -> None:
    wanted = {"hosts": _hosts(servers), "cluster": {"datastore": datastore}}
    assert parse(_stack("local") | wanted).etcd == etcd


def test_a_private_key_in_the_wrong_place_is_not_printed() -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n"
    for hosts in (_hosts(1, privateKey=[key]), {"privateKey": key}, _hosts(1, port=key)):
        with pytest.raises(SettingsError) as raised:
            parse(_stack("local") | {"hosts": hosts})
        assert "b3Bl" not in str(raised.value)
        assert "hosts" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hosts": None}, "edge-inference:hosts: found None"),
        ({"artifacts": {}}, "edge-inference:artifacts.manifest: missing: add it"),
        ({"serivces": []}, "edge-inference:serivces: unknown setting"),
        ({"backup": {"keep": 0}}, "edge-inference:backup.keep: found 0"),
        ({"backup": {"schedule": "daily\nExecStart=x"}}, "edge-inference:backup.schedule: found"),
        ({"backup": {"maxAgeHours": "a day"}}, "edge-inference:backup.maxAgeHours: found 'a day'"),
        ({"namespace": "Bad Name"}, "edge-inference:namespace: found 'Bad Name'"),
        (
            {"hosts": [{"name": "a", "role": "agent", "address": "h", "hostKey": KEY}]},
            "0 with role server found",
        ),
        ({"hosts": _hosts(2)}, "hosts: 2 with role server found, need 1, 3 or another odd number"),
        ({"hosts": _hosts(4)}, "hosts: 4 with role server found, need 1, 3 or another odd number"),
        ({"hosts": _hosts(3), "cluster": {"datastore": "sqlite"}}, "sqlite serves one server, found 3"),
        ({"cluster": {"datastore": "mysql"}}, "edge-inference:cluster.datastore: found 'mysql'"),
        ({"cluster": {"maxUnavailable": 0}}, "edge-inference:cluster.maxUnavailable: found 0"),
        ({"cluster": {"address": ""}}, "edge-inference:cluster.address: found ''"),
        ({"cluster": {"upgrade": {"drainSeconds": 0}}}, "cluster.upgrade.drainSeconds: found 0"),
        ({"cluster": {"upgrade": {"snapshots": -1}}}, "cluster.upgrade.snapshots: found -1"),
        ({"cluster": {"upgrade": {"onDrainTimeout": "x"}}}, "cluster.upgrade.onDrainTimeout: found 'x'"),
        ({"cluster": {"upgrade": {"force": True}}}, "cluster.upgrade.force: unknown setting"),
        (
            {"hosts": _hosts(1, privateKey="-----BEGIN X", agentSocket="/run/agent")},
            "hosts[0]: privateKey and agentSocket: both say which key logs in: leave one",
        ),
        ({"hosts": _hosts(1, privateKey="~/.ssh/id")}, "hosts[0]: privateKey: found no PEM text"),
        ({"hosts": _hosts(1, proxy={"address": "b"})}, "hosts[0].proxy: need exactly one of hostKey"),
        (
            {"hosts": _hosts(1, proxy={"address": "b", "hostKey": KEY, "port": 0})},
            "edge-inference:hosts[0].proxy.port: found 0",
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
