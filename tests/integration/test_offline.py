"""A site that is cut off: from its server for ten minutes, from each other, and after a power cut."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.integration.asker import Asker
from tests.integration.local_site import CHECKOUT, LocalSite
from tests.integration.test_ha import KUBECTL, until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo"),
    pytest.mark.slow,
]
SERVER, AGENT = "cut-1", "cut-2"
# The agent's end alone: its packets to the server, and with them the answers to the server's.
CUT = "ip route add blackhole 10.216.26.11/32"
JOINED = "ip route del blackhole 10.216.26.11/32"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    """A server and an agent, a pod of the model on each, which serves on wherever it is."""
    made = LocalSite(tmp_path_factory.mktemp("cut"), "cut", "10.216.26")
    try:
        made.create()
        configure(made, externalTrafficPolicy="Local", unreachableSeconds=None)
        yield made
    finally:
        made.localhosts("delete")


def configure(site: LocalSite, **service: Any) -> None:
    stack = yaml.safe_load((CHECKOUT / "stacks/Pulumi.local.yaml").read_text())
    site.configure(services=[stack["config"]["edge-inference:services"][0] | service])
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr


def pods(site: LocalSite) -> dict[str, tuple[str, int]]:
    """Per node: its pod of the model, and how often that was restarted."""
    listed = json.loads(site.ssh(SERVER, f"{KUBECTL} get pods -n inference -o json"))["items"]
    return {
        pod["spec"]["nodeName"]: (
            pod["metadata"]["uid"],
            pod["status"]["containerStatuses"][0]["restartCount"],
        )
        for pod in listed
    }


def answered(site: LocalSite, name: str) -> int:
    """The counter of inferences in the pod on a host."""
    metrics = site.run("curl", "-sSf", f"http://{site.address(name)}:8080/metrics").stdout
    found = re.search(r"^inference_duration_seconds_count (\d+)$", metrics, re.M)
    assert found, metrics
    return int(found[1])


def ready(site: LocalSite) -> bool:
    listed = site.ssh(SERVER, f"{KUBECTL} get nodes --no-headers").splitlines()
    return [line.split()[:2] for line in sorted(listed)] == [[SERVER, "Ready"], [AGENT, "Ready"]]


def serves(site: LocalSite, name: str) -> bool:
    return site.run("curl", "-sf", f"http://{site.address(name)}:8080/v2/health/ready").returncode == 0


def unchanged(site: LocalSite) -> None:
    found = site.pulumi("preview", "--expect-no-changes")
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_agents_server_is_off_for_ten_minutes(site: LocalSite) -> None:
    """It answers all the time, its counter counts on, and it is the same pod once the server is back."""
    before, counted = pods(site), answered(site, AGENT)
    site.localhosts("stop", SERVER)
    asker = Asker([site.address(AGENT)])
    time.sleep(600)
    asked, failed = asker.end()
    print(asked, failed)
    assert failed == []
    assert answered(site, AGENT) == counted + asked[site.address(AGENT)]
    site.localhosts("start", SERVER)
    until("both nodes are Ready", lambda: ready(site))
    until("the server's pod serves", lambda: serves(site, SERVER))
    assert pods(site)[AGENT] == before[AGENT]
    unchanged(site)


def test_a_cut_between_them_that_outlasts_kubernetes_patience(site: LocalSite) -> None:
    """Both serve on, though the agent's K3s is restarted meanwhile, and neither's pod is replaced."""
    before = pods(site)
    asker = Asker([site.address(SERVER), site.address(AGENT)])
    site.ssh(AGENT, CUT)
    until(f"{AGENT} is NotReady", lambda: not ready(site))
    site.ssh(AGENT, "systemctl restart --no-block k3s-agent")
    time.sleep(360)
    asked, failed = asker.end()
    print(asked, failed)
    assert failed == []
    site.ssh(AGENT, JOINED)
    until("both nodes are Ready", lambda: ready(site))
    assert pods(site) == before


def test_the_whole_site_without_power(site: LocalSite) -> None:
    """All comes back by itself, the agent first: no operator, no registry, no `up`."""
    before = pods(site)
    for name in (SERVER, AGENT):
        site.localhosts("stop", name)
    for name in (AGENT, SERVER):
        site.localhosts("start", name)
    for name in (AGENT, SERVER):
        until(f"{name} serves", lambda name=name: serves(site, name))  # type: ignore[misc]
    until("both nodes are Ready", lambda: ready(site))
    after = pods(site)
    assert {name: uid for name, (uid, _) in after.items()} == {name: uid for name, (uid, _) in before.items()}
    asked = site.run("python", "-m", "workloads", "query", f"http://{site.address(AGENT)}:8080")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    unchanged(site)


def test_an_agent_that_starts_without_a_server_waits_for_one(site: LocalSite) -> None:
    """K3s' agent takes its certificates from a server at each start: a limit that docs/offline.md names."""
    site.localhosts("stop", SERVER)
    site.localhosts("stop", AGENT)
    site.localhosts("start", AGENT)
    waits = (
        "journalctl _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID k3s-agent) -o cat"
        " | grep -c 'failed to get CA certs' || true"
    )
    until("the agent asks for a server", lambda: int(site.ssh(AGENT, waits)) > 2)
    assert not serves(site, AGENT)
    site.localhosts("start", SERVER)
    until("the agent's pod serves", lambda: serves(site, AGENT))


def test_the_other_way_a_pod_elsewhere_takes_its_place(site: LocalSite) -> None:
    """After `unreachableSeconds`; the pod that was cut off serves on, and ends once its node is back."""
    configure(site, replicas=3, unreachableSeconds=5, externalTrafficPolicy="Local")
    listed = f"{KUBECTL} get pods -n inference -o json"

    def placed(node: str) -> list[str]:
        """Pods that are to stay on a node."""
        found = json.loads(site.ssh(SERVER, listed))["items"]
        stay = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return [pod["metadata"]["name"] for pod in stay if pod["spec"]["nodeName"] == node]

    there = placed(AGENT)
    assert there, "no pod on the agent"
    site.ssh(AGENT, CUT)
    try:
        until("no pod is to stay on the agent", lambda: not placed(AGENT))
        until("the server has all of them", lambda: len(placed(SERVER)) == 3)
        assert serves(site, AGENT)
    finally:
        site.ssh(AGENT, JOINED)
    until(
        "the agent's pods ended",
        lambda: not [name for name in there if name in site.ssh(SERVER, listed)],
    )
    unchanged(site)
