"""EdgeHost: one machine over SSH, checked before anything is changed on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pulumi
from pulumi_command import local, remote

from components.artifact import Artifact, StagedArtifacts
from components.drift import HostState
from components.outputs import known_after, known_name, value_of
from components.step import HostStep, Target


@dataclass(frozen=True)
class Bastion:
    """An SSH server that passes connections on to the hosts behind it; nothing runs on it.

    Args:
        address: name or IP address of the bastion.
        host_key: its own public key line; another key refuses the connection.
        user: SSH user there.
        port: SSH port there.
        private_key: the key that logs in there; None: the SSH agent's keys are used.
        agent_socket: path of the SSH agent's socket; None: SSH_AUTH_SOCK.
    """

    address: pulumi.Input[str]
    host_key: pulumi.Input[str]
    user: str = "root"
    port: int = 22
    private_key: pulumi.Input[str] | None = None
    agent_socket: str | None = None


@dataclass(frozen=True)
class EdgeHostArgs:
    """How to reach a host and what it must offer.

    Args:
        address: name or IP address the SSH connection goes to.
        host_key: the host's public key line ("ssh-ed25519 AAAA…"); another key refuses the connection.
        role: "server" or "agent"; a server needs port 6443 too.
        etcd: a server keeps etcd's data, and needs ports 2379 and 2380 too.
        user: SSH user, root or one with `sudo -n`.
        port: SSH port.
        private_key: the operator's private key; None: the SSH agent's keys are used.
        agent_socket: path of the SSH agent's socket; None: SSH_AUTH_SOCK.
        proxy: the bastion before the host; None: it is reached directly.
        min_memory_mib: least memory, in MiB.
        min_disk_mib: least free space under /var/lib before the first install, in MiB.
        architecture: "amd64" or "arm64"; a host with another processor is refused. Empty: either.
        k3s_version: of the K3s that the host will get; one that can't follow the installed one is refused.
            Empty: not known, and then refused only when it is installed.
        gone: the host no longer exists; see Target.
        rebuilt: another text says that the host was set up anew; see Target.
        previous_host_key: the host has this key still: first of all `host_key` takes its place there; None:
            it has `host_key`.
    """

    address: pulumi.Input[str]
    host_key: pulumi.Input[str]
    role: str
    user: str = "root"
    port: int = 22
    private_key: pulumi.Input[str] | None = None
    agent_socket: str | None = None
    proxy: Bastion | None = None
    min_memory_mib: int = 900
    min_disk_mib: int = 3000
    architecture: str = ""
    k3s_version: str = ""
    etcd: bool = False
    gone: bool = False
    rebuilt: str = ""
    previous_host_key: str | None = None


class EdgeHost(HostStep):
    """A machine and the checks that it must pass; `prepare` then brings its artifacts.

    The checks read only: root rights, architecture, systemd, commands, kernel features, cgroups, memory,
    disk, clock, ports, another cluster, whether the wanted K3s may follow the installed one. All that is
    wrong with a host is said at once. At deletion, what is left of ours goes: the artifacts, and what a
    failed step began.

    Outputs:
        facts: what the checks found, a JSON object.
    """

    def __init__(self, name: str, args: EdgeHostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        self.name = name
        proxy = None if args.proxy is None else remote.ProxyConnectionArgs(**_login(args.proxy))
        connection = remote.ConnectionArgs(**_login(args), proxy=proxy)
        self.target = Target(name, connection, args.user, args.gone, args.rebuilt)
        self._staged: StagedArtifacts | None = None
        self._artifacts: Collection[Artifact] = ()
        values = {
            "ROLE": args.role,
            "ARCHITECTURE": args.architecture,
            "K3S": args.k3s_version,
            "ETCD": "on" if args.etcd and args.role == "server" else "off",
            "MIN_MEMORY_MIB": str(args.min_memory_mib),
            "MIN_DISK_MIB": str(args.min_disk_mib),
        }
        rotated = [self._rotate(args, str(args.previous_host_key))] if args.previous_host_key else []
        super().__init__(
            f"{name}-preflight", "preflight.sh", self.target, values, depends_on=rotated, opts=opts
        )

    def _rotate(self, args: EdgeHostArgs, previous: str) -> HostStep:
        """Puts the new host key in place, over a connection that the one before is checked by."""
        connection = remote.ConnectionArgs(
            **_login(args) | {"host_key": previous}, proxy=self.target.connection.proxy
        )
        return HostStep(
            f"{self.name}-host-key",
            "host-key.sh",
            replace(self.target, connection=connection),
            {"PREVIOUS": previous, "WANTED": args.host_key},
            read_only=True,
        )

    @property
    def facts(self) -> pulumi.Output[str]:
        return self.stdout

    @property
    def staged(self) -> StagedArtifacts:
        """The step after which the artifacts, and the folder for what is ours, are on the host.

        Raises:
            RuntimeError: `prepare` was not called for the host.
        """
        if self._staged is None:
            raise RuntimeError(f"host {self.name}: call prepare() with all hosts of the site first")
        return self._staged

    def path(self, artifact: Artifact) -> pulumi.Output[str]:
        """Where an artifact lies on the host; a resource that uses the path waits until its sum was compared.

        Raises:
            RuntimeError: `prepare` was not told that the host gets it.
        """
        if artifact not in self._artifacts:
            raise RuntimeError(f"host {self.name}: hand artifact {artifact.args.name} to prepare() first")
        return known_name(artifact.path, self.staged)


def _login(args: EdgeHostArgs | Bastion) -> dict[str, Any]:
    return {
        "host": args.address,
        "port": args.port,
        "user": args.user,
        "host_key": args.host_key,
        "private_key": None if args.private_key is None else pulumi.Output.secret(args.private_key),
        "agent_socket_path": args.agent_socket,
        # Ten seconds a dial and three tries: a host that is off is an error within a minute.
        "per_dial_timeout": 10,
        "dial_error_limit": 3,
    }


def prepare(
    name: str,
    artifacts: Mapping[EdgeHost, Collection[Artifact]],
    checks: Collection[remote.Command | local.Command] = (),
) -> None:
    """Brings artifacts to hosts, the first thing that changes a host, once all hosts passed their checks.

    From then on each refresh looks at the hosts (see HostState), and what steps left there is repaired.

    Args:
        name: of the site, for the resource that stands between all checks and all changes.
        artifacts: all hosts of a site and what each gets; one that fails its checks leaves all as they
            are.
        checks: further checks that must pass first, such as those of GPUs.
    """
    # One resource in between, or each host would depend on every other's checks. It only waits for them: the
    # SDK looks for cycles in all that a dependency depends on, again for each resource that depends on it.
    checked = [*artifacts, *checks]
    names = known_after(sorted(host.name for host in artifacts), [check.stdout for check in checked])
    passed = pulumi.Stash(f"{name}-checked", input=names)
    # Each step of a fleet needs the value; that each depends on the resource would cost every preview.
    repairs = value_of(HostState(f"{name}-hosts", [host.target for host in artifacts]).repairs)
    for host, files in artifacts.items():
        host.target = replace(host.target, repairs=repairs)
        host._artifacts = files
        opts = pulumi.ResourceOptions(parent=host, depends_on=[passed])
        host._staged = StagedArtifacts(f"{host.name}-artifacts", host.target, files, opts)
