"""A K3s cluster from somebody else's project: the components without this project's settings.

Config: `edge-cluster:hosts`, a list of {name, role, address, hostKeyFile}; `edge-cluster:privateKeyFile`;
`edge-cluster:artifacts`, the folder that `make setup` fills.
"""

import json
from pathlib import Path

import pulumi

import components as edge

config = pulumi.Config()
folder = Path(config.require("artifacts"))
artifacts = json.loads((folder / "manifest.json").read_text())["artifacts"]


def declare(name: str) -> edge.Artifact:
    """One artifact of the folder."""
    entry = artifacts[name]
    return edge.Artifact(name, edge.ArtifactArgs(name, str(folder / entry["source"]), entry["sha256"]))


hosts = {
    wanted["name"]: edge.EdgeHost(
        wanted["name"],
        edge.EdgeHostArgs(
            address=wanted["address"],
            role=wanted["role"],
            host_key=Path(wanted["hostKeyFile"]).read_text().strip(),
            private_key=Path(config.require("privateKeyFile")).read_text(),
        ),
    )
    for wanted in config.require_object("hosts")
}
k3s, installer, images = (declare(name) for name in ("k3s", "k3s-install", "k3s-images"))
edge.prepare("site", {host: [k3s, installer, images] for host in hosts.values()})

nodes = []
for wanted in config.require_object("hosts"):
    host = hosts[wanted["name"]]
    node = edge.NodeArgs(
        host,
        wanted["role"],
        binary=k3s,
        installer=installer,
        images=images,
        node_ip=wanted["address"],
    )
    nodes.append(node)

cluster = edge.K3sCluster("cluster", edge.K3sClusterArgs(nodes))
pulumi.export("kubeconfig", cluster.kubeconfig)
pulumi.export("nodes", cluster.versions)
