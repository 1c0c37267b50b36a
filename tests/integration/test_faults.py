"""What goes wrong at a site: a clear message that names host or setting, and a second `up` that repairs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.local_site import CHECKOUT, STACK, LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("faults"), "flt", "10.216.5")
    try:
        made.create()
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture
def bare(site: LocalSite) -> Iterator[dict[str, list[str]]]:
    """A stack without services; what is on the hosts before is on them afterwards, too."""
    site.configure(services=[])
    before = {name: site.traces(name) for name in site.names}
    yield before
    site.configure(services=[])


def refused(site: LocalSite, limit_s: float = 90) -> str:
    """Runs an `up` that must fail, and returns what it printed."""
    start = time.monotonic()
    done = site.pulumi("up", "--yes", "--skip-preview")
    took = time.monotonic() - start
    text = done.stdout + done.stderr
    assert done.returncode != 0, text
    assert "Traceback" not in text
    assert took < limit_s, f"the message came after {took:.0f} s"
    print(text)
    return text


def untouched(site: LocalSite, before: dict[str, list[str]]) -> None:
    for name in site.names:
        assert site.traces(name) == before[name]


def hosts(site: LocalSite) -> list[dict[str, object]]:
    """The stack's hosts as its settings have them."""
    file = site.project / "config" / f"Pulumi.{STACK}.yaml"
    found: list[dict[str, object]] = yaml.safe_load(file.read_text())["config"]["edge-inference:hosts"]
    return found


def manifest(site: LocalSite, **artifacts: dict[str, str]) -> str:
    """Writes a manifest that differs from the checkout's in some artifacts; returns its path."""
    content = json.loads((CHECKOUT / ".artifacts/manifest.json").read_text())
    for entry in content["artifacts"].values():
        entry["source"] = str(CHECKOUT / ".artifacts" / entry["source"])
    for name, changes in artifacts.items():
        content["artifacts"][name.replace("_", "-")] |= changes
    file = site.folder / "manifest.json"
    file.write_text(json.dumps(content))
    return str(file)


def test_missing_and_unknown_settings(site: LocalSite, bare: dict[str, list[str]]) -> None:
    site.configure(services=[], artifacts={}, wasmedge={"verison": "0.14.1"})
    text = refused(site, limit_s=20)
    assert "edge-inference:artifacts.manifest: missing: add it" in text
    assert "edge-inference:wasmedge.verison: unknown setting: remove it or mend its spelling" in text
    untouched(site, bare)


def test_wrong_ssh_key(site: LocalSite, bare: dict[str, list[str]]) -> None:
    key = site.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    wanted = hosts(site)
    wanted[1]["privateKeyFile"] = str(key)
    site.configure(services=[], hosts=wanted)
    text = refused(site)
    assert f"{site.names[1]}-preflight" in text
    assert f"{site.subnet}.12:22" in text
    assert "unable to authenticate" in text
    untouched(site, bare)


def test_wrong_host_key(site: LocalSite, bare: dict[str, list[str]]) -> None:
    wanted = hosts(site)
    wanted[1]["hostKeyFile"] = wanted[0]["hostKeyFile"]
    site.configure(services=[], hosts=wanted)
    text = refused(site)
    assert f"{site.names[1]}-preflight" in text
    assert f"{site.subnet}.12:22" in text
    assert "host key mismatch" in text
    untouched(site, bare)


def test_too_little_memory_and_disk(site: LocalSite, bare: dict[str, list[str]]) -> None:
    site.configure(services=[], cluster={"minimums": {"memoryMiB": 99_000_000, "diskMiB": 88_000_000}})
    text = refused(site)
    assert f"error: host {site.names[0]}: " in text
    assert "MiB memory found, need 99000000: add memory or lower cluster.minimums.memoryMiB" in text
    assert "need 88000000: free some or lower cluster.minimums.diskMiB" in text
    assert "2 problem(s) above; nothing was changed on the host" in text
    untouched(site, bare)


@pytest.mark.parametrize("how", ["off", "silent"])
def test_host_that_is_off(site: LocalSite, bare: dict[str, list[str]], how: str) -> None:
    """Its power is off, so that it refuses; or its cable is out, so that nothing ever comes back."""
    cable = ["ip", "-n", f"lh.{site.prefix}.{site.names[1]}", "link", "set", "eth0"]
    if how == "off":
        site.localhosts("stop", site.names[1])
    else:
        subprocess.run([*cable, "down"], check=True)
    try:
        text = refused(site)
    finally:
        if how == "off":
            site.localhosts("start", site.names[1])
        else:
            subprocess.run([*cable, "up"], check=True)
    assert f"{site.names[1]}-preflight" in text
    assert f"{site.subnet}.12:22" in text
    untouched(site, bare)


def test_artifact_that_is_damaged_here(site: LocalSite, bare: dict[str, list[str]]) -> None:
    """Refused before any host is spoken to."""
    damaged = site.folder / "k3s-install.sh"
    damaged.write_bytes((CHECKOUT / ".artifacts/k3s-install.sh").read_bytes() + b"\n")
    site.configure(services=[], artifacts={"manifest": manifest(site, k3s_install={"source": str(damaged)})})
    text = refused(site, limit_s=20)
    assert "artifact k3s-install" in text
    assert "wanted" in text
    assert "build or fetch it again" in text
    untouched(site, bare)


