"""What a change touches: nothing, one host, or one after the other until one does not come back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.local_site import LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

KUBECTL = "k3s kubectl --cache-dir /run/kubectl"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    """A server with two agents."""
    made = LocalSite(tmp_path_factory.mktemp("roll"), "roll", "10.216.16", count=3)
    try:
        made.create()
        configure(made)
        done = made.pulumi("up", "--yes", "--skip-preview")
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        made.localhosts("delete")


def configure(site: LocalSite, agent: dict[str, Any] | None = None, **cluster: Any) -> None:
    """The settings; changes of the first agent and of the cluster."""
    hosts = [site.host(1, "server"), site.host(2, "agent", **(agent or {})), site.host(3, "agent")]
    site.configure(hosts=hosts, services=[], cluster={"waitSeconds": 120} | cluster)


def started(site: LocalSite) -> dict[str, int]:
    """When K3s was last started on each host, in µs of the monotonic clock that all of them share."""
    show = "systemctl show -P ActiveEnterTimestampMonotonic k3s k3s-agent"
    return {name: max(int(text) for text in site.ssh(name, show).split()) for name in site.names}


def logins(site: LocalSite) -> dict[str, int]:
    """How often someone logged in on each host, but for the logins that ask this."""
    count = "journalctl -u ssh -o cat | grep -c 'Accepted publickey'; echo x >>/run/asked; wc -l </run/asked"
    found = {name: site.ssh(name, count).split() for name in site.names}
    return {name: int(accepted) - int(asked) for name, (accepted, asked) in found.items()}


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


def up(site: LocalSite) -> str:
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def node(site: LocalSite, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(site.ssh(site.names[0], f"{KUBECTL} get node {name} -o json"))
    return found


def test_an_unchanged_up_logs_in_nowhere(site: LocalSite) -> None:
    before = logins(site)
    assert re.search(r"Resources:\s+\d+ unchanged\s+Duration", up(site))
    assert changed(before, logins(site)) == []


def test_a_label_and_a_taint_restart_nothing(site: LocalSite) -> None:
    """They are set through the API: the agent itself is not even spoken to."""
    agent = site.names[1]
    running, asked = started(site), logins(site)
    taints = {"example.com/kept": "for-tests:NoSchedule"}
    configure(site, {"labels": {"example.com/line": "3"}, "taints": taints})
    assert "~ 1 updated" in up(site)
    assert changed(running, started(site)) == []
    # The starts were looked at by one login on each host.
    others = logins(site)
    assert [others[name] - asked[name] for name in site.names] == [2, 1, 1]
    found = node(site, agent)
    assert found["metadata"]["labels"]["example.com/line"] == "3"
    assert {item["key"] for item in found["spec"]["taints"]} == {"example.com/kept"}
    configure(site)
    up(site)
    assert "example.com/line" not in node(site, agent)["metadata"]["labels"]
    assert changed(running, started(site)) == []


def test_a_flag_of_servers_restarts_no_agent(site: LocalSite) -> None:
    running = started(site)
    configure(site, serverFlags={"kube-apiserver-arg": ["goaway-chance=0.001"]})
    up(site)
    assert changed(running, started(site)) == site.names[:1]


def test_a_node_that_does_not_come_back_stops_the_rollout(site: LocalSite) -> None:
    """The agents after it are as they were; once it is mended, the next `up` goes on with it."""
    server, broken, last = site.names
    drop_in = "/etc/systemd/system/k3s-agent.service.d/99-test.conf"
    start = "[Service]\\nExecStartPre=/bin/false\\n"
    site.ssh(broken, f"mkdir -p {drop_in.rsplit('/', 1)[0]} && printf '{start}' >{drop_in}")
    site.ssh(broken, "systemctl daemon-reload")
    running = started(site)
    flags = {"serverFlags": {"kube-apiserver-arg": ["goaway-chance=0.001"]}}
    flags["flags"] = {"kubelet-arg": ["max-pods=70"]}
    configure(site, waitSeconds=60, **flags)
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout)
    assert done.returncode != 0
    assert f"error: host {broken}: node {broken} not Ready after 6" in done.stdout
    now = started(site)
    assert now[last] == running[last], "the agent after it was restarted"
    assert now[server] != running[server], "servers go before agents"
    assert node(site, last)["status"]["capacity"]["pods"] == "110"

    site.ssh(broken, f"rm {drop_in} && systemctl daemon-reload")
    configure(site, waitSeconds=120, **flags)
    up(site)
    after = started(site)
    assert changed(now, after) == [broken, last]
    assert after[broken] < after[last]
    assert {node(site, name)["status"]["capacity"]["pods"] for name in site.names} == {"70"}


def test_another_role_is_refused_before_anything(site: LocalSite) -> None:
    running = started(site)
    site.configure(hosts=[site.host(number, "server") for number in (1, 2, 3)], services=[])
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode != 0
    assert (
        f"error: host {site.names[1]}: its node is no server so far: take the host out of hosts"
        in done.stdout
    )
    assert changed(running, started(site)) == []


def test_destroy(site: LocalSite) -> None:
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        assert site.ssh(name, "ls -d /var/lib/edge-inference /var/lib/rancher 2>/dev/null || true") == ""
