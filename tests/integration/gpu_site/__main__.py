"""A site whose GPUs are made up: the real components, NVIDIA's DaemonSet with another program in its image.

Config: `gpu:hosts`, as in examples/cluster, each with `gpu`; `gpu:privateKeyFile`; `gpu:artifacts`, the
folder that `make setup` fills; `gpu:images`, name to {reference, archive, sha256};
`gpu:replicas`, pods on one GPU.
"""

import json
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

import components as edge
from components.nvidia import NODE_LABEL, TimeSlicing
from components.wasmedge import NODE_LABEL as WASM_LABEL

config = pulumi.Config("gpu")
folder = Path(config.require("artifacts"))
artifacts = json.loads((folder / "manifest.json").read_text())["artifacts"]
images = config.require_object("images")
wanted_hosts = config.require_object("hosts")


def declare(name: str, file: str, sha256: str) -> edge.Artifact:
    """A file that every host gets."""
    return edge.Artifact(name, edge.ArtifactArgs(name, file, sha256))


parts = {
    name: declare(name, str(folder / artifacts[name]["source"]), artifacts[name]["sha256"])
    for name in ("k3s", "k3s-install", "k3s-images", "wasmedge-runtime")
}
archives = {name: declare(name, image["archive"], image["sha256"]) for name, image in images.items()}
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
    for wanted in wanted_hosts
}
edge.prepare("site", {host: [*parts.values(), *archives.values()] for host in hosts.values()})

nodes = []
for wanted in wanted_hosts:
    host = hosts[wanted["name"]]
    install = edge.WasmEdgeInstallArgs(host, parts["wasmedge-runtime"], "0.14.1")
    node = edge.NodeArgs(
        host,
        wanted["role"],
        binary=parts["k3s"],
        installer=parts["k3s-install"],
        images=parts["k3s-images"],
        node_ip=wanted["address"],
        labels={**WASM_LABEL, **(NODE_LABEL if wanted["gpu"] else {})},
        gpu=wanted["gpu"],
        after=[edge.WasmEdgeInstall(f"{host.name}-wasmedge", install)],
    )
    nodes.append(node)
cluster = edge.K3sCluster("cluster", edge.K3sClusterArgs(nodes, disable=["traefik", "metrics-server"]))

cached: list[pulumi.Resource] = [
    edge.ModelImage(
        f"{host.name}-{name}",
        edge.ModelImageArgs(host, name, archives[name], image["reference"], (cluster.installed[host.name],)),
    )
    for host in hosts.values()
    for name, image in images.items()
]
provider = k8s.Provider(
    "cluster", kubeconfig=cluster.kubeconfig, opts=pulumi.ResourceOptions(depends_on=[cluster, *cached])
)
opts = pulumi.ResourceOptions(provider=provider, deleted_with=cluster.server)
edge.WasmEdgeRuntime("wasm", edge.WasmEdgeRuntimeArgs("wasm", "32Mi", "10m"), opts)
replicas = config.require_int("replicas")
sharing = TimeSlicing(replicas) if replicas > 1 else None
edge.NvidiaRuntime(
    "nvidia",
    edge.NvidiaRuntimeArgs(images["plugin"]["reference"], runtime_class=None, sharing=sharing),
    opts,
)
