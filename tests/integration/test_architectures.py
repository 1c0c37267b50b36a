"""An amd64 and an arm64 host in one stack, up to their files; there is no arm64 processor here.

What says `uname -m` on the second host is a program put before the real one, and the arm64 files are none
that work: `up` ends there with the first step that opens one. Checks and transfer come before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator

import pytest

from tests.integration.gpu_host import step
from tests.integration.local_site import CHECKOUT, LocalSite
from tests.unit.test_architecture import ARM64, program

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

ARTIFACTS = "/var/lib/edge-inference/artifacts"
SAYS_ARM64 = "printf '#!/bin/sh\\necho aarch64\\n' >/usr/local/bin/uname; chmod 755 /usr/local/bin/uname"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path_factory.mktemp("sb"), "sb", "10.216.31")
    try:
        made.create()
        made.ssh(made.names[1], SAYS_ARM64)
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture(scope="module")
def manifests(site: LocalSite) -> dict[str, str]:
    """Per architecture, its manifest: this project's, and one whose K3s is an arm64 program's first bytes."""
    content = json.loads((CHECKOUT / ".artifacts/manifest.json").read_text())
    for name, entry in content["artifacts"].items():
        entry["source"] = str(CHECKOUT / ".artifacts" / entry["source"])
        if name in ("k3s", "k3s-images", "wasmedge-runtime"):
            file = site.folder / name
            file.write_bytes(program(ARM64) + name.encode())
            entry["source"] = str(file)
            entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    written = site.folder / "arm64.json"
    written.write_text(json.dumps({**content, "architecture": "arm64"}))
    return {"amd64": ".artifacts/manifest.json", "arm64": str(written)}


def configure(site: LocalSite, manifests: dict[str, str], second: str) -> None:
    hosts = [site.host(1, "server"), site.host(2, "agent", architecture=second)]
    artifacts = {"manifest": manifests["amd64"], "manifests": {"arm64": manifests["arm64"]}}
    site.configure(hosts=hosts, artifacts=artifacts)


def up(site: LocalSite) -> str:
    """What an `up` prints, which fails."""
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout, done.stderr)
    assert done.returncode != 0
    return done.stdout


def there(site: LocalSite, name: str) -> dict[str, str]:
    """The sums of the artifacts on a host, by name, as the host has them."""
    lines = site.ssh(name, f"cd {ARTIFACTS} 2>/dev/null && sha256sum * || true").splitlines()
    return {re.sub("@.*", "", file): total for total, file in (line.split() for line in lines)}


def test_a_host_of_another_architecture_than_its_setting(site: LocalSite, manifests: dict[str, str]) -> None:
    configure(site, manifests, "amd64")
    text = up(site)
    host = site.names[1]
    assert (
        f"error: host {host}: architecture aarch64 (arm64) found, the settings say amd64: set "
        f"hosts[].architecture of {host} to arm64, and name a manifest with files for it"
    ) in text
    assert [there(site, name) for name in site.names] == [{}, {}]


def test_each_host_gets_its_own_architectures_files(site: LocalSite, manifests: dict[str, str]) -> None:
    configure(site, manifests, "arm64")
    failed = re.findall(r"^  command:\S+ \((\S+)\):\n +error", up(site), re.M)
    assert failed == [f"{site.names[1]}-wasmedge"]
    found = [there(site, name) for name in site.names]
    for sums, path in zip(found, manifests.values(), strict=True):
        listed = json.loads((CHECKOUT / path).read_text())["artifacts"]
        assert sums == {name: entry["sha256"] for name, entry in listed.items()}
    same = [name for name in found[0] if found[0][name] == found[1][name]]
    assert same == ["digits", "k3s-install"]


def test_a_host_refuses_a_program_for_another_processor(site: LocalSite, manifests: dict[str, str]) -> None:
    """One that it fetches itself is seen by nobody before."""
    host, path = site.names[0], f"{ARTIFACTS}/k3s@x-k3s"
    content = (site.folder / "k3s").read_bytes()
    octal = "".join(f"\\{byte:03o}" for byte in content)
    listed = f"k3s\t{hashlib.sha256(content).hexdigest()}\t{path}\thttps://mirror.example.com/k3s"
    site.ssh(host, f"printf '{octal}' >{path}.part")
    done = step(site, host, "artifacts.sh", FILES=listed)
    print(done.stderr)
    assert done.returncode == 1
    assert (
        f"error: host {host}: artifact k3s refused: it is a program for another processor than this host's, "
        f"x86_64: mend the artifact manifest, or hosts[].architecture of {host}"
    ) in done.stderr
    assert site.ssh(host, f"test -e {path} || echo none") == "none\n"


def test_destroy_leaves_nothing(site: LocalSite) -> None:
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        assert site.ssh(name, "ls /var/lib/edge-inference 2>/dev/null || true") == ""
