"""K3sCluster: servers and agents installed from staged files, by upstream's own install script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_command import local, remote

from components.artifact import Artifact
from components.hardening import hardened, host_values
from components.host import EdgeHost
from components.outputs import known_after
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
class UpgradeArgs:
    """What happens on a node before another version of K3s is started on it.

    A minor version of the kubelet is not upgraded under running pods, says Kubernetes' version skew policy
    (kubernetes.io/releases/version-skew-policy).

    Args:
        drain: the node's pods go to other nodes first, as their disruption budgets allow.
        drain_seconds: how long that may take, in seconds.
        drain_late: when it takes longer: "fail" leaves the node as it was, "continue" goes on.
        snapshots: how many of the datastore from before upgrades each server keeps; 0: none is made.
    """

    drain: bool = True
    drain_seconds: int = 300
    drain_late: str = "fail"
    snapshots: int = 3


@dataclass(frozen=True)
class K3sClusterArgs:
    """The cluster.

    Args:
        nodes: its nodes; one server among them, or an odd number from three.
        address: name or IP address that leads to all servers, such as a load balancer's: agents join by it,
            the kubeconfig has it, the API's certificate names it; None: the first server's.
        datastore: "sqlite" (one server only) or "etcd"; None: sqlite for one server, etcd for several. A
            server that has sqlite's data takes them into etcd, and never goes back.
        max_unavailable: how many agents a later change may restart at once; servers always go one by one.
        disable: packaged components of K3s that are left out.
        cluster_cidr: addresses of pods.
        service_cidr: addresses of services.
        server_flags: further keys of the servers' config.yaml, as K3s documents them.
        flags: further keys of every node's config.yaml.
        profile: "standard", or "hardened" as K3s' CIS hardening guide has it; with the latter, lists of
            arguments in flags are joined with the profile's.
        wait_seconds: how long a node may take to be Ready, in seconds.
        upgrade: what comes before another version of K3s.
        token_rotation: another text makes another token; nodes restart with it one after the other.
        certificate_rotation: another text makes new certificates on each node, one after the other.
    """

    nodes: Sequence[NodeArgs]
    address: pulumi.Input[str] | None = None
    datastore: str | None = None
    max_unavailable: int = 1
    disable: Sequence[str] = ("traefik", "local-storage")
    cluster_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    server_flags: Mapping[str, object] = field(default_factory=dict)
    flags: Mapping[str, object] = field(default_factory=dict)
    profile: str = "standard"
    wait_seconds: int = 300
    upgrade: UpgradeArgs = field(default_factory=UpgradeArgs)
    token_rotation: str = ""
    certificate_rotation: str = ""


class K3sCluster(pulumi.ComponentResource):
    """A cluster whose nodes are Ready.

    Servers are installed and changed one after the other, each Ready before the next. Agents are installed
    all at once when the servers are Ready; later changes reach `max_unavailable` of them at a time. A node
    that does not come back Ready fails, and no further one is touched; with another version of K3s it first
    gets the former one back.

    The first server of the first `up` begins the cluster, which the state remembers; every other one joins
    whichever server answers. With etcd, its node's removal takes a server out of the members before its
    host is cleared.

    Outputs:
        kubeconfig: the admin's kubeconfig with the API's real address (secret).
        token: what nodes join with, kept as a secret in the state; made once, and again by `token_rotation`.
        endpoint: https address of the API: `address`, or the first server's.
        identity: what tells this cluster from another: it stays while servers or `address` change.
        node_names: name of each node.
        server: the first server's install step; what lives in the cluster is `deleted_with` it.
        installed: per node, the step after which it is Ready.
        versions: per node, what the API says: kubelet and container runtime version.

    Raises:
        ValueError: an even number of servers or none, or several with sqlite.
    """

    kubeconfig: pulumi.Output[str]
    token: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    identity: pulumi.Output[str]
    server: remote.Command
    node_names: list[str]
    installed: dict[str, remote.Command]
    versions: dict[str, pulumi.Output[str]]

    def __init__(self, name: str, args: K3sClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("edge:k3s:K3sCluster", name, None, opts)
        # A server that is gone for good leads nobody to the cluster, and is the first to leave it.
        servers = [node for node in args.nodes if node.role == "server"]
        servers.sort(key=lambda node: node.host.target.gone)
        agents = [node for node in args.nodes if node.role != "server"]
        if len(servers) % 2 == 0:
            raise ValueError(f"cluster {name}: {len(servers)} servers found, need an odd number")
        if len(servers) > 1 and args.datastore == "sqlite":
            raise ValueError(f"cluster {name}: {len(servers)} servers found, sqlite is for one: use etcd")
        self._args = args
        self._servers = servers
        self._etcd = len(servers) > 1 or args.datastore == "etcd"
        self._encrypts = self._flags("server").get("secrets-encryption") is True
        self.node_names = [node.host.name for node in args.nodes]
        own = _api(servers[0].node_ip)
        self.endpoint = own if args.address is None else _api(args.address)
        self.token = self._make_token(name)
        self._first = self._remember_first(name, own)
        self.identity = own if len(servers) == 1 else self._first["endpoint"]
        first_start = self._install_servers()
        self.server = first_start[servers[0].host.name]
        self.installed = first_start | self._encrypt(first_start)
        self.kubeconfig = self._read_kubeconfig(servers[0])
        self.installed |= self._install_agents(agents, list(self.installed.values()))
        self.versions = self._label_all(agents)
        self.register_outputs({"kubeconfig": self.kubeconfig, "token": self.token, "endpoint": self.endpoint})

    def _make_token(self, name: str) -> pulumi.Output[str]:
        made = local.Command(
            f"{name}-token",
            create="od -An -N32 -tx1 /dev/urandom | tr -d ' \\n'",
            triggers=[self._args.token_rotation] if self._args.token_rotation else None,
            logging=local.Logging.NONE,
            # Another version of this line must not make another token.
            opts=pulumi.ResourceOptions(
                parent=self, additional_secret_outputs=["stdout", "stderr"], ignore_changes=["create"]
            ),
        )
        return pulumi.Output.secret(made.stdout)

    def _remember_first(self, name: str, endpoint: pulumi.Output[str]) -> pulumi.Output[Any]:
        """Name and API address of the server that begins the cluster, as they were at the first `up`."""
        first = pulumi.Stash(
            f"{name}-first",
            input={"name": self._servers[0].host.name, "endpoint": endpoint},
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["input"]),
        )
        return first.output

    def _config(self, node: NodeArgs, node_ip: str, endpoint: str, address: str | None) -> str:
        config: dict[str, object] = {
            "node-name": node.host.name,
            "node-ip": node_ip,
            "token-file": "/etc/rancher/k3s/token",
        }
        if node.role == "server":
            config |= {
                "write-kubeconfig-mode": "0600",
                "tls-san": [name for name in (node_ip, address) if name],
                "disable": list(self._args.disable),
                "cluster-cidr": self._args.cluster_cidr,
                "service-cidr": self._args.service_cidr,
            }
        else:
            config["server"] = endpoint
        # JSON is YAML, and its keys are sorted: the file differs only when a setting does.
        return json.dumps(config | self._flags(node.role), indent=1, sort_keys=True)

    def _flags(self, role: str) -> dict[str, object]:
        own = {**(self._args.server_flags if role == "server" else {}), **self._args.flags}
        return hardened(own, role) if self._args.profile == "hardened" else own

    def _install_servers(self) -> dict[str, remote.Command]:
        steps: dict[str, remote.Command] = {}
        for node in self._servers:
            before = list(steps.values())[-1:]
            steps[node.host.name] = self._k3s(f"{node.host.name}-k3s", node, before)
        return steps

    def _install_agents(
        self, agents: Sequence[NodeArgs], servers: Sequence[pulumi.Resource]
    ) -> dict[str, remote.Command]:
        """Two steps an agent: the install waits for servers only, later changes for the agents before."""
        rollout: list[remote.Command] = []
        at_once = self._args.max_unavailable
        for node in agents:
            installed = self._k3s(f"{node.host.name}-k3s", node, servers, once=True)
            before = [rollout[-at_once]] if len(rollout) >= at_once else []
            name = f"{node.host.name}-rollout"
            rollout.append(self._k3s(name, node, [installed], before, read_only=True))
        return {node.host.name: step for node, step in zip(agents, rollout, strict=True)}

    def _k3s(
        self,
        name: str,
        node: NodeArgs,
        after: Sequence[pulumi.Resource],
        before: Sequence[remote.Command] = (),
        *,
        once: bool = False,
        read_only: bool = False,
    ) -> remote.Command:
        address: pulumi.Input[str | None] = self._args.address
        config = pulumi.Output.all(node.node_ip, self.endpoint, address).apply(
            lambda known: self._config(node, *known)
        )
        upgrade, wait = self._args.upgrade, self._args.wait_seconds
        values: dict[str, pulumi.Input[str]] = {
            "ROLE": node.role,
            "NODE": node.host.name,
            "BINARY": node.host.path(node.binary),
            "INSTALLER": node.host.path(node.installer),
            "IMAGES": node.host.path(node.images),
            "IMAGES_FILE": node.images.file_name,
            "CONFIG": config,
            "TOKEN": self.token,
            "CDI": "on" if node.gpu else "off",
            # A long chain is waited for, not depended on: the SDK walks all of it for each dependency.
            "WAIT_SECONDS": known_after(str(wait), [step.stdout for step in before]),
            "DRAIN": "on" if upgrade.drain else "off",
            "DRAIN_SECONDS": str(upgrade.drain_seconds),
            "DRAIN_LATE": upgrade.drain_late,
            "SNAPSHOTS": str(upgrade.snapshots),
            **host_values(self._args.profile, node.role),
            "ENCRYPT": "on" if node.role == "server" and self._encrypts else "off",
            "ROTATES": "yes" if node is self._servers[0] else "no",
            "CERTIFICATES": self._args.certificate_rotation,
            **self._entry(node),
        }
        return HostStep(
            name,
            "k3s.sh",
            node.host.target,
            values,
            parent=self,
            depends_on=[*node.after, *after],
            once=once,
            read_only=read_only,
            # An agent's two steps are one to its host: the later one repairs.
            step=f"{node.host.name}-rollout" if once else name,
            opts=pulumi.ResourceOptions(custom_timeouts=_timeouts(upgrade.drain_seconds + 3 * wait)),
        )

    def _entry(self, node: NodeArgs) -> dict[str, pulumi.Input[str]]:
        """How a server without etcd's data comes into the cluster."""
        if node.role != "server" or not self._etcd:
            return {"ETCD": "off"}
        others = [
            other.node_ip for other in self._servers if other is not node and not other.host.target.gone
        ]
        alone = len(self._servers) == 1
        return {
            "ETCD": "on",
            "BEGINS": self._first["name"].apply(
                lambda first: "yes" if alone or first == node.host.name else "no"
            ),
            "JOIN": pulumi.Output.all(*others).apply(
                lambda ips: " ".join(f"https://{ip}:6443" for ip in ips)
            ),
        }

    def _encrypt(self, installed: dict[str, remote.Command]) -> dict[str, remote.Command]:
        """Turns encryption on in a cluster that ran without, once every server knows the key."""
        steps: dict[str, remote.Command] = {}
        for node in self._servers if self._encrypts else ():
            name = node.host.name
            values: dict[str, pulumi.Input[str]] = {
                "NODE": name,
                "TURNS_ON": "no" if steps else "yes",
                "ENCRYPTS": "yes" if node is self._servers[-1] else "no",
                "WAIT_SECONDS": str(self._args.wait_seconds),
                "INSTALLED": installed[name].stdout,
            }
            before = list(steps.values())[-1:] or list(installed.values())
            steps[name] = HostStep(
                f"{name}-secrets",
                "secrets.sh",
                node.host.target,
                values,
                parent=self,
                depends_on=before,
                read_only=True,
            )
        return steps

    def _read_kubeconfig(self, server: NodeArgs) -> pulumi.Output[str]:
        read = HostStep(
            f"{server.host.name}-kubeconfig",
            "kubeconfig.sh",
            server.host.target,
            {"ENDPOINT": self.endpoint, "CERTIFICATES": self._args.certificate_rotation},
            parent=self,
            depends_on=[self.server],
            secret=True,
            read_only=True,
        )
        return pulumi.Output.secret(read.stdout)

    def _label_all(self, agents: Sequence[NodeArgs]) -> dict[str, pulumi.Output[str]]:
        """Labels, once no server restarts any more; removals go backwards: agents, then server by server."""
        ready = [self.installed[node.host.name] for node in self._servers]
        servers: list[remote.Command] = []
        for node in self._servers:
            servers.append(self._label(node, [*ready, *servers[-1:]]))
        labelled = {node.host.name: step for node, step in zip(self._servers, servers, strict=True)}
        for node in agents:
            labelled[node.host.name] = self._label(node, servers)
        return {name: labelled[name].stdout for name in self.node_names}

    def _label(self, node: NodeArgs, after: Sequence[pulumi.Resource]) -> remote.Command:
        installed = self.installed[node.host.name]
        # Where no server is left there is nothing that a node could go from.
        gone = node.host.target.gone and not self._servers[0].host.target.gone
        return HostStep(
            f"{node.host.name}-node",
            "node.sh",
            self._servers[0].host.target,
            {
                "NODE": node.host.name,
                "ROLE": node.role,
                "GONE": "yes" if gone else "no",
                "LABELS": "\n".join(f"{key}={value}" for key, value in sorted(node.labels.items())),
                "TAINTS": "\n".join(f"{key}={value}" for key, value in sorted(node.taints.items())),
                # The version in the cluster is read again when another one is installed.
                "INSTALLED": installed.stdout,
            },
            parent=self,
            depends_on=[installed, *after],
        )


def _timeouts(seconds: int) -> pulumi.CustomTimeouts:
    """For a node's pods to be ready, the drain, the new K3s to come up, and the former one again."""
    minutes = f"{seconds // 60 + 5}m"
    return pulumi.CustomTimeouts(create=minutes, update=minutes, delete="5m")


def _api(address: pulumi.Input[str]) -> pulumi.Output[str]:
    return pulumi.Output.from_input(address).apply(lambda known: f"https://{known}:6443")
