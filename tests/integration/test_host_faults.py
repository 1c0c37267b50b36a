"""Faults of hosts: what is said, what is left, and that the next `up` repairs.

Checks run the step's own text on a host, as each `pulumi up` takes seconds; K3s' install runs through the
engine, which is killed in the middle, and faults of a running cluster run the step's text from the state.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from components.step import step_command
from tests.bench.scale import descendants
from tests.integration.gpu_host import step
from tests.integration.local_site import STACK, LocalSite
from tests.integration.test_faults import refused

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

WANTED = {
    "ROLE": "server",
    "ARCHITECTURE": "amd64",
    "ETCD": "on",
    "K3S": "",
    "MIN_MEMORY_MIB": "1",
    "MIN_DISK_MIB": "1",
}
ARTIFACTS = "/var/lib/edge-inference/artifacts"
IMAGES = "/var/lib/rancher/k3s/agent/images"
UNITS = "/etc/systemd/system"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("hf"), "hf", "10.216.20")
    try:
        made.create()
        made.configure(services=[], cluster={"waitSeconds": 120})
        yield made
    finally:
        made.localhosts("delete")


def taken(port: int) -> tuple[str, str, str]:
    """Something that listens there, how it ends, and what is said."""
    listen = f"systemd-run --quiet --unit taken --socket-property=ListenStream={port} true"
    return listen, "systemctl stop taken.socket", f"TCP port {port} is taken: stop what listens there"


def there(path: str, says: str) -> tuple[str, str, str]:
    """A file of somebody else's."""
    folder = path.rpartition("/")[0]
    end = f"rm {path}; rmdir -p --ignore-fail-on-non-empty {folder}"
    return f"mkdir -p {folder}; : >{path}", end, says


# The hosts share this machine's clock, which no test may set: another `date` is put before the real one.
CLOCK = (
    "printf '#!/bin/sh\\nexec /usr/bin/date -d @86400 \"$@\"\\n' >/usr/local/bin/date;"
    " chmod 755 /usr/local/bin/date"
)
FAULTS = {
    **{f"port-{port}": taken(port) for port in (6443, 2379, 2380, 10250)},
    "clock": (
        CLOCK,
        "rm /usr/local/bin/date",
        "clock says 1970: set the clock or start time synchronisation",
    ),
    "k3s": there(
        f"{UNITS}/k3s.service", "another cluster's unit k3s found: remove it or take the host out of"
    ),
    "kubelet": there(f"{UNITS}/kubelet.service", "another cluster's unit kubelet found: remove it or take"),
    "datastore": there(
        "/var/lib/rancher/k3s/server/db/state.db",
        "another cluster's /var/lib/rancher/k3s/server/db found: save what you need, remove that cluster",
    ),
    "kubeadm": there("/etc/kubernetes/kubelet.conf", "another cluster's /etc/kubernetes/kubelet.conf found"),
}
"""Per fault: shell text that makes it, that ends it, and what is said."""


@pytest.fixture(scope="module")
def bare(site: LocalSite) -> list[str]:
    site.ssh(site.names[0], "systemctl is-system-running --wait || true")
    return site.traces(site.names[0])


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(site: LocalSite, bare: list[str], name: str) -> None:
    make, end, message = FAULTS[name]
    host = site.names[0]
    done = step(site, host, "preflight.sh", first=f"{make}\n", **WANTED)
    print(done.stderr)
    site.ssh(host, end)
    assert done.returncode == 1
    assert f"error: host {host}: {message}" in done.stderr
    assert "1 problem(s) above; nothing was changed on the host" in done.stderr


def test_the_checks_changed_nothing_and_pass_without_faults(site: LocalSite, bare: list[str]) -> None:
    host = site.names[0]
    assert step(site, host, "preflight.sh", **WANTED).returncode == 0
    assert site.traces(host) == bare


def test_disk_full_at_the_transfer(site: LocalSite) -> None:
    host = site.names[1]
    site.ssh(host, f"mkdir -p {ARTIFACTS}; mount -t tmpfs -o size=8m none {ARTIFACTS}")
    try:
        text = refused(site)
        assert re.search(rf"k3s: \d MiB free in {ARTIFACTS}, \d+ MiB to come: free some", text)
        assert f"error: host {host}: artifact k3s: the transfer ended early" in text
        assert site.ssh(host, "ls /usr/local/bin") == ""
    finally:
        site.ssh(host, f"umount {ARTIFACTS}")


