"""A running cluster of three servers and an agent becomes hardened, and standard again, before kube-bench."""

from __future__ import annotations

import base64
import itertools
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.integration.cis import KUBECTL, failures, own_sysctls
from tests.integration.local_site import LocalSite
from toolchain.manifest import load

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo"),
    pytest.mark.slow,
]

AGENT = 3
ENCRYPTED = b"k8s:enc:aescbc:v1:aescbckey"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("cis"), "cis", "10.216.21", count=4)
    try:
        made.create()
        for name in made.names:
            own_sysctls(made, name)
            # kube-bench reads the journal on disk.
            made.ssh(name, "mkdir -p /var/log/journal; systemctl restart systemd-journald")
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture(scope="module")
def before(site: LocalSite) -> dict[str, list[str]]:
    """What is on the hosts before the first `up`."""
    return {name: site.traces(name) for name in site.names}


@pytest.fixture(scope="module")
def standard(site: LocalSite, before: dict[str, list[str]]) -> str:
    """The cluster as it is without a profile, with a secret in it."""
    printed = up(site)
    site.ssh(site.names[0], f"{KUBECTL} create secret generic early --from-literal=word=early")
    return printed


@pytest.fixture(scope="module")
def hardened(site: LocalSite, standard: str) -> list[str]:
    """The same cluster, hardened; returns what reading a secret through each server said meanwhile."""
    watch = Watch(site)
    up(site, profile="hardened")
    return watch.end()


def up(site: LocalSite, **cluster: Any) -> str:
    hosts = [site.host(number, "server") for number in (1, 2, 3)] + [site.host(4, "agent")]
    site.configure(hosts=hosts, cluster=cluster)
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Watch:
    """Reads and writes a secret through each server's API server, one after the other, until `end`."""

    def __init__(self, site: LocalSite) -> None:
        self._site = site
        self._over = threading.Event()
        self._said: list[str] = []
        self.read = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for server in itertools.cycle(self._site.names[:AGENT]):
            if self._over.wait(0.2):
                return
            read = f"{KUBECTL} --request-timeout=5s get secret early -o jsonpath='{{.data.word}}'"
            write = f"{KUBECTL} --request-timeout=5s annotate --overwrite secret early by={server}"
            asked = self._site.on_host(server, f"timeout 20 sh -c {shlex.quote(f'{read} && {write}')}")
            self.read += asked.returncode == 0
            self._said.append(asked.stderr)

    def end(self) -> list[str]:
        """What was said by servers that could not read it."""
        self._over.set()
        self._thread.join()
        assert self.read > 10
        return self._said


def stored(site: LocalSite, server: str, secret: str) -> bytes:
    """A secret as etcd has it, asked as the API server does: etcd's answer, in which its bytes stand."""
    files = [
        site.ssh(server, f"cat /var/lib/rancher/k3s/server/tls/etcd/{name}").encode()
        for name in ("server-ca.crt", "client.key", "client.crt")
    ]
    key = f"/registry/secrets/default/{secret}".encode()
    with grpc.secure_channel(f"{site.address(server)}:2379", grpc.ssl_channel_credentials(*files)) as channel:
        # A RangeRequest's first field, its key.
        asked = channel.unary_unary("/etcdserverpb.KV/Range")(b"\n" + bytes([len(key)]) + key, timeout=20)
    assert key in asked
    return bytes(asked)


def kube_bench(site: LocalSite, name: str, *targets: str) -> dict[str, set[str]]:
    """Numbers of checks by kube-bench's verdict."""
    part = next(part.output for part in load()[1] if part.name == "kube-bench")
    files = subprocess.run(
        ["tar", "-C", part, "-czf", "-", "bin", "cfg/config.yaml", "cfg/k3s-cis-1.7"],
        capture_output=True,
        check=True,
    ).stdout
    unpack = "mkdir -p /run/kube-bench && base64 -d | tar -C /run/kube-bench -xzf -"
    site.on_host(name, unpack, base64.b64encode(files).decode()).check_returncode()
    run = "cd /run/kube-bench && bin/kube-bench run --config-dir cfg --benchmark k3s-cis-1.7 --noremediations"
    said = site.ssh(name, f"{run} --targets {','.join(targets)} 2>/dev/null")
    print(said)
    verdicts: dict[str, set[str]] = {}
    for verdict, number in re.findall(r"^\[(PASS|FAIL|WARN)\] (\d+\.\d+\.?\d*) ", said, re.MULTILINE):
        verdicts.setdefault(verdict, set()).add(number)
    return verdicts