@pytest.fixture(scope="module")
def mirror(site: LocalSite) -> Iterator[Path]:
    """A folder that the hosts see by https as a mirror; they trust its certificate."""
    folder = site.folder / "mirror"
    folder.mkdir()
    address = f"{site.subnet}.1"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mirror"]
    made += ["-addext", f"subjectAltName=IP:{address}", "-keyout", "mirror.key", "-out", "mirror.crt"]
    subprocess.run(made, cwd=site.folder, check=True, capture_output=True)
    certificate = (site.folder / "mirror.crt").read_text()
    for name in site.names:
        trusted = "/usr/local/share/ca-certificates/mirror.crt"
        site.ssh(name, f"printf %s '{certificate}' >{trusted} && update-ca-certificates")
    serve = (
        "import http.server, ssl\n"
        "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
        "context.load_cert_chain('../mirror.crt', '../mirror.key')\n"
        "handler = http.server.SimpleHTTPRequestHandler\n"
        f"server = http.server.ThreadingHTTPServer(({address!r}, 8443), handler)\n"
        "server.socket = context.wrap_socket(server.socket, server_side=True)\n"
        "server.serve_forever()\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", serve], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield folder
    server.kill()
    server.wait()


def test_artifact_that_is_damaged_on_its_way(site: LocalSite, mirror: Path) -> None:
    """Refused on the host, nothing of it is kept, and the mended file is taken by the next `up`."""
    url = f"https://{site.subnet}.1:8443/k3s-install.sh"
    site.configure(services=[], artifacts={"manifest": manifest(site, k3s_install={"source": url})})
    whole = (CHECKOUT / ".artifacts/k3s-install.sh").read_bytes()
    (mirror / "k3s-install.sh").write_bytes(b"#!/bin/sh\necho bad\n")
    text = refused(site)
    assert f"error: host {site.names[0]}: artifact k3s-install refused: sha256 found" in text
    for name in site.names:
        assert "k3s-install" not in site.ssh(name, "find /var/lib/edge-inference/artifacts")
        assert site.ssh(name, "ls /usr/local/bin").split() == []
    (mirror / "k3s-install.sh").write_bytes(whole)


def test_plug_pulled_during_the_install_then_up_repairs(site: LocalSite, mirror: Path) -> None:
    """The agent dies while K3s starts on it: the `up` ends with its name, the next one makes it whole."""
    agent = site.names[1]
    first = subprocess.Popen(
        ["pulumi", "up", "--yes", "--skip-preview", "--stack", STACK, "--non-interactive"],
        cwd=site.project,
        env=site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    start = time.monotonic()
    while not site.ssh(agent, "ls /etc/systemd/system/k3s-agent.service 2>/dev/null || true"):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.2)
    pulled = time.monotonic()
    print(f"plug pulled {pulled - start:.1f} s after the start")
    site.localhosts("stop", agent)
    text, _ = first.communicate(timeout=500)
    print(text)
    print(f"`up` ended {time.monotonic() - pulled:.0f} s after the plug was pulled")
    assert first.returncode != 0
    assert agent in text
    site.localhosts("start", agent)

    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    versions = site.output("nodes")
    assert set(versions) == set(site.names)
    ready = site.ssh(site.names[0], "k3s kubectl --cache-dir /run/kubectl get nodes --no-headers")
    assert [line.split()[1] for line in sorted(ready.splitlines())] == ["Ready", "Ready"]


def test_server_switched_off_and_on_is_the_same_cluster(site: LocalSite, mirror: Path) -> None:
    """An `up` while the server is off says so and loses nothing; after its return nothing is to do."""
    server = site.names[0]
    site.localhosts("stop", server)
    try:
        site.configure(services=[], artifacts={"manifest": manifest(site)}, namespace="other")
        text = refused(site, limit_s=150)
        assert f"{site.subnet}.11" in text
    finally:
        site.localhosts("start", server)
    site.configure(services=[], artifacts={"manifest": manifest(site)})
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    again = site.pulumi("up", "--yes", "--skip-preview")
    assert "unchanged" in again.stdout
    assert " updated" not in again.stdout


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("v1.29.4+k3s1", "K3s does not go back to an older version"),
        ("v1.32.0+k3s1", "a server goes up one minor version at a time: name a v1.31 first"),
    ],
)
def test_k3s_that_cannot_follow_is_refused_by_all_hosts(
    site: LocalSite, mirror: Path, version: str, says: str
) -> None:
    """By what the manifest says of it, before anything is brought to a host; test_upgrade.py has more."""
    look = "ls -l --full-time /var/lib/edge-inference/artifacts; systemctl show -P MainPID k3s k3s-agent"
    before = {name: site.ssh(name, look) for name in site.names}
    site.configure(services=[], artifacts={"manifest": manifest(site, k3s={"version": version})})
    text = refused(site)
    assert says in text
    found = f"K3s v1.30.0+k3s1 found, artifact k3s is {version}"
    if version < "v1.30":
        assert {name for name in site.names if f"error: host {name}: {found}" in text} == set(site.names)
    else:
        assert f"error: host {site.names[0]}: {found}" in text
    assert {name: site.ssh(name, look) for name in site.names} == before


def test_destroy_after_all_that(site: LocalSite, mirror: Path) -> None:
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        left = site.ssh(
            name, "ls -d /var/lib/edge-inference /var/lib/rancher /opt/wasmedge 2>/dev/null || true"
        )
        assert left == ""
    shutil.rmtree(mirror)
