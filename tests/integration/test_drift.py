"""What becomes of hosts behind Pulumi's back: a refresh names it, the next `up` repairs just that."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.integration.local_site import LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

SERVER, AGENT = "dr-1", "dr-2"
KUBECTL = "k3s kubectl --cache-dir /run/kubectl"
CONFIG = "/etc/rancher/k3s/config.yaml"
SHIM = "/usr/local/bin/containerd-shim-wasmedge-v1"
LIBRARY = "/opt/wasmedge/lib/libwasmedge.so.0"
UNIT = "/etc/systemd/system/k3s-agent.service"
DONE = re.compile(r" [~+-]+ +\S+ (\S+) (?:updated|created|deleted|replaced) ")
TIMER = "edge-inference-backup.timer"


@dataclass(frozen=True)
class Fault:
    """Something that is changed on a host.

    Args:
        host: where.
        make: shell text that changes it.
        says: what a refresh says after the host's name; empty: it is in the cluster, which the engine reads.
        step: the resource that the next `up` updates or creates for it.
    """

    host: str
    make: str
    says: str
    step: str


QUIET = [
    Fault(AGENT, f"rm {SHIM}", f"{SHIM} is missing", "dr-2-wasmedge"),
    Fault(AGENT, f"rm {LIBRARY}", f"{LIBRARY} is missing", "dr-2-wasmedge"),
    Fault(SERVER, f"ln -sfn /bin/true {SHIM}", f"{SHIM} leads to /bin/true", "dr-1-wasmedge"),
    Fault(
        AGENT,
        f"chmod 644 {CONFIG}",
        f"{CONFIG} has mode and owner 644 root:root, not 600 root:root",
        "dr-2-rollout",
    ),
    Fault(SERVER, "systemctl disable --quiet k3s", "unit k3s.service is active, disabled", "dr-1-k3s"),
    Fault(
        SERVER,
        f"{KUBECTL} label node {AGENT} edge.inference/runtime-",
        f"node {AGENT}: label edge.inference/runtime=wasmedge is missing",
        "dr-2-node",
    ),
    Fault(
        SERVER,
        f"{KUBECTL} label --overwrite node {SERVER} line=two",
        f"node {SERVER}: label line=one is missing",
        "dr-1-node",
    ),
    Fault(
        SERVER,
        f"{KUBECTL} taint node {SERVER} only-",
        f"node {SERVER}: taint only=tests:PreferNoSchedule is missing",
        "dr-1-node",
    ),
    Fault(SERVER, f"systemctl stop {TIMER}", f"unit {TIMER} is inactive, enabled", "dr-1-backup"),
    Fault(SERVER, f"{KUBECTL} delete runtimeclass wasm", "", "wasm"),
]
"""What is repaired without a restart of K3s."""

LOUD = [
    Fault(AGENT, "systemctl stop k3s-agent", "unit k3s-agent.service is ", "dr-2-rollout"),
    Fault(AGENT, f"echo '# by hand' >>{CONFIG}", f"{CONFIG} has other content", "dr-2-rollout"),
    Fault(
        AGENT,
        f"sed -i s/^RestartSec=.*/RestartSec=9s/ {UNIT}; systemctl daemon-reload",
        f"{UNIT} has other content",
        "dr-2-rollout",
    ),
    Fault(
        AGENT,
        "cd /usr/local/bin; cp k3s other; echo x >>other; mv other k3s",
        "/usr/local/bin/k3s has other content",
        "dr-2-rollout",
    ),
    Fault(
        AGENT,
        "for file in /var/lib/edge-inference/artifacts/k3s@*; do echo x >>$file; done",
        "/var/lib/edge-inference/artifacts/k3s@",
        "dr-2-artifacts",
    ),
]
"""What ends in a restart of the agent, and of no other node."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("dr"), "dr", "10.216.22")
    try:
        made.create()
        server = made.host(1, "server", labels={"line": "one"}, taints={"only": "tests:PreferNoSchedule"})
        made.configure(services=[], backup={}, hosts=[server, made.host(2, "agent")])
        done = made.pulumi("up", "--yes", "--skip-preview")
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    finally:
        made.localhosts("delete")


def started(site: LocalSite, name: str) -> str:
    """Tells one start of a node's K3s from another."""
    unit = "k3s" if name == SERVER else "k3s-agent"
    return site.ssh(name, f"systemctl show -p InvocationID --value {unit}")


