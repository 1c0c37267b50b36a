"""The settings of a site: `edge-inference:…` in stacks/Pulumi.<stack>.yaml, checked before anything runs.

A stack is one site, or has several (stacks/sites.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import yaml
from pydantic import Field, ValidationError, model_validator

from stacks.gpu import NvidiaSettings
from stacks.model import DNS_LABEL, Architecture, Model
from stacks.service import ServiceSettings
from stacks.ssh import HOST_KEY, LoginSettings, ProxySettings

PROJECT = "edge-inference"
Location: TypeAlias = tuple[str | int, ...]
"""Keys and indices that lead to a setting."""


class SettingsError(Exception):
    """The stack's settings are wrong; the message has one line per problem."""


class HostSettings(LoginSettings):
    """A machine reached over SSH."""

    name: str = Field(pattern=DNS_LABEL, description="Name of the host and of its node.")
    role: Literal["server", "agent"] = Field(
        description="server: runs the control plane, too; 1, 3 or 5 have it."
    )
    node_ip: str | None = Field(
        default=None, description="IP address for other nodes; left out: the address."
    )
    architecture: Architecture | None = Field(
        default=None,
        description="The host's processor, compared with `uname -m`; left out: artifacts.architecture.",
    )
    proxy: ProxySettings | None = Field(
        default=None, description="The bastion through which the host is reached; left out: directly."
    )
    previous_host_key: str | None = Field(
        default=None,
        pattern=HOST_KEY,
        description="The host key that the host shows until `up` puts hostKey in its place, which lies ready "
        "there (docs/rotation.md); leave it out afterwards.",
    )
    labels: dict[str, str] = Field(default={}, description="Further labels of the node.")
    taints: dict[str, str] = Field(default={}, description='Taints of the node, key: "value:Effect".')
    gpu: int = Field(
        default=0,
        ge=0,
        strict=False,  # true and false become 1 and 0
        json_schema_extra={"type": ["boolean", "integer"]},
        description="How many NVIDIA GPUs, with their driver, the host has at least; true is 1. Checked "
        "before anything is changed. No service's gpu.count can be more than the most that a host has.",
    )
    gone: bool = Field(
        default=False,
        description="The host no longer exists: `up` once with this, then `destroy` or remove it; "
        "nothing is run on it, and nothing is left but what was on its disk.",
    )
    rebuilt: str = Field(
        default="",
        description="Another text, such as a date, says that the host was set up anew, for example with a "
        "fresh disk: `up` puts everything on it again.",
    )


class ArtifactSettings(Model):
    """Where the files come from."""

    manifest: str = Field(description="The artifact manifest, a path from the project's folder.")
    public_key: str | None = Field(
        default=None,
        min_length=1,
        description="File with the public key (cosign's) that the manifest must be signed with; its "
        "signature lies beside it as <manifest>.sigstore.json. Left out: not signed, which staging and "
        "prod refuse.",
    )
    architecture: Architecture = Field(
        default="amd64",
        description="The hosts' processors, but for hosts that say else; a manifest for others is refused.",
    )
    manifests: dict[Architecture, str] = Field(
        default={},
        description="Manifests by architecture, {arm64: PATH}, signed like manifest, which is for "
        "architecture where this has none for it: a host gets the files of its own.",
    )

    @property
    def by_architecture(self) -> dict[str, str]:
        """All manifests; one of `manifests` goes before `manifest`, as a site may change the architecture."""
        return {self.architecture: self.manifest} | {str(key): path for key, path in self.manifests.items()}


class MinimumSettings(Model):
    """What a host must offer."""

    memory_mib: int = Field(
        default=900, alias="memoryMiB", ge=0, description="Least memory of a host, in MiB."
    )
    disk_mib: int = Field(
        default=3000, alias="diskMiB", ge=0, description="Least free disk before install, in MiB."
    )


class UpgradeSettings(Model):
    """What happens on a node before another version of K3s (artifact k3s) starts there."""

    drain: bool = Field(
        default=True,
        description="Its pods go to other nodes first; where no other node takes pods they run on.",
    )
    drain_seconds: int = Field(
        default=300, ge=1, le=3600, description="How long the drain may take, in s; see onDrainTimeout."
    )
    on_drain_timeout: Literal["fail", "continue"] = Field(
        default="fail",
        description="fail: the node stays as it was and no further one is touched; "
        "continue: what is left runs on while K3s restarts.",
    )
    snapshots: int = Field(
        default=3,
        ge=0,
        description="Snapshots of the datastore that each server keeps from before upgrades; 0: makes none.",
    )


class RotationSettings(Model):
    """New secrets of the cluster; each is made when its text here changes."""

    token: str = Field(
        default="",
        description="Another text, such as the date, makes another join token; all nodes restart with it, "
        "one after the other. Backups from before need the token from before.",
    )
    certificates: str = Field(
        default="",
        description="Another text, such as the date, makes new certificates and keys on all nodes, one after "
        "the other, and a new kubeconfig.",
    )


