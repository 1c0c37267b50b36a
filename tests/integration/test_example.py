"""examples/cluster as somebody else runs it: the components alone, in a project of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.local_site import CHECKOUT, STACK, LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LocalSite]:
    made = LocalSite(tmp_path, "exa", "10.216.7")
    try:
        made.create()
        yield made
    finally:
        made.localhosts("delete")


def test_cluster_of_two_hosts(site: LocalSite) -> None:
    """Both nodes are Ready with the name service running; the removal leaves nothing."""
    before = {name: site.traces(name) for name in site.names}
    file = site.project / "config" / f"Pulumi.{STACK}.yaml"
    salt = yaml.safe_load(file.read_text())["encryptionsalt"]
    hosts = [
        {
            "name": name,
            "role": role,
            "address": f"{site.subnet}.{number}",
            "hostKeyFile": str(site.folder / f"hosts/{name}/ssh_host_ed25519_key.pub"),
        }
        for name, role, number in zip(site.names, ("server", "agent"), (11, 12), strict=True)
    ]
    config = {
        "edge-inference:hosts": hosts,
        "edge-inference:privateKeyFile": str(site.folder / "hosts/id_ed25519"),
        "edge-inference:artifacts": str(CHECKOUT / ".artifacts"),
    }
    file.write_text(yaml.safe_dump({"encryptionsalt": salt, "config": config}))
    (site.project / "__main__.py").unlink()
    shutil.copy(CHECKOUT / "examples/cluster/__main__.py", site.project)

    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(site.output("nodes")) == set(site.names)
    wait = "wait -n kube-system --for=condition=Available deployment/coredns --timeout=50s"
    assert "condition met" in site.ssh(site.names[0], f"k3s kubectl --cache-dir /run/kubectl {wait}")
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        assert sorted(set(site.traces(name)) ^ set(before[name])) == []