def refresh(site: LocalSite) -> str:
    done = site.pulumi("refresh", "--yes", "--skip-preview")
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    return done.stdout


def unchanged(site: LocalSite) -> None:
    """A refresh sees nothing, and a preview has nothing to do."""
    done = site.pulumi("preview", "--refresh", "--expect-no-changes")
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "drift: " not in done.stdout


def repair(site: LocalSite) -> set[str]:
    """Runs `up`; the names of what it changed."""
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    return set(DONE.findall(done.stdout))


def test_the_first_refresh_sees_no_drift(site: LocalSite) -> None:
    unchanged(site)


def test_the_state_keeps_the_hosts_keys_secret(site: LocalSite) -> None:
    key = (site.folder / "hosts/id_ed25519").read_text().splitlines()[4]
    state = site.pulumi("stack", "export")
    assert state.returncode == 0
    assert "dynamic/edge:HostState" in state.stdout
    assert key not in state.stdout
    assert key in site.pulumi("stack", "export", "--show-secrets").stdout


@pytest.mark.parametrize(
    ("faults", "restarted"),
    [
        pytest.param(QUIET, set(), id="quiet"),
        pytest.param(LOUD, {AGENT}, id="loud", marks=pytest.mark.slow),
    ],
)
def test_drift_is_named_and_repaired(site: LocalSite, faults: list[Fault], restarted: set[str]) -> None:
    before = {name: started(site, name) for name in site.names}
    for fault in faults:
        site.ssh(fault.host, fault.make)
    scheduled = site.pulumi("preview", "--refresh", "--expect-no-changes")
    print(scheduled.stdout, scheduled.stderr)
    assert scheduled.returncode != 0
    assert "no changes were expected" in scheduled.stderr
    for text in (scheduled.stdout, refresh(site)):
        for fault in faults:
            if fault.says:
                assert f"drift: host {fault.host}: {fault.says}" in text
        named = {line for line in text.splitlines() if line.startswith("    drift: host ")}
        assert len(named) == len([fault for fault in faults if fault.says]), "something else drifted, too"
    assert repair(site) == {"site-hosts", *(fault.step for fault in faults)}
    assert {name for name in site.names if started(site, name) != before[name]} == restarted
    unchanged(site)


def test_the_only_server_is_stopped(site: LocalSite) -> None:
    """The cluster can't be read; nothing is lost from the state, and what the refresh saw is in it."""
    resources = site.pulumi("stack", "export").stdout.count('"urn"')
    agent = started(site, AGENT)
    site.ssh(SERVER, "systemctl stop k3s")
    done = site.pulumi("refresh", "--yes", "--skip-preview")
    print(done.stdout, done.stderr)
    assert done.returncode != 0
    # systemd calls it failed when K3s does not end in peace.
    stopped = rf"drift: host {SERVER}: unit k3s.service is (inactive|failed), enabled \(step dr-1-k3s\)"
    assert re.search(stopped, done.stdout)
    assert f"warning: host {SERVER}: the API does not answer" in done.stdout
    assert "cluster is unreachable" in done.stdout
    assert site.pulumi("stack", "export").stdout.count('"urn"') == resources
    assert re.search(stopped, site.pulumi("preview").stdout), "the preview does not say what it repairs"
    assert repair(site) == {"site-hosts", "dr-1-k3s"}
    assert started(site, AGENT) == agent
    unchanged(site)


@pytest.mark.slow
def test_a_host_that_does_not_answer_stays_as_it_was(site: LocalSite) -> None:
    site.ssh(AGENT, f"rm {SHIM}")
    rule = ["INPUT", "-p", "tcp", "--dport", "22", "-j", "REJECT", "--reject-with", "tcp-reset"]
    inside = ["ip", "netns", "exec", f"lh.{site.prefix}.{AGENT}", "iptables"]
    subprocess.run([*inside, "-I", *rule], check=True)
    try:
        text = refresh(site)
    finally:
        subprocess.run([*inside, "-D", *rule], check=True)
    assert f"warning: host {AGENT} could not be looked at, it is taken to be as it was: " in text
    assert "Connection refused" in text
    assert "drift: " not in text
    assert f"drift: host {AGENT}: {SHIM} is missing" in refresh(site)
    assert repair(site) == {"site-hosts", "dr-2-wasmedge"}
    unchanged(site)
