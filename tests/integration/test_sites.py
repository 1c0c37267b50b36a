"""Two sites in one stack, as the example has them, of one host each: one is off at first, then repaired."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.integration.local_site import CHECKOUT, STACK, LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

EXAMPLE = CHECKOUT / "examples/topologies/several-sites.yaml"
UP = ("up", "--yes", "--skip-preview", "--continue-on-error", "--policy-pack", "policies")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("sa"), "sa", "10.216.30")
    try:
        made.create()
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture(scope="module")
def before(site: LocalSite) -> dict[str, list[str]]:
    """What is on the hosts before the first `up`."""
    for name in site.names:
        site.ssh(name, "systemctl is-system-running --wait || true")
    return {name: site.traces(name) for name in site.names}


def configure(site: LocalSite, **sites: dict[str, Any]) -> None:
    """The example's settings: these sites with one host of this machine each, and with changes."""
    config = yaml.safe_load(EXAMPLE.read_text())["config"]
    stated = config["edge-inference:sites"]
    for number, name in enumerate(("north", "south"), 1):
        stated[name]["hosts"] = [site.host(number, "server")]
    config["edge-inference:sites"] = {name: stated.get(name, {}) | sites[name] for name in sites}
    file = site.project / f"config/Pulumi.{STACK}.yaml"
    kept = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(kept | {"config": config}))


def counts(text: str) -> dict[str, int]:
    """The summary of an update or preview: created, unchanged and so on."""
    summary = text[text.rindex("Resources:") :]
    return {what: int(number) for number, what in re.findall(r"(\d+) (?:to )?(\w+)", summary)}


def answers(site: LocalSite, name: str) -> None:
    """The site's service gives the right answer."""
    asked = site.run("python", "-m", "workloads", "query", site.output(name)["endpoints"]["ai-inference"])
    print(asked.stdout)
    assert asked.returncode == 0, asked.stdout + asked.stderr


def started(site: LocalSite, name: str) -> str:
    """When K3s was started on a host."""
    return site.ssh(name, "systemctl show -P ActiveEnterTimestampMonotonic k3s")


@pytest.fixture(scope="module")
def one_off(site: LocalSite, before: dict[str, list[str]]) -> str:
    """The first `up`, while south's host is off; what it printed."""
    configure(site, north={}, south={})
    site.localhosts("stop", site.names[1])
    done = site.pulumi(*UP)
    print(done.stdout, done.stderr)
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_the_other_site_comes_up_and_the_message_names_site_and_host(site: LocalSite, one_off: str) -> None:
    host = site.names[1]
    assert re.search(
        rf"command:remote:Command \({host}-preflight\):\n +error: .*{site.address(host)}", one_off
    )
    assert f"error: site south is not complete: resource {host}-preflight [command:remote:Command]" in one_off
    assert "site north" not in one_off
    assert "Traceback" not in one_off
    assert "never awaited" not in one_off
    answers(site, "north")
    outputs = json.loads(site.pulumi("stack", "output", "--json").stdout)
    assert list(outputs) == ["north"]
    assert outputs["north"]["kubeconfig"] == "[secret]"


@pytest.fixture(scope="module")
def both(site: LocalSite, one_off: str) -> dict[str, int]:
    """South's host is on again, and `up` finishes; the summary."""
    running = started(site, site.names[0])
    site.localhosts("start", site.names[1])
    done = site.pulumi(*UP)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = counts(done.stdout)
    print(summary)
    assert set(summary) == {"created", "unchanged"}
    assert summary["unchanged"] == counts(one_off)["created"]
    assert started(site, site.names[0]) == running
    return summary


def test_after_the_repair_both_serve(site: LocalSite, both: dict[str, int]) -> None:
    for name in ("north", "south"):
        answers(site, name)
    shown = site.run("python", "-m", "status", "--stack", STACK)
    print(shown.stdout)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for text in ("site north", "site south", *site.names):
        assert text in shown.stdout


def test_they_are_two_clusters(site: LocalSite, both: dict[str, int]) -> None:
    """Each has one node, and a certificate authority of its own."""
    shown = json.loads(site.pulumi("stack", "output", "--json", "--show-secrets").stdout)
    configs = [yaml.safe_load(shown[name]["kubeconfig"]) for name in ("north", "south")]
    authorities = {config["clusters"][0]["cluster"]["certificate-authority-data"] for config in configs}
    assert len(authorities) == 2
    assert [list(site.output(name)["nodes"]) for name in ("north", "south")] == [
        [each] for each in site.names
    ]


def test_a_further_site_touches_nothing_of_the_others(site: LocalSite, both: dict[str, int]) -> None:
    host = site.host(1, "server", name="far-1", address="192.0.2.9")
    configure(site, north={}, south={}, east={"hosts": [host]})
    shown = site.pulumi("preview")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    summary = counts(shown.stdout)
    print(summary)
    assert set(summary) == {"create", "unchanged"}
    assert summary["unchanged"] == sum(both.values())


def test_a_fault_in_a_site_that_is_up_takes_nothing_of_it_away(site: LocalSite, both: dict[str, int]) -> None:
    """What of it could not be declared stays, and so do its outputs; the other site gets its change."""
    before, south = names(site), site.output("south")
    configure(site, north=labelled(site), south={"cluster": {"minimums": {"memoryMiB": 10**9}}})
    done = site.pulumi(*UP)
    print(done.stdout, done.stderr)
    assert done.returncode != 0
    assert "MiB memory found, need 1000000000: add memory or lower cluster.minimums.memoryMiB" in done.stdout
    assert f"error: site south is not complete: resource {site.names[1]}-preflight" in done.stdout
    assert set(counts(done.stdout)) == {"updated", "unchanged", "errored"}
    assert (names(site), site.output("south")) == (before, south)
    assert "yes" in site.ssh(site.names[0], "k3s kubectl --cache-dir /run/kubectl get nodes -L changed")


def labelled(site: LocalSite) -> dict[str, Any]:
    """What changes in north."""
    return {"hosts": [site.host(1, "server", labels={"changed": "yes"})]}


def names(site: LocalSite) -> list[str]:
    """What the state has."""
    found = json.loads(site.pulumi("stack", "export").stdout)["deployment"]["resources"]
    return sorted(each["urn"] for each in found)


def test_a_site_taken_out_takes_only_itself_away(
    site: LocalSite, both: dict[str, int], before: dict[str, list[str]]
) -> None:
    running = started(site, site.names[0])
    configure(site, north=labelled(site))
    done = site.pulumi(*UP)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = counts(done.stdout)
    print(summary)
    assert set(summary) == {"deleted", "unchanged"}
    assert summary["unchanged"] + summary["deleted"] == sum(both.values())
    assert sorted(set(site.traces(site.names[1])) ^ set(before[site.names[1]])) == []
    assert started(site, site.names[0]) == running
    with urllib.request.urlopen(
        f"http://{site.address(site.names[0])}:8080/v2/health/ready", timeout=10
    ) as ok:
        assert ok.status == 200
    assert list(json.loads(site.pulumi("stack", "output", "--json").stdout)) == ["north"]


def test_destroy_leaves_the_hosts_as_they_were(
    site: LocalSite, both: dict[str, int], before: dict[str, list[str]]
) -> None:
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        assert sorted(set(site.traces(name)) ^ set(before[name])) == []
