"""Three servers with embedded etcd and an agent behind one address, from four bare hosts and back."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.asker import Asker
from tests.integration.local_site import CHECKOUT, LocalSite

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo"),
    pytest.mark.slow,
]

KUBECTL = "k3s kubectl --cache-dir /run/kubectl"
AGENT = 3
"""Its place among the hosts; the last host is a server's successor."""
ROTATION = {"token": "second", "certificates": "second"}
FLAGS = {"flags": {"kubelet-arg": ["max-pods=60"]}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("ha"), "ha", "10.216.14", count=5)
    try:
        made.create()
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture(scope="module")
def before(site: LocalSite) -> dict[str, list[str]]:
    """What is on the hosts before the first `up`."""
    return {name: site.traces(name) for name in site.names}


@pytest.fixture(scope="module")
def address(site: LocalSite) -> Iterator[str]:
    """The operator's load balancer: port 6443 of whichever server takes the connection."""
    address = f"{site.subnet}.1"
    servers = [site.address(name) for name in site.names if name != site.names[AGENT]]
    command = [sys.executable, "-m", "tests.integration.balancer", address, "6443", *servers]
    balancer = subprocess.Popen(command, cwd=CHECKOUT)
    yield address
    balancer.kill()
    balancer.wait()


@pytest.fixture(scope="module")
def up(site: LocalSite, before: dict[str, list[str]], address: str) -> str:
    """The first `up`; returns what it printed."""
    configure(site, [1, 2, 3], {"address": address})
    start = time.monotonic()
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\nfour bare hosts to a serving model: {time.monotonic() - start:.0f} s")
    return done.stdout


def configure(site: LocalSite, servers: list[int], cluster: dict[str, object], **changes: Any) -> None:
    """Settings with these hosts as servers, and the agent."""
    hosts = [site.host(number, "server") for number in servers] + [site.host(AGENT + 1, "agent")]
    site.configure(hosts=hosts, cluster=cluster, **changes)


def nodes(site: LocalSite, through: str) -> dict[str, dict[str, str]]:
    """Per node, its conditions, read through one server."""
    listed = json.loads(site.ssh(through, f"{KUBECTL} get nodes -o json"))
    return {
        node["metadata"]["name"]: {item["type"]: item["status"] for item in node["status"]["conditions"]}
        for node in listed["items"]
    }


def until(what: str, true: Callable[[], bool], seconds: float = 120) -> None:
    """Waits for something that comes by itself."""
    start = time.monotonic()
    while True:
        try:
            if true():
                break
        except (subprocess.CalledProcessError, OSError) as error:
            print(error)
        assert time.monotonic() - start < seconds, f"{what}: not after {seconds} s"
        time.sleep(1)
    print(f"{what}: after {time.monotonic() - start:.0f} s")


def serves(site: LocalSite, name: str) -> bool:
    """The service answers at a host's address."""
    url = f"http://{site.address(name)}:8080/v2/health/ready"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)


def restarted(site: LocalSite, name: str) -> float:
    """When K3s was last started on a host, in s of its monotonic clock, which all hosts share."""
    show = "systemctl show -P ActiveEnterTimestampMonotonic k3s k3s-agent"
    return max(float(text) for text in site.ssh(name, show).split()) / 1e6


class Watch:
    """Which nodes are not Ready, looked at twice a second by the one address, until `end`."""

    def __init__(self, site: LocalSite) -> None:
        self._kubeconfig = site.folder / "watch-kubeconfig"
        self._kubeconfig.write_text(site.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout)
        self._site = site
        self._over = threading.Event()
        self._seen: set[tuple[str, ...]] = set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            listed = self._site.run(
                "kubectl", "--kubeconfig", str(self._kubeconfig), "get", "nodes", "--no-headers"
            )
            lines = [line.split() for line in listed.stdout.splitlines()]
            self._seen.add(tuple(line[0] for line in lines if line[1] != "Ready"))

    def end(self) -> list[tuple[str, ...]]:
        """Each set of nodes that was not Ready at once."""
        self._over.set()
        self._thread.join()
        return sorted(self._seen)