class ClusterSettings(Model):
    """K3s."""

    address: str | None = Field(
        default=None,
        min_length=1,
        description="Name or IP address that leads to all servers' port 6443, such as a load balancer's: "
        "agents and the kubeconfig use it; left out: the first server's.",
    )
    datastore: Literal["sqlite", "etcd"] | None = Field(
        default=None,
        description="Left out: sqlite for one server, etcd for several. What was sqlite's goes into etcd.",
    )
    max_unavailable: int = Field(
        default=1, ge=1, description="Agents that a change may restart at once; servers go one by one."
    )
    disable: list[str] = Field(
        default=["traefik", "local-storage"], description="Parts of K3s that are left out."
    )
    cluster_cidr: str = Field(default="10.42.0.0/16", description="Addresses of pods.")
    service_cidr: str = Field(default="10.43.0.0/16", description="Addresses of services.")
    server_flags: dict[str, Any] = Field(
        default={}, description="Further keys of the server's K3s config.yaml."
    )
    flags: dict[str, Any] = Field(default={}, description="Further keys of every node's K3s config.yaml.")
    profile: Literal["standard", "hardened"] = Field(
        default="standard", description="hardened: as K3s' CIS hardening guide has it (docs/hardening.md)."
    )
    wait_seconds: int = Field(
        default=300, ge=10, le=840, description="How long a node may take to be Ready, in s."
    )
    minimums: MinimumSettings = Field(default=MinimumSettings(), description="What a host must offer.")
    upgrade: UpgradeSettings = Field(default=UpgradeSettings(), description="Another version of K3s.")
    rotation: RotationSettings = Field(
        default=RotationSettings(),
        description="New token, new certificates; hosts[].previousHostKey is SSH's.",
    )


class BackupSettings(Model):
    """Backups of the cluster's data, made on each server and pulled by another machine."""

    schedule: str = Field(
        default="daily",
        pattern=r"^[A-Za-z0-9*:,./~ -]+$",
        description="When, as OnCalendar of systemd.time(7) has it: daily, *-*-* 02:30:00.",
    )
    keep: int = Field(default=7, ge=1, description="How many backups stay on each server.")
    max_age_hours: int = Field(
        default=48, ge=1, description="An older newest backup is a fault in `python -m backup`, in hours."
    )


class WasmEdgeSettings(Model):
    """The wasm runtime."""

    version: str = Field(default="0.14.1", description="WasmEdge's version, which the archive must contain.")
    overhead_memory: str = Field(default="96Mi", description="Memory of the shim beside each pod's own.")
    overhead_cpu: str = Field(default="10m", description="CPU of the shim beside each pod's own.")


class AdmissionSettings(Model):
    """The policy pack's rules inside the cluster."""

    enabled: bool = Field(
        default=True, description="Refuse in the cluster what the policy pack refuses, past Pulumi too."
    )
    exempt_namespaces: list[str] = Field(
        default=["kube-node-lease", "kube-public", "kube-system"],
        description="Namespaces in which nothing is checked: those of the cluster's own parts.",
    )


def _or_path(schema: dict[str, Any]) -> None:
    of_list = {key: schema.pop(key) for key in ("type", "items", "minItems")}
    schema["anyOf"] = [of_list, {"type": "string"}]


