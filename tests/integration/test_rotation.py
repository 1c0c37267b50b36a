"""Another join token, new certificates, another SSH host key, each by a setting, on a cluster that runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.local_site import LocalSite
from tests.integration.test_rolling import KUBECTL, changed, started

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")
READ = "cat /etc/rancher/k3s/token"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("rot"), "rot", "10.216.27", count=3)
    try:
        made.create()
        up(made)
        yield made
    finally:
        made.localhosts("delete")


def up(site: LocalSite, rotation: dict[str, str] | None = None, *, hosts: Any = None) -> str:
    """Runs `up` with the server and the first agent, or these hosts."""
    wanted = hosts or [site.host(1, "server"), site.host(2, "agent")]
    site.configure(services=[], hosts=wanted, cluster={"waitSeconds": 120, "rotation": rotation or {}})
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ready(site: LocalSite) -> list[str]:
    listed = site.ssh(site.names[0], f"{KUBECTL} get nodes --no-headers").splitlines()
    return [line.split()[0] for line in sorted(listed) if line.split()[1] == "Ready"]


def takes(site: LocalSite, token: str) -> bool:
    """The server lets a node with this token have its cluster's settings."""
    ask = "read -r token; curl -sk -o /dev/null -w '%{http_code}' -u \"node:$token\""
    url = "https://127.0.0.1:6443/v1-k3s/config"
    code = site.on_host(site.names[0], f"{ask} {url}", token + "\n").stdout
    assert code in ("200", "401", "403"), code
    return code == "200"


def unchanged(site: LocalSite) -> None:
    found = site.pulumi("preview", "--expect-no-changes")
    assert found.returncode == 0, found.stdout + found.stderr


def test_another_token(site: LocalSite) -> None:
    """The one before is refused from then on, nodes go on, and a new node joins."""
    server, agent, late = site.names
    old, running = site.ssh(server, READ).strip(), started(site)
    assert takes(site, old)
    print(up(site, {"token": "first"}))
    new = site.ssh(server, READ).strip()
    assert re.fullmatch(r"[0-9a-f]{64}", new)
    assert new != old
    assert site.ssh(agent, READ).strip() == new
    assert takes(site, new)
    assert not takes(site, old)
    assert ready(site) == [server, agent]
    assert changed(running, started(site)) == [server, agent]
    assert site.ssh(server, "ls /var/lib/edge-inference | grep kubeconfig || true") == ""
    hosts = [site.host(1, "server"), site.host(2, "agent"), site.host(3, "agent")]
    up(site, {"token": "first"}, hosts=hosts)
    assert ready(site) == [server, agent, late]
    unchanged(site)
    up(site, {"token": "first"})


def test_a_token_that_cannot_be_changed_now(site: LocalSite) -> None:
    """K3s is off: nothing is changed, and once it runs the next `up` changes it."""
    server, agent = site.names[:2]
    old = site.ssh(server, READ)
    site.ssh(server, "systemctl stop k3s")
    site.configure(services=[], cluster={"waitSeconds": 120, "rotation": {"token": "second"}})
    refused = site.pulumi("up", "--yes", "--skip-preview")
    print(refused.stdout)
    assert refused.returncode != 0
    says = "k3s does not run, and only it can change the cluster's token: systemctl start k3s, then up again"
    assert f"error: host {server}: {says}" in refused.stdout
    assert site.ssh(server, READ) == old
    site.ssh(server, "systemctl start k3s")
    up(site, {"token": "second"})
    assert site.ssh(server, READ) != old
    assert site.ssh(agent, READ) == site.ssh(server, READ)
    assert ready(site) == [server, agent]


def serials(site: LocalSite) -> dict[str, str]:
    """Serial numbers of certificates, by file."""
    files = {
        site.names[0]: (
            "server/tls/serving-kube-apiserver",
            "server/tls/client-admin",
            "agent/client-kubelet",
        ),
        site.names[1]: ("agent/client-kubelet", "agent/serving-kubelet"),
    }
    return {
        f"{name} {file}": site.ssh(name, f"openssl x509 -noout -serial -in /var/lib/rancher/k3s/{file}.crt")
        for name, wanted in files.items()
        for file in wanted
    }


def test_new_certificates(site: LocalSite) -> None:
    server, agent = site.names[:2]
    before, running = serials(site), started(site)
    kubeconfig = site.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout
    print(up(site, {"token": "second", "certificates": "first"}))
    assert changed(before, serials(site)) == list(before)
    assert changed(running, started(site)) == [server, agent]
    assert ready(site) == [server, agent]
    now = site.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout
    assert now != kubeconfig
    file = site.folder / "kubeconfig"
    file.write_text(now)
    listed = site.run("kubectl", "--kubeconfig", str(file), "get", "nodes", "-o", "json")
    assert len(json.loads(listed.stdout)["items"]) == 2
    unchanged(site)


@pytest.fixture
def rotation() -> dict[str, str]:
    return {"token": "second", "certificates": "first"}


def test_another_host_key(site: LocalSite, rotation: dict[str, str]) -> None:
    """Refused until it lies ready; then the host shows it, nothing restarts, and the setting can go."""
    agent, running = site.names[1], started(site)
    pinned = site.folder / f"hosts/{agent}/ssh_host_ed25519_key.pub"
    old = pinned.read_text()
    site.ssh(agent, f"ssh-keygen -q -t ed25519 -N '' -f {HOST_KEY}.next")
    new = site.ssh(agent, f"cat {HOST_KEY}.next.pub")

    def hosts(**changes: Any) -> list[dict[str, Any]]:
        second = site.host(2, "agent", hostKey=" ".join(new.split()[:2]), **changes)
        second.pop("hostKeyFile")
        return [site.host(1, "server"), second]

    site.ssh(agent, f"mv {HOST_KEY}.next {HOST_KEY}.later")
    site.configure(
        services=[],
        hosts=hosts(previousHostKey=old.strip()),
        cluster={"waitSeconds": 120, "rotation": rotation},
    )
    refused = site.pulumi("up", "--yes", "--skip-preview")
    print(refused.stdout)
    assert refused.returncode != 0
    assert (
        f"error: host {agent}: {HOST_KEY}.next is not the key of hosts[].hostKey: make it there"
        in refused.stdout
    )
    site.ssh(agent, f"mv {HOST_KEY}.later {HOST_KEY}.next")
    print(up(site, rotation, hosts=hosts(previousHostKey=old.strip())))
    known = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", site.address(agent)], capture_output=True, text=True, check=True
    )
    assert new.split()[1] in known.stdout
    pinned.write_text(new)
    assert site.ssh(agent, f"cat {HOST_KEY}.pub; ls {HOST_KEY}.*") == f"{new}{HOST_KEY}.pub\n"
    unchanged(site)
    up(site, rotation, hosts=hosts())
    assert changed(running, started(site)) == []


def test_destroy(site: LocalSite) -> None:
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        assert site.ssh(name, "ls -d /var/lib/edge-inference /var/lib/rancher 2>/dev/null || true") == ""