def members(site: LocalSite, through: str) -> list[str]:
    """Names of etcd's members, as a server tells one that joins."""
    ask = 'curl -sSk -u "server:$(cat /etc/rancher/k3s/token)" https://127.0.0.1:6443/db/info'
    listed = json.loads(site.ssh(through, ask))
    return sorted(member["name"].rsplit("-", 1)[0] for member in listed["members"])


def test_etcd_has_three_members_and_all_nodes_are_ready(site: LocalSite, up: str) -> None:
    servers = site.names[:AGENT]
    for through in servers:
        found = nodes(site, through)
        ready = {name: conditions["Ready"] for name, conditions in found.items()}
        assert ready == dict.fromkeys([*servers, site.names[AGENT]], "True")
        assert [name for name in found if found[name].get("EtcdIsVoter") == "True"] == servers
        assert members(site, through) == servers


def test_the_model_answers(site: LocalSite, up: str) -> None:
    asked = site.run("python", "-m", "workloads", "query", site.output("endpoints")["ai-inference"])
    assert asked.returncode == 0, asked.stdout + asked.stderr
    print(asked.stdout)


def test_second_up_changes_nothing(site: LocalSite, up: str) -> None:
    again = site.pulumi("up", "--yes")
    assert re.search(r"Resources:\s+\d+ unchanged\s+Duration", again.stdout), again.stdout[-2000:]


def test_a_server_without_power_is_missed_by_nobody(site: LocalSite, up: str, address: str) -> None:
    """The first one: the API answers by the one address, the model serves, an `up` finds nothing to do."""
    first, agent = site.names[0], site.names[AGENT]
    kubeconfig = site.folder / "kubeconfig"
    kubeconfig.write_text(site.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout)
    site.localhosts("stop", first)
    try:

        def seen() -> bool:
            listed = site.run(
                "kubectl", "--kubeconfig", str(kubeconfig), "get", "node", first, "--no-headers"
            )
            return "NotReady" in listed.stdout

        until(f"{first} is NotReady, says the API at {address}", seen)
        until("the model serves", lambda: serves(site, agent))
        again = site.pulumi("up", "--yes", "--skip-preview")
        assert re.search(r"Resources:\s+\d+ unchanged\s+Duration", again.stdout), again.stdout[-2000:]
    finally:
        site.localhosts("start", first)
    until(f"{first} is Ready", lambda: nodes(site, first)[first]["Ready"] == "True")
    assert members(site, first) == site.names[:AGENT]


def test_a_changed_flag_restarts_one_node_after_the_other(site: LocalSite, up: str, address: str) -> None:
    configure(site, [1, 2, 3], {"address": address, **FLAGS})
    watch = Watch(site)
    done = site.pulumi("up", "--yes", "--skip-preview")
    not_ready = watch.end()
    assert done.returncode == 0, done.stdout + done.stderr
    order = [*site.names[:AGENT], site.names[AGENT]]
    started = [restarted(site, name) for name in order]
    print(f"restarted at {[round(at) for at in started]} s; not ready at once: {not_ready}")
    assert started == sorted(started)
    assert min(later - earlier for earlier, later in itertools.pairwise(started)) > 3
    assert max(len(names) for names in not_ready) <= 1
    capacity = json.loads(site.ssh(site.names[0], f"{KUBECTL} get nodes -o json"))["items"]
    assert {item["status"]["capacity"]["pods"] for item in capacity} == {"60"}


def test_another_token_and_new_certificates(site: LocalSite, up: str, address: str) -> None:
    """One node after the other; the model answers each question meanwhile, and a new server could join."""
    read, first = "cat /etc/rancher/k3s/token", site.names[0]
    old, asker = site.ssh(first, read), Asker([site.address(name) for name in site.names[: AGENT + 1]])
    configure(site, [1, 2, 3], {"address": address, **FLAGS, "rotation": ROTATION})
    watch = Watch(site)
    done = site.pulumi("up", "--yes", "--skip-preview")
    not_ready, (asked, failed) = watch.end(), asker.end()
    print(f"{done.stdout}\n{len(failed)} of {asked} not answered: {failed}; not ready at once: {not_ready}")
    assert done.returncode == 0, done.stdout + done.stderr
    tokens = {site.ssh(name, read) for name in site.names[: AGENT + 1]}
    assert len(tokens) == 1
    assert old not in tokens
    assert max(len(names) for names in not_ready) <= 1
    for name in site.names[:AGENT]:
        assert members(site, name) == site.names[:AGENT]


