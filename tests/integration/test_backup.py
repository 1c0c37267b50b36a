"""A server's disk is lost, and its cluster comes back from a backup that was kept off the node."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.local_site import LocalSite

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo"),
    pytest.mark.slow,
]

KUBECTL = "k3s kubectl --cache-dir /run/kubectl"


@pytest.fixture(scope="module", params=["sqlite", "etcd"])
def kind(request: pytest.FixtureRequest) -> str:
    """The datastore."""
    return str(request.param)


@pytest.fixture(scope="module")
def site(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    """One server with the datastore, a model that it serves, and backups."""
    made = LocalSite(tmp_path_factory.mktemp("bak"), "bak", "10.216.19", count=1)
    try:
        made.create()
        configure(made, kind)
        up(made)
        yield made
    finally:
        made.localhosts("delete")


def configure(site: LocalSite, datastore: str, **server: Any) -> None:
    site.configure(
        hosts=[site.host(1, "server", **server)],
        # The keys of encrypted secrets are in the backup, too.
        cluster={
            "waitSeconds": 180,
            "datastore": datastore,
            "profile": "hardened" if datastore == "sqlite" else "standard",
        },
        backup={"schedule": "*-*-* 02:30:00", "keep": 2},
    )


def up(site: LocalSite) -> str:
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def backup(site: LocalSite, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as the operator does."""
    done = site.run(sys.executable, "-m", "backup", words[0], "--stack", "test", *words[1:])
    print(f"$ python -m backup {' '.join(words)}\n{done.stdout}{done.stderr}[exit code {done.returncode}]")
    return done


def identity(site: LocalSite, kubeconfig: str) -> list[str]:
    """What must be the same cluster's after the restore; an admin's kubeconfig reads it."""
    read = "-o 'jsonpath={.metadata.uid} {.data.count}'"
    asked = [f"get node {site.names[0]} {read}", f"get configmap counter {read}"]
    answers = [
        site.on_host(site.names[0], f"{KUBECTL} --kubeconfig /dev/stdin {ask}", kubeconfig) for ask in asked
    ]
    for answer in answers:
        assert answer.returncode == 0, answer.stderr
    token = site.ssh(site.names[0], "cat /var/lib/rancher/k3s/server/token")
    return [token, *(answer.stdout for answer in answers)]


def serves(site: LocalSite) -> bool:
    """The model's server answers on the host."""
    url = f"http://{site.address(site.names[0])}:8080/v2/health/ready"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def await_serving(site: LocalSite) -> None:
    """The pods that the datastore knows start again on the fresh disk."""
    deadline = time.monotonic() + 300
    while not serves(site):
        assert time.monotonic() < deadline, "no answer in 300 s"
        time.sleep(2)


def test_a_lost_disk(site: LocalSite, kind: str, tmp_path: Path) -> None:
    server, folder = site.names[0], tmp_path / "kept"
    site.ssh(server, f"{KUBECTL} create configmap counter --from-literal=count=41")
    site.ssh(server, f"""{KUBECTL} patch configmap counter -p '{{"data":{{"count":"42"}}}}'""")
    site.ssh(server, f"{KUBECTL} create secret generic word --from-literal=word=sesame")
    kubeconfig = site.ssh(server, "cat /etc/rancher/k3s/k3s.yaml")
    before = identity(site, kubeconfig)
    assert before[-1].endswith(" 42")
    site.ssh(server, "systemctl start edge-inference-backup.service")
    print(
        site.ssh(
            server, "journalctl -o cat -u edge-inference-backup.service; ls -l /var/lib/edge-inference/backup"
        )
    )
    site.ssh(server, f"""{KUBECTL} patch configmap counter -p '{{"data":{{"count":"43"}}}}'""")

    assert backup(site, "pull", "--to", str(folder)).returncode == 0
    newest = sorted(folder.glob("*.tar.gz"))[-1]
    assert newest.name.endswith(f"-{kind}.tar.gz")
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    refused = backup(site, "restore", "--host", server, "--from", str(newest))
    assert refused.returncode == 1, "a restore over a cluster's data"
    assert "K3s has data here" in refused.stderr

    site.localhosts("reset", server)
    assert backup(site, "status").returncode == 1, "the host has no backup any more"
    assert backup(site, "restore", "--host", server, "--from", str(newest)).returncode == 0
    configure(site, kind, rebuilt="after the fire")
    assert "restoring the cluster's data from a backup" in up(site)

    assert identity(site, kubeconfig) == before
    word = f"{KUBECTL} get secret word -o 'jsonpath={{.data.word}}'"
    assert site.ssh(server, word) == "c2VzYW1l"
    await_serving(site)
    assert backup(site, "status").returncode == 0
    again = site.pulumi("up", "--yes", "--skip-preview")
    assert " unchanged" in again.stdout
    assert "updated" not in again.stdout

    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    left = "ls -d /var/lib/edge-inference /etc/systemd/system/edge-inference-backup* 2>/dev/null || true"
    assert site.ssh(server, left) == ""
    assert newest.exists()