def test_the_checks_find_what_the_standard_profile_lacks(site: LocalSite, standard: str) -> None:
    server, agent = site.names[0], site.names[AGENT]
    found = failures(site, server, server)
    print("\n".join(found))
    numbers = {line.split(" ", 1)[0] for line in found}
    assert numbers >= {
        "1.1.20",
        "1.2.9",
        "1.2.16",
        "1.2.27",
        "1.3.1",
        "3.2.1",
        "4.2.6",
        "4.2.13",
        "5.2.2",
        "5.3.2",
    }
    numbers = {line.split(" ", 1)[0] for line in failures(site, server, agent)}
    assert numbers >= {"4.2.5", "4.2.6", "4.2.12", "4.2.13"}
    assert ENCRYPTED not in stored(site, server, "early")
    assert {"1.2.9", "1.3.1", "3.2.1"} <= kube_bench(site, server, "master", "controlplane")["WARN"]


def test_a_running_cluster_becomes_hardened_and_secrets_can_be_read_all_the_time(
    site: LocalSite, hardened: list[str]
) -> None:
    for name in site.names:
        assert failures(site, site.names[0], name) == []
    print("said meanwhile:", sorted({text.strip() for text in hardened}))
    # What Kubernetes says of a secret whose key it lacks (apiserver: storage/value, storage/etcd3).
    strange = [
        text for text in hardened if "Internal error" in text or "transform" in text or "matching" in text
    ]
    assert strange == []


def test_what_was_there_is_encrypted_and_all_servers_have_one_key(
    site: LocalSite, hardened: list[str]
) -> None:
    for server in site.names[:AGENT]:
        assert ENCRYPTED + b":" in stored(site, server, "early")
        status = site.ssh(server, "k3s secrets-encrypt status 2>/dev/null")
        assert "Encryption Status: Enabled" in status
        assert "Current Rotation Stage: start" in status
        assert "All hashes match" in status
    word = f"{KUBECTL} get secret early -o jsonpath='{{.data.word}}'"
    assert {site.ssh(server, word) for server in site.names[:AGENT]} == {"ZWFybHk="}


def test_kube_bench_finds_nothing_to_fail(site: LocalSite, hardened: list[str]) -> None:
    """What it warns of is for people to judge, or can't be told by its version (docs/hardening.md)."""
    verdicts = kube_bench(site, site.names[0], "master", "etcd", "controlplane", "node")
    assert verdicts.get("FAIL") is None
    assert {"1.2.9", "1.2.32", "1.3.1", "2.2", "2.5", "3.2.1"} <= verdicts["PASS"]


def test_the_model_answers(site: LocalSite, hardened: list[str]) -> None:
    asked = site.run("python", "-m", "workloads", "query", site.output("endpoints")["ai-inference"])
    assert asked.returncode == 0, asked.stdout + asked.stderr


def test_k3s_rotates_the_key_by_its_own_command(site: LocalSite, hardened: list[str]) -> None:
    server = site.names[0]
    site.ssh(server, "k3s secrets-encrypt rotate-keys >/run/rotated 2>&1 </dev/null &")
    await_status(site, server, "reencrypt_finished")
    for name in site.names[:AGENT]:
        site.ssh(name, "systemctl restart --no-block k3s")
        time.sleep(5)
        await_status(site, name, "AES-CBC   aescbckey-")
    assert ENCRYPTED + b"-20" in stored(site, server, "early")


def await_status(site: LocalSite, server: str, word: str) -> None:
    """Waits until K3s says so of its encryption."""
    deadline = time.monotonic() + 240
    while word not in (said := site.on_host(server, "k3s secrets-encrypt status 2>&1").stdout):
        assert time.monotonic() < deadline, said
        time.sleep(2)


def test_back_to_standard_and_gone(
    site: LocalSite, hardened: list[str], before: dict[str, list[str]]
) -> None:
    up(site, serverFlags={"secrets-encryption": True})
    for name in site.names:
        assert failures(site, site.names[0], name) != []
        assert site.ssh(name, "ls /etc/sysctl.d | grep edge || true") == ""
    word = f"{KUBECTL} get secret early -o jsonpath='{{.data.word}}'"
    assert {site.ssh(server, word) for server in site.names[:AGENT]} == {"ZWFybHk="}
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        assert sorted(set(site.traces(name)) ^ set(before[name])) == []
