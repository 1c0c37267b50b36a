"""Several sites in one stack: what they share, what is theirs alone, and where a message says it stands."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from stacks.manifest import Entry
from stacks.settings import SettingsError, parse
from stacks.site import Site
from stacks.sites import parse_sites

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJr0"
SERVICE = {"name": "s", "imageFile": "s.json"}


def _host(name: str, role: str = "server", **changes: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "address": "h", "hostKey": KEY} | changes


def _stack(**changes: Any) -> dict[str, Any]:
    return {
        "artifacts": {"manifest": "shared.json"},
        "cluster": {"waitSeconds": 60, "upgrade": {"drainSeconds": 30}},
        "services": [SERVICE, SERVICE | {"name": "t", "deployment": "t"}],
        "sites": {
            "north": {"hosts": [_host("n")], "cluster": {"upgrade": {"snapshots": 1}}},
            "south": {"hosts": [_host("s")], "services": [SERVICE], "artifacts": {"publicKey": "key"}},
        },
    } | changes


def test_mappings_are_merged_and_lists_replaced() -> None:
    north, south = parse_sites(_stack())
    assert (north.name, south.name) == ("north", "south")
    upgrade = north.settings.cluster.upgrade
    assert (north.settings.cluster.wait_seconds, upgrade.drain_seconds, upgrade.snapshots) == (60, 30, 1)
    assert south.settings.cluster.upgrade.snapshots == 3
    assert [len(site.settings.services) for site in (north, south)] == [2, 1]
    assert south.settings.artifacts.manifest == "shared.json"
    assert (north.settings.artifacts.public_key, south.settings.artifacts.public_key) == (None, "key")


def test_a_stack_without_sites_is_one_without_a_name() -> None:
    values = _stack(hosts=[_host("n")])
    del values["sites"]
    (only,) = parse_sites(values)
    assert (only.name, only.settings) == ("", parse(values))
    assert only.place("hosts", 0, "name") == "hosts[0].name"


def test_sites_and_their_hosts_may_stand_in_files(tmp_path: Path) -> None:
    wanted = _stack()
    hosts, sites = tmp_path / "hosts.yaml", tmp_path / "sites.yaml"
    hosts.write_text(yaml.safe_dump(wanted["sites"]["north"]["hosts"]))
    stated = wanted["sites"] | {"north": wanted["sites"]["north"] | {"hosts": str(hosts)}}
    sites.write_text(yaml.safe_dump(stated))
    found = parse_sites(_stack(sites=str(sites)))
    assert [site.settings for site in found] == [site.settings for site in parse_sites(wanted)]
    hosts.unlink()
    with pytest.raises(SettingsError, match=r"edge-inference:sites.north.hosts: .*No such file"):
        parse_sites(_stack(sites=str(sites)))


def _north(**changes: Any) -> dict[str, Any]:
    sites = _stack()["sites"]
    return {"sites": sites | {"north": sites["north"] | changes}}


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (_north(hosts=[_host("n", address="")]), ["sites.north.hosts[0].address: found ''"]),
        (_north(hosts=[_host("n", port=0)]), ["sites.north.hosts[0].port: found 0"]),
        (_north(cluster={"datastore": "x"}), ["sites.north.cluster.datastore: found 'x'"]),
        (_north(cluster={"upgrade": {"force": True}}), ["sites.north.cluster.upgrade.force: unknown"]),
        (_north(hosts=[_host("n"), _host("m")]), ["sites.north: hosts: 2 with role server found"]),
        (_north(services=[SERVICE, SERVICE]), ["sites.north: services: two have the same name"]),
        (_north(sites={}), ["sites.north.sites: unknown setting"]),
        (_north(hosts=None), ["sites.north.hosts: found None"]),
        # What sites share is wrong once, where it stands.
        ({"cluster": {"datastore": "x"}}, ["cluster.datastore: found 'x'"]),
        ({"cluster": {"upgrade": {"drainSeconds": 0}}}, ["cluster.upgrade.drainSeconds: found 0"]),
        ({"services": [{"name": "s"}]}, ["services[0]: need exactly one of image and imageFile"]),
        ({"serivces": []}, ["serivces: unknown setting"]),
        # South has artifacts of its own, without this.
        ({"artifacts": {}}, ["artifacts.manifest: missing", "sites.south.artifacts.manifest: missing"]),
        ({"hosts": [_host("n")]}, ["hosts: found beside sites: move it into the site"]),
        ({"sites": {}}, ["sites: found nothing: need a mapping"]),
        ({"sites": [1]}, ["sites: found list: need a mapping"]),
        ({"sites": {"North": {}}}, ["sites.North: found the name 'North': need lower-case letters"]),
        ({"sites": {"a.b": {}}}, ["sites.a.b: found the name 'a.b': need lower-case letters"]),
        ({"sites": {7: {}}}, ["sites.7: found the name 7: need lower-case letters"]),
        ({"sites": {"north": "x"}}, ["sites.north: found str: need a mapping"]),
        (
            _north(hosts=[_host("s")]),
            ["sites.north.hosts[0].name: another site has a host s", "sites.south.hosts[0].name: another"],
        ),
    ],
)
def test_a_wrong_setting_is_named_where_it_stands(change: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_sites(_stack() | change)
    found = str(raised.value).splitlines()
    assert len(found) == len(lines), found
    for line, wanted in zip(found, lines, strict=True):
        assert line.startswith(f"edge-inference:{wanted}")


def _site(name: str, source: str = "k3s", **more: Entry) -> Site:
    entry = Entry(version="v1", source=source, sha256="0" * 64)
    settings = parse_sites(_stack())[0].settings
    files = {"amd64": {"k3s": entry}} | {architecture: {"k3s": each} for architecture, each in more.items()}
    return Site(settings, files, {}, {}, {}, [], name)


def test_names_of_resources() -> None:
    """Those of a stack without sites stay; the same file has one name, whatever sites there are."""
    alone, north, south = (_site(name) for name in ("", "north", "south"))
    other = _site("south", "other/k3s")
    assert (alone.unique("cluster"), alone.unique_artifact("k3s", "amd64")) == ("cluster", "k3s")
    assert (north.unique("cluster"), south.unique("cluster")) == ("north.cluster", "south.cluster")
    assert north.unique_artifact("k3s", "amd64") == south.unique_artifact("k3s", "amd64")
    assert north.unique_artifact("k3s", "amd64") != other.unique_artifact("k3s", "amd64")


@pytest.mark.parametrize(("sha256", "name"), [("0" * 64, "k3s"), ("1" * 64, "k3s@arm64")])
def test_a_file_of_another_architecture_has_a_name_of_its_own(sha256: str, name: str) -> None:
    """What serves both is declared once."""
    mixed = _site("", arm64=Entry(version="v1", source="k3s", sha256=sha256))
    assert [mixed.unique_artifact("k3s", each) for each in ("amd64", "arm64")] == ["k3s", name]
