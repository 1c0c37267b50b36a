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


def stage(host: edge.EdgeHost, name: str) -> edge.Artifact:
    """Puts one artifact on the host, verified there."""
    entry = artifacts[name]
    args = edge.ArtifactArgs(host, name, str(folder / entry["source"]), entry["sha256"])
    return edge.Artifact(f"{host.name}-{name}", args)


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
edge.prepare(hosts.values())

nodes = []
for wanted in config.require_object("hosts"):
    host = hosts[wanted["name"]]
    node = edge.NodeArgs(
        host,
        wanted["role"],
        binary=stage(host, "k3s"),
        installer=stage(host, "k3s-install"),
        images=stage(host, "k3s-images"),
        node_ip=wanted["address"],
    )
    nodes.append(node)

cluster = edge.K3sCluster("cluster", edge.K3sClusterArgs(nodes))
pulumi.export("kubeconfig", cluster.kubeconfig)
pulumi.export("nodes", cluster.versions)