@pytest.fixture(scope="module")
def killed(site: LocalSite) -> str:
    """Kills the engine while K3s is installed on the server, then runs `up` again; what that printed."""
    server = site.names[0]
    command = ["pulumi", "up", "--yes", "--skip-preview", "--stack", STACK, "--non-interactive"]
    first = subprocess.Popen(
        command,
        cwd=site.project,
        env=site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    unit = f"ls {UNITS}/k3s.service 2>/dev/null || true"
    while not site.ssh(server, unit):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.2)
    for pid in list(descendants(first.pid)):
        with suppress(ProcessLookupError):  # it ends with its parent
            os.kill(pid, signal.SIGKILL)
    print(first.communicate()[0])
    assert first.returncode == -signal.SIGKILL
    locked = site.pulumi("up", "--yes", "--skip-preview")
    print(locked.stdout, locked.stderr)
    assert "the stack is currently locked" in locked.stdout + locked.stderr
    site.pulumi("cancel", "--yes").check_returncode()
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ready(site: LocalSite) -> list[str]:
    nodes = site.ssh(site.names[0], "k3s kubectl --cache-dir /run/kubectl get nodes --no-headers")
    return [line.split()[1] for line in sorted(nodes.splitlines())]


def test_an_engine_killed_while_k3s_installs_then_up_again(site: LocalSite, killed: str) -> None:
    """What was under way when it died is noted in the state until a refresh clears it."""
    print(killed)
    assert ready(site) == ["Ready", "Ready"]
    assert "-k3s, interrupted while creating" in killed
    site.pulumi("refresh", "--yes", "--clear-pending-creates").check_returncode()
    again = site.pulumi("preview", "--expect-no-changes")
    print(again.stdout)
    assert again.returncode == 0
    assert "interrupted" not in again.stdout


@pytest.fixture(scope="module")
def texts(site: LocalSite, killed: str) -> dict[str, str]:
    """What each step read on its host, as the state has it."""
    exported = json.loads(site.pulumi("stack", "export", "--show-secrets").stdout)
    found = exported["deployment"]["resources"]
    result = {}
    for resource in found:
        text = resource.get("inputs", {}).get("stdin")
        if isinstance(text, dict):
            text = json.loads(text["plaintext"])
        if text:
            result[resource["urn"].rpartition("::")[2]] = text
    return result


def run(site: LocalSite, host: str, script: str, text: str) -> subprocess.CompletedProcess[str]:
    done = site.on_host(host, step_command(script, "apply"), text)
    print(done.stderr)
    return done


def test_disk_full_at_the_install_of_k3s(site: LocalSite, texts: dict[str, str]) -> None:
    """A file cut short does not take the whole one's place, and K3s runs on."""
    agent = site.names[1]
    text = texts[f"{agent}-k3s"]
    site.ssh(agent, f"mount -t tmpfs -o size=1m none {IMAGES}")
    done = run(site, agent, "k3s.sh", text)
    left = site.ssh(agent, f"ls {IMAGES}; umount {IMAGES}; systemctl is-active k3s-agent")
    assert done.returncode == 1
    assert f"error: host {agent}: {IMAGES}/" in done.stderr
    assert "could not be written, 1 MiB free there: free some, then up again" in done.stderr
    assert left == "active\n"
    assert run(site, agent, "k3s.sh", text).returncode == 0


def test_a_wrong_token(site: LocalSite, texts: dict[str, str]) -> None:
    """A node that has joined has its certificate and needs no token; a new one does, and says so."""
    agent = site.names[1]
    text = texts[f"{agent}-k3s"]
    wrong = re.sub(r"^TOKEN=\w+$", f"TOKEN={'0' * 64}", text, flags=re.M)
    wrong = re.sub(r"^WAIT_SECONDS=\d+$", "WAIT_SECONDS=6", wrong, flags=re.M)
    assert wrong.count("0" * 64) == 1
    assert run(site, agent, "k3s.sh", wrong).returncode == 0
    site.ssh(agent, "systemctl stop k3s-agent; rm /var/lib/rancher/k3s/agent/client-*")
    done = run(site, agent, "k3s.sh", wrong)
    assert done.returncode == 1
    assert f"error: host {agent}: the servers refuse the token of node {agent}, the stack's" in done.stderr
    assert "0" * 64 not in done.stderr
    assert run(site, agent, "k3s.sh", text).returncode == 0
    assert ready(site) == ["Ready", "Ready"]


def test_an_api_server_that_does_not_answer(site: LocalSite, texts: dict[str, str]) -> None:
    """It hangs for a while, and the step waits for it."""
    server, agent = site.names
    later = "systemd-run --quiet --on-active=12 --timer-property=AccuracySec=100ms"
    site.ssh(server, f"{later} systemctl kill -s CONT k3s; systemctl kill -s STOP k3s")
    began = time.monotonic()
    done = run(site, server, "node.sh", texts[f"{agent}-node"])
    print(f"{time.monotonic() - began:.0f} s")
    assert done.returncode == 0
    assert "TLS handshake timeout" in done.stderr
    began = time.monotonic()
    while ready(site) != ["Ready", "Ready"]:
        assert time.monotonic() - began < 120
        time.sleep(1)
