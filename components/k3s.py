"""K3sCluster: servers and agents installed from staged files, by upstream's own install script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
from pulumi_command import local, remote

from components.artifact import Artifact
from components.host import EdgeHost
from components.step import HostStep


@dataclass(frozen=True)
class NodeArgs:
    """One node.

    Args:
        host: the machine.
        role: "server" or "agent".
        binary: the k3s executable.
        installer: upstream's install.sh.
        images: archive of K3s's own images.
        node_ip: the address other nodes reach it at.
        labels: node labels; a changed one restarts nothing.
        taints: node taints, key → "value:Effect"; a changed one restarts nothing.
        gpu: containerd gives devices to pods by their CDI names; another value restarts K3s here alone.
        after: what must be on the host before K3s starts, for example a containerd shim.
    """

    host: EdgeHost
    role: str
    binary: Artifact
    installer: Artifact
    images: Artifact
    node_ip: pulumi.Input[str]
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False
    after: Sequence[pulumi.Resource] = ()


@dataclass(frozen=True)
class K3sClusterArgs:
    """The cluster.

    Args:
        nodes: its nodes, exactly one server among them.
        disable: packaged components of K3s that are left out.
        cluster_cidr: addresses of pods.
        service_cidr: addresses of services.
        server_flags: further keys of the servers' config.yaml, as K3s documents them.
        flags: further keys of every node's config.yaml.
        wait_seconds: how long a node may take to be Ready, in seconds.
    """

    nodes: Sequence[NodeArgs]
    disable: Sequence[str] = ("traefik", "local-storage")
    cluster_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    server_flags: Mapping[str, object] = field(default_factory=dict)
    flags: Mapping[str, object] = field(default_factory=dict)
    wait_seconds: int = 300


class K3sCluster(pulumi.ComponentResource):
    """A cluster whose nodes are Ready.

    Outputs:
        kubeconfig: the admin's kubeconfig with the server's real address (secret).
        token: what nodes join with, made once and kept as a secret in the state.
        endpoint: https address of the API.
        node_names: name of each node.
        server: the server's install step; what lives in the cluster is `deleted_with` it.
        installed: per node, the step after which it is Ready.
        versions: per node, what the API says: kubelet and container runtime version.

    Raises:
        ValueError: not exactly one server among the nodes.
    """

    kubeconfig: pulumi.Output[str]
    token: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    server: remote.Command
    node_names: list[str]
    installed: dict[str, remote.Command]
    versions: dict[str, pulumi.Output[str]]

    def __init__(self, name: str, args: K3sClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("edge:k3s:K3sCluster", name, None, opts)
        servers = [node for node in args.nodes if node.role == "server"]
        if len(servers) != 1:
            raise ValueError(f"cluster {name}: {len(servers)} servers found, need exactly one")
        server = servers[0]
        self._args = args
        self.node_names = [node.host.name for node in args.nodes]
        self.endpoint = pulumi.Output.from_input(server.node_ip).apply(lambda ip: f"https://{ip}:6443")
        self.token = self._make_token(name)
        first = self._install(server, [])
        self.server = first
        self.kubeconfig = self._read_kubeconfig(server, first)
        self.versions, self.installed = {}, {}
        for node in args.nodes:
            installed = first if node is server else self._install(node, [first])
            self.installed[node.host.name] = installed
            self.versions[node.host.name] = self._label(server, node, installed)
        self.register_outputs({"kubeconfig": self.kubeconfig, "token": self.token, "endpoint": self.endpoint})

    def _make_token(self, name: str) -> pulumi.Output[str]:
        made = local.Command(
            f"{name}-token",
            create="od -An -N32 -tx1 /dev/urandom | tr -d ' \\n'",
            logging=local.Logging.NONE,
            # Another version of this line must not make another token.
            opts=pulumi.ResourceOptions(
                parent=self, additional_secret_outputs=["stdout", "stderr"], ignore_changes=["create"]
            ),
        )
        return pulumi.Output.secret(made.stdout)

    def _config(self, node: NodeArgs, node_ip: str, endpoint: str) -> str:
        config: dict[str, object] = {
            "node-name": node.host.name,
            "node-ip": node_ip,
            "token-file": "/etc/rancher/k3s/token",
        }
        if node.role == "server":
            config |= {
                "write-kubeconfig-mode": "0600",
                "tls-san": [node_ip],
                "disable": list(self._args.disable),
                "cluster-cidr": self._args.cluster_cidr,
                "service-cidr": self._args.service_cidr,
                **self._args.server_flags,
            }
        else:
            config["server"] = endpoint
        # JSON is YAML, and its keys are sorted: the file differs only when a setting does.
        return json.dumps(config | dict(self._args.flags), indent=1, sort_keys=True)

    def _install(self, node: NodeArgs, after: Sequence[pulumi.Resource]) -> remote.Command:
        config = pulumi.Output.all(node.node_ip, self.endpoint).apply(
            lambda known: self._config(node, known[0], known[1])
        )
        return HostStep(
            f"{node.host.name}-k3s",
            "k3s.sh",
            node.host.target,
            {
                "ROLE": node.role,
                "NODE": node.host.name,
                "BINARY": node.host.path(node.binary),
                "INSTALLER": node.host.path(node.installer),
                "IMAGES": node.host.path(node.images),
                "IMAGES_FILE": node.images.file_name,
                "CONFIG": config,
                "TOKEN": self.token,
                "CDI": "on" if node.gpu else "off",
                "WAIT_SECONDS": str(self._args.wait_seconds),
            },
            parent=self,
            depends_on=[*node.after, *after],
        )

    def _read_kubeconfig(self, server: NodeArgs, installed: remote.Command) -> pulumi.Output[str]:
        read = HostStep(
            f"{server.host.name}-kubeconfig",
            "kubeconfig.sh",
            server.host.target,
            {"ENDPOINT": self.endpoint},
            parent=self,
            depends_on=[installed],
            secret=True,
            read_only=True,
        )
        return pulumi.Output.secret(read.stdout)

    def _label(self, server: NodeArgs, node: NodeArgs, installed: remote.Command) -> pulumi.Output[str]:
        labelled = HostStep(
            f"{node.host.name}-node",
            "node.sh",
            server.host.target,
            {
                "NODE": node.host.name,
                "ROLE": node.role,
                "LABELS": "\n".join(f"{key}={value}" for key, value in sorted(node.labels.items())),
                "TAINTS": "\n".join(f"{key}={value}" for key, value in sorted(node.taints.items())),
                # The version in the cluster is read again when another one is installed.
                "INSTALLED": installed.stdout,
            },
            parent=self,
            depends_on=[installed],
        )
        return labelled.stdout