class Settings(Model):
    """All settings of a site."""

    artifacts: ArtifactSettings = Field(description="Where the files come from.")
    hosts: list[HostSettings] = Field(
        min_length=1,
        description="The site's machines; or the path of a YAML or JSON file with that list, which a stack "
        "with hundreds of them needs (Pulumi hands config to a program in one environment variable).",
        json_schema_extra=_or_path,
    )
    cluster: ClusterSettings = Field(default=ClusterSettings(), description="K3s.")
    backup: BackupSettings | None = Field(
        default=None,
        description="Backups of the cluster's data by schedule; left out: none. {} has all defaults.",
    )
    wasmedge: WasmEdgeSettings = Field(default=WasmEdgeSettings(), description="The wasm runtime.")
    nvidia: NvidiaSettings = Field(default=NvidiaSettings(), description="GPUs.")
    admission: AdmissionSettings = Field(
        default=AdmissionSettings(), description="The policy pack's rules inside the cluster."
    )
    namespace: str = Field(default="inference", pattern=DNS_LABEL, description="Namespace of the services.")
    services: list[ServiceSettings] = Field(default=[], description="The models that are served.")

    @property
    def etcd(self) -> bool:
        """Servers keep the cluster's data in etcd."""
        servers = [host for host in self.hosts if host.role == "server"]
        return len(servers) > 1 or self.cluster.datastore == "etcd"

    def architecture(self, host: HostSettings) -> str:
        """A host's processor."""
        return host.architecture or self.artifacts.architecture

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [host.name for host in self.hosts]
        if len(set(names)) != len(names):
            raise ValueError("hosts: two have the same name: give each its own")
        servers = [host.name for host in self.hosts if host.role == "server"]
        if len(servers) % 2 == 0:
            raise ValueError(
                f"hosts: {len(servers)} with role server found, need 1, 3 or another odd number (etcd works "
                "while more than half of its servers do: one more than odd stands no more losses): "
                "add or remove one"
            )
        if len(servers) > 1 and self.cluster.datastore == "sqlite":
            raise ValueError(f"cluster.datastore: sqlite serves one server, found {len(servers)}: write etcd")
        known = self.artifacts.by_architecture
        for index, host in enumerate(self.hosts):
            if (wanted := self.architecture(host)) not in known:
                raise ValueError(
                    f"hosts[{index}].architecture: {host.name} is {wanted}, found manifests for "
                    f"{', '.join(known)}: add artifacts.manifests: {{{wanted}: PATH}}"
                )
        for key in ("name", "deployment"):
            used = [getattr(service, key) for service in self.services]
            if len(set(used)) != len(used):
                raise ValueError(f"services: two have the same {key}: give each its own")
        if self.nvidia.enabled and not self.nvidia.device_plugin_image:
            raise ValueError("nvidia.devicePluginImage: missing: name the plugin's image by digest")
        if self.nvidia.enabled and "runtimes" in self.cluster.disable:
            raise ValueError(
                "cluster.disable: has runtimes, K3s' RuntimeClasses, and the device plugin needs nvidia: "
                "take it out, or set nvidia.enabled: false"
            )
        offered = self.nvidia.enabled and any(host.gpu for host in self.hosts)
        for index, service in enumerate(self.services):
            if service.gpu and not offered:
                raise ValueError(
                    f"services[{index}].gpu: {service.name} asks for a GPU, found no node that offers one: "
                    "set gpu: true on a host and nvidia.enabled: true, or leave gpu out"
                )
            most = max(host.gpu for host in self.hosts)
            if service.gpu and service.gpu.count > most:
                having = ", ".join(f"{host.name} {host.gpu}" for host in self.hosts if host.gpu)
                raise ValueError(
                    f"services[{index}].gpu.count: {service.name} wants {service.gpu.count} GPUs for each "
                    f"pod, found hosts with {having}: lower it to {most}, or write the number of GPUs that a "
                    "host has into hosts[].gpu"
                )
            by = self.nvidia.sharing.by if self.nvidia.sharing else "exclusive"
            if service.gpu and service.gpu.sharing != by:
                raise ValueError(
                    f"services[{index}].gpu.sharing: {service.name} has {service.gpu.sharing}, the stack's "
                    f"GPUs are {by}: set it to {by}, or change nvidia.sharing"
                )
        return self


def setting_path(location: Location) -> str:
    """A setting as messages name it: `hosts[0].address`; empty for no location."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def parse(values: dict[str, Any], place: Callable[[Location], str] = setting_path) -> Settings:
    """Checks settings given as plain values (the keys without `edge-inference:`), hosts read from their file.

    Args:
        values: the settings.
        place: how a setting is named; a site of several has its settings elsewhere.

    Raises:
        SettingsError: names each wrong setting, what was found and what to do.
    """
    if isinstance(values.get("hosts"), str):
        values = values | {"hosts": read_yaml(values["hosts"], place(("hosts",)))}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = [_line(problem, place(problem["loc"])) for problem in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def read_yaml(path: str, setting: str) -> Any:
    """What is in a YAML or JSON file that a setting names.

    Raises:
        SettingsError: it can't be read, or is not YAML.
    """
    try:
        return yaml.safe_load(read_file(path, setting))
    except yaml.YAMLError as error:
        raise SettingsError(f"{PROJECT}:{setting}: {path} is not YAML: {error}: mend it") from None


def _line(problem: Any, path: str) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{PROJECT}:{path}: {message}" if path else f"{PROJECT}: {message}"
    path = f"{PROJECT}:{path}"
    if problem["type"] == "missing":
        return f"{path}: missing: add it; {_description(problem['loc'])}"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown setting: remove it or mend its spelling"
    found = repr(problem["input"])
    if "PRIVATE KEY" in found:
        found = "something with a private key in it"
    return f"{path}: found {found}: {message}; {_description(problem['loc'])}"


def _description(location: Location) -> str:
    model: Any = Settings
    text = ""
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", {})
        match = next((field for field in fields.values() if field.alias == part), None)
        if match is None:
            return text
        text, annotation = match.description or "", match.annotation
        model = next(
            (arg for arg in getattr(annotation, "__args__", ()) if hasattr(arg, "model_fields")), annotation
        )
    return text


def read_file(path: str, setting: str) -> str:
    """The text of a file that a setting names.

    Raises:
        SettingsError: it can't be read.
    """
    try:
        return Path(path).expanduser().read_text()
    except OSError as error:
        raise SettingsError(
            f"{PROJECT}:{setting}: {path}: {error.strerror}: mend the path or make the file"
        ) from None
