"""From a stack's config to what components take: reads the files that settings name, and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env

from components import (
    Bastion,
    DcgmExporterArgs,
    EdgeHost,
    EdgeHostArgs,
    GpuHostArgs,
    K3sClusterArgs,
    NodeArgs,
    NvidiaRuntimeArgs,
    UpgradeArgs,
)
from components.hardening import contradictions
from components.inference import Autoscaling
from components.nvidia import NODE_LABEL as GPU_LABEL
from components.nvidia import Mps, TimeSlicing
from components.wasmedge import NODE_LABEL as WASM_LABEL
from policies.admission import manifests
from policies.config import ConfigError
from stacks.files import Files, FilesReader
from stacks.manifest import host_artifacts
from stacks.service import ServiceSettings
from stacks.settings import (
    PROJECT,
    HostSettings,
    Settings,
    SettingsError,
    read_file,
)
from stacks.sites import SiteSettings, parse_sites
from stacks.ssh import LoginSettings


@dataclass(frozen=True)
class Site:
    """A site's settings with the files they name read; its name is empty where the stack has no `sites`."""

    settings: Settings
    artifacts: Files
    hosts: dict[str, EdgeHostArgs]
    images: dict[str, str]
    memory: dict[str, str]
    admission: list[dict[str, Any]]
    name: str = ""

    def unique(self, name: str) -> str:
        """Name of a resource that each site has; no name in it has a dot."""
        return f"{self.name}.{name}" if self.name else name

    def unique_artifact(self, name: str, architecture: str) -> str:
        """Name of an artifact's resource: the same wherever the same file is wanted."""
        entry = self.artifacts[architecture][name]
        if self.name:
            stated = f"{entry.version} {entry.source} {entry.sha256}"
            return f"{name}@{hashlib.sha256(stated.encode()).hexdigest()[:12]}"
        first = self.settings.artifacts.architecture
        same = architecture == first or self.artifacts.get(first, {}).get(name) == entry
        return name if same else f"{name}@{architecture}"

    def versions(self) -> dict[str, str]:
        """Per artifact, its version."""
        return {name: entry.version for files in self.artifacts.values() for name, entry in files.items()}

    def files(self, host: HostSettings) -> list[str]:
        """Names of the artifacts that the host gets."""
        return host_artifacts(self.settings, host)

    def labels(self, host: HostSettings) -> dict[str, str]:
        """Labels of the host's node: its own, the runtime's, the GPU's."""
        return {**WASM_LABEL, **(GPU_LABEL if host.gpu else {}), **host.labels}

    def nvidia_args(self) -> NvidiaRuntimeArgs:
        """The settings of the device plugin in the component's form."""
        nvidia = self.settings.nvidia
        sharing: TimeSlicing | Mps | None = None
        if nvidia.sharing and nvidia.sharing.by == "mps":
            sharing = Mps(nvidia.sharing.replicas)
        elif nvidia.sharing:
            sharing = TimeSlicing(nvidia.sharing.replicas, refuse_several=True)
        return NvidiaRuntimeArgs(str(nvidia.device_plugin_image), sharing=sharing)

    def dcgm_args(self) -> DcgmExporterArgs | None:
        """The settings of the GPUs' metrics in the component's form; None: there are none."""
        wanted = self.settings.nvidia.dcgm_exporter
        if not wanted.enabled:
            return None
        return DcgmExporterArgs(str(wanted.image), profiling=wanted.profiling, per_pod=wanted.per_pod)

    def gpu_args(self, host: EdgeHost, gpus: int, installed: pulumi.Input[str] | None = None) -> GpuHostArgs:
        """What the host's GPUs must offer: Kubernetes may give any service any of them.

        Args:
            host: the machine.
            gpus: how many it has, as its setting says.
            installed: what was installed of nvidia.packages; None: they are still to be installed.
        """
        nvidia = self.settings.nvidia
        driver, driver_for = nvidia.driver
        memory = [service.gpu.memory_mib for service in self.settings.services if service.gpu]
        pods = nvidia.sharing.replicas if nvidia.sharing else 1
        return GpuHostArgs(
            host,
            driver,
            driver_for,
            nvidia.minimum_toolkit,
            gpus=gpus,
            memory_mib=max(memory, default=0) * pods,
            packages="" if not nvidia.packages else "before" if installed is None else "after",
            installed="" if installed is None else installed,
        )

    def cluster_args(self, nodes: list[NodeArgs]) -> K3sClusterArgs:
        """The settings of the cluster in the component's form."""
        wanted = self.settings.cluster
        return K3sClusterArgs(
            nodes,
            address=wanted.address,
            datastore=wanted.datastore,
            max_unavailable=wanted.max_unavailable,
            disable=wanted.disable,
            cluster_cidr=wanted.cluster_cidr,
            service_cidr=wanted.service_cidr,
            server_flags=wanted.server_flags,
            flags=wanted.flags,
            profile=wanted.profile,
            wait_seconds=wanted.wait_seconds,
            upgrade=UpgradeArgs(
                drain=wanted.upgrade.drain,
                drain_seconds=wanted.upgrade.drain_seconds,
                drain_late=wanted.upgrade.on_drain_timeout,
                snapshots=wanted.upgrade.snapshots,
            ),
            token_rotation=wanted.rotation.token,
            certificate_rotation=wanted.rotation.certificates,
        )


