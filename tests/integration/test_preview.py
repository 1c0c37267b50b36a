"""Every stack of the project previews where nothing can be reached."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

from stacks.sites import parse_sites
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
    config = yaml.safe_load((CHECKOUT / f"examples/topologies/{name}.yaml").read_text())["config"]
    sites = parse_sites({key.removeprefix("edge-inference:"): value for key, value in config.items()})
    for host in (host for site in sites for host in site.settings.hosts):
        assert f"{host.name}-k3s" in done.stdout


def test_sites_may_have_all_there_is(tmp_path: Path) -> None:
    """No resource of one site has the name of another's, and a third site takes none of their names."""
    site = LocalSite(tmp_path, "none", "10.218.0")
    site.make_project()
    file = site.project / "config/Pulumi.test.yaml"
    config = yaml.safe_load((CHECKOUT / "examples/topologies/several-sites.yaml").read_text())["config"]
    image = f"edge.local/x@sha256:{'0' * 64}"
    exporter = {"enabled": True, "image": image}
    config |= {
        "edge-inference:cluster": {"profile": "hardened", "datastore": "etcd"},
        "edge-inference:backup": {},
        "edge-inference:nvidia": {"enabled": True, "devicePluginImage": image, "dcgmExporter": exporter},
    }
    config["edge-inference:services"][0] |= {"autoscaling": {"minReplicas": 2, "maxReplicas": 3}}
    for stated in config["edge-inference:sites"].values():
        stated["hosts"][0]["gpu"] = True
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"config": config}))
    done = site.run(*OFFLINE, "pulumi", "preview", "--stack", "test", "--non-interactive")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("cluster", "nvidia", "dcgm-exporter", "isolation", "admission", "ai-inference"):
        for each in ("north", "south"):
            assert f"{each}.{name} create" in done.stdout


def test_update_without_keys_is_refused(tmp_path: Path) -> None:
    """What a preview lets through, an update does not."""
    site = LocalSite(tmp_path, "none", "10.218.0")
    site.make_project()
    site.configure(services=[])
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode != 0
    assert "edge-inference:hosts[0].hostKeyFile: " in done.stdout
    assert "mend the path or make the file" in done.stdout