def test_the_first_server_replaced(
    site: LocalSite, up: str, before: dict[str, list[str]], address: str
) -> None:
    """Another host takes its place in one `up`; its membership ends before its host is cleared."""
    configure(site, [2, 3, 5], {"address": address, **FLAGS, "rotation": ROTATION})
    running = [restarted(site, name) for name in site.names[1 : AGENT + 1]]
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    servers = [site.names[1], site.names[2], site.names[4]]
    for name in servers:
        assert members(site, name) == servers
    # It ended its own membership; its node object goes when another server is the controllers' leader.
    left = [*servers, site.names[AGENT]]
    until("its node is gone", lambda: sorted(nodes(site, servers[0])) == sorted(left))
    assert {found["Ready"] for found in nodes(site, servers[0]).values()} == {"True"}
    assert [restarted(site, name) for name in site.names[1 : AGENT + 1]] == running
    assert sorted(set(site.traces(site.names[0])) ^ set(before[site.names[0]])) == []
    until("the model serves", lambda: serves(site, site.names[AGENT]))


def test_a_server_that_is_gone_for_good(site: LocalSite, up: str, address: str) -> None:
    """`gone` ends its membership; then another takes its place in `hosts`. None that stays is restarted."""
    lost, successor = site.names[1], site.names[0]
    stayed = [site.names[2], site.names[4], site.names[AGENT]]
    running = [restarted(site, name) for name in stayed]
    site.localhosts("stop", lost)
    flags: dict[str, object] = {"address": address, **FLAGS, "rotation": ROTATION}
    servers = [site.host(2, "server", gone=True), site.host(3, "server"), site.host(5, "server")]
    agent = site.host(AGENT + 1, "agent")
    site.configure(hosts=[*servers, agent], cluster=flags)
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert members(site, stayed[0]) == stayed[:2]
    assert sorted(nodes(site, stayed[0])) == sorted(stayed)
    configure(site, [3, 5, 1], flags)
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(nodes(site, successor)) == sorted([successor, *stayed])
    assert members(site, successor) == sorted([successor, *stayed[:2]])
    assert {found["Ready"] for found in nodes(site, successor).values()} == {"True"}
    assert [restarted(site, name) for name in stayed] == running
    until("the model serves", lambda: serves(site, site.names[AGENT]))
    site.localhosts("reset", lost)


def test_destroy_leaves_the_hosts_as_they_were(
    site: LocalSite, up: str, before: dict[str, list[str]]
) -> None:
    start = time.monotonic()
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    print(f"\ndestroyed in {time.monotonic() - start:.0f} s")
    for name in site.names:
        assert sorted(set(site.traces(name)) ^ set(before[name])) == []


def test_one_server_becomes_three(site: LocalSite, before: dict[str, list[str]]) -> None:
    """Without an address of their own: what sqlite held is in etcd then, and the agent goes on."""
    server, agent = site.names[0], site.names[AGENT]
    configure(site, [1], {}, services=[])
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "member" not in site.ssh(server, "ls /var/lib/rancher/k3s/server/db/etcd")
    site.ssh(server, f"KUBECACHEDIR=/run/kubectl {KUBECTL} create configmap kept --from-literal=from=sqlite")
    running = restarted(site, agent)
    configure(site, [1, 2, 3], {}, services=[])
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in site.names[:AGENT]:
        assert members(site, name) == site.names[:AGENT]
    read = f"{KUBECTL} get configmap kept -o 'jsonpath={{.data.from}}'"
    assert site.ssh(site.names[2], read) == "sqlite"
    assert restarted(site, agent) == running
    assert {found["Ready"] for found in nodes(site, site.names[1]).values()} == {"True"}
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        assert sorted(set(site.traces(name)) ^ set(before[name])) == []