def load_sites() -> list[Site]:
    """Reads and checks the stack's config and files; a stack without `sites` is one site.

    Raises:
        SettingsError: one line per problem, before any resource is declared.
    """
    reader = FilesReader(pulumi.get_stack(), preview=pulumi.runtime.is_dry_run())
    sites, problems = [], []
    for found in parse_sites(_config_values()):
        artifacts, wrong = reader.read(found)
        site, more = _load(found, artifacts)
        sites.append(site)
        problems += [*wrong, *more]
    for line in dict.fromkeys(reader.unsigned):
        _without(line)
    if problems:
        raise SettingsError("\n".join(dict.fromkeys(problems)))
    return sites


def _load(found: SiteSettings, artifacts: Files) -> tuple[Site, list[str]]:
    """A site, and what is wrong with the files it names."""
    settings = found.settings
    problems = _undone(found)
    hosts, images, memory = {}, {}, {}
    for index, host in enumerate(settings.hosts):
        try:
            hosts[host.name] = _host_args(host, found.place("hosts", index), settings, artifacts)
        except SettingsError as error:
            problems.append(str(error))
    for index, service in enumerate(settings.services):
        try:
            images[service.name], need = _image(service, found.place("services", index))
            if need:
                memory[service.name] = need
        except SettingsError as error:
            problems.append(str(error))
    try:
        admission = _admission(settings)
    except ConfigError as error:
        admission = []
        problems.append(str(error))
    return Site(settings, artifacts, hosts, images, memory, admission, found.name), problems


def autoscaling(service: ServiceSettings) -> Autoscaling | None:
    """The component's form of the setting."""
    scale = service.autoscaling
    return Autoscaling(scale.min_replicas, scale.max_replicas, scale.cpu_percent) if scale else None


def _undone(found: SiteSettings) -> list[str]:
    """Flags of a site that the profile hardened does not go with."""
    cluster = found.settings.cluster
    if cluster.profile != "hardened":
        return []
    return [
        f"{PROJECT}:{found.place('cluster', name, key)}: found {problem}: take it out, or set "
        "cluster.profile: standard"
        for name, flags in (("serverFlags", cluster.server_flags), ("flags", cluster.flags))
        for key, problem in contradictions(flags)
    ]


def _without(missing: str) -> None:
    pulumi.warn(f"{missing}; this preview goes on without it, an update will not")


def _admission(settings: Settings) -> list[dict[str, Any]]:
    """The policy pack's rules for this stack's cluster."""
    if not settings.admission.enabled:
        return []
    return manifests(pulumi.get_stack(), exempt_namespaces=settings.admission.exempt_namespaces)


def _config_values() -> dict[str, Any]:
    prefix = f"{PROJECT}:"
    texts = {**get_config_env(), **CONFIG.get()}
    values: dict[str, Any] = {}
    for key, text in texts.items():
        if not key.startswith(prefix):
            continue
        try:
            values[key.removeprefix(prefix)] = json.loads(text)
        except json.JSONDecodeError:
            values[key.removeprefix(prefix)] = text
    return values


def _host_args(host: HostSettings, path: str, settings: Settings, artifacts: Files) -> EdgeHostArgs:
    architecture = settings.architecture(host)
    k3s = artifacts[architecture].get("k3s")
    return EdgeHostArgs(
        **_login(host, path),
        role=host.role,
        proxy=Bastion(**_login(host.proxy, f"{path}.proxy")) if host.proxy else None,
        min_memory_mib=settings.cluster.minimums.memory_mib,
        min_disk_mib=settings.cluster.minimums.disk_mib,
        architecture=architecture,
        k3s_version=k3s.version if k3s else "",
        etcd=settings.etcd,
        gone=host.gone,
        rebuilt=host.rebuilt,
        previous_host_key=host.previous_host_key,
    )


def _login(wanted: LoginSettings, path: str) -> dict[str, Any]:
    """What EdgeHostArgs and Bastion have in common."""
    host_key = wanted.host_key or _key_file(str(wanted.host_key_file), f"{path}.hostKeyFile")
    private_key: pulumi.Input[str] | None = wanted.private_key
    if wanted.private_key_file:
        private_key = _key_file(wanted.private_key_file, f"{path}.privateKeyFile")
    return {
        "address": wanted.address,
        "host_key": host_key,
        "user": wanted.user,
        "port": wanted.port,
        "private_key": private_key,
        "agent_socket": wanted.agent_socket,
    }


def _key_file(path: str, setting: str) -> pulumi.Input[str]:
    """A key; one whose file is missing is not known yet in a preview, as in a pull request's checkout."""
    try:
        text = read_file(path, setting)
    except SettingsError as error:
        if not pulumi.runtime.is_dry_run():
            raise
        _without(str(error))

        async def given(value: Any) -> Any:
            return value

        return pulumi.Output(set(), given(""), is_known=given(False))
    return text if text.startswith("-----") else text.strip()


def _image(service: ServiceSettings, path: str) -> tuple[str, str | None]:
    """The image by digest, and what its model needs, where its build says so."""
    if service.image:
        return service.image, None
    setting = f"{path}.imageFile"
    text = read_file(str(service.image_file), setting)
    try:
        described = json.loads(text)
        image = described["image"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise SettingsError(
            f"{PROJECT}:{setting}: {service.image_file} has no key image: build the model again"
        ) from None
    if "@sha256:" not in image:
        raise SettingsError(f"{PROJECT}:{setting}: image {image} has no digest: build the model again")
    return str(image), described.get("memory")
