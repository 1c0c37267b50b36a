"""Every stack of the project previews where nothing can be reached."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.integration.local_site import CHECKOUT, LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taking the network away needs root")

TOPOLOGIES = sorted(file.stem for file in (CHECKOUT / "examples/topologies").glob("*.yaml"))
OFFLINE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.mark.parametrize("name", ["local", "dev", "staging", "prod"])
def test_preview_without_network_and_keys(tmp_path: Path, name: str) -> None:
    """It shows what would be made, and says of each missing key that an update needs it: of the hosts' in
    local, of the bundles' in staging and prod."""
    site = LocalSite(tmp_path, "none", "10.218.0")
    site.make_project()
    for file in (CHECKOUT / "stacks").glob("*.y*ml"):
        shutil.copy(file, site.project / "config" / file.name)
    assert site.run("pulumi", "stack", "init", name, "--non-interactive").returncode == 0
    # The other stacks' images are examples in a registry that does not exist: the policies refuse those.
    policies = ["--policy-pack", "policies"] if name == "local" else []
    done = site.run(*OFFLINE, "pulumi", "preview", "--stack", name, "--non-interactive", *policies)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to create" in done.stdout
    missing = done.stdout.count("this preview goes on without it, an update will not")
    assert (missing > 0) == (name != "dev"), done.stdout
    assert not (site.project / ".state").exists()


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_each_topology_previews(tmp_path: Path, name: str) -> None:
    """With the policies, and with nothing to reach."""
    site = LocalSite(tmp_path, "none", "10.218.0")
    site.make_project()
    shutil.copy(CHECKOUT / f"examples/topologies/{name}.yaml", site.project / f"config/Pulumi.{name}.yaml")
    assert site.run("pulumi", "stack", "init", name, "--non-interactive").returncode == 0
    command = ["pulumi", "preview", "--stack", name, "--non-interactive", "--policy-pack", "policies"]
    done = site.run(*OFFLINE, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    hosts = yaml.safe_load((CHECKOUT / f"examples/topologies/{name}.yaml").read_text())["config"]
    for host in hosts["edge-inference:hosts"]:
        assert f"{host['name']}-k3s" in done.stdout


def test_update_without_keys_is_refused(tmp_path: Path) -> None:
    """What a preview lets through, an update does not."""
    site = LocalSite(tmp_path, "none", "10.218.0")
    site.make_project()
    site.configure(services=[])
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode != 0
    assert "edge-inference:hosts[0].hostKeyFile: " in done.stdout
    assert "mend the path or make the file" in done.stdout
