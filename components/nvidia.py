"""NvidiaRuntime: nodes with GPUs offer `nvidia.com/gpu`, whole or shared, to pods of every runtime."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pulumi
import pulumi_kubernetes as k8s

from components.outputs import known_name

NODE_LABEL = {"edge.inference/gpu": "nvidia"}
"""Label of the nodes that have an NVIDIA GPU; the hosts' checks have found it on the PCI bus."""
RESOURCE = "nvidia.com/gpu"
NAMESPACE = "kube-system"
PLUGIN = "nvidia-device-plugin"
MPS_ROOT = "/run/nvidia/mps"
_SOCKETS = "/var/lib/kubelet/device-plugins"
_CDI = "/var/run/cdi"
TOLERATIONS = (
    {"key": "CriticalAddonsOnly", "operator": "Exists"},
    {"key": RESOURCE, "operator": "Exists", "effect": "NoSchedule"},
)
"""Taints that what belongs to each node with a GPU bears, as in NVIDIA's charts."""
_RESOURCES = {
    "requests": {"cpu": "10m", "memory": "32Mi"},
    "limits": {"cpu": "100m", "memory": "128Mi"},
}
_MPS_RESOURCES = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}
_ALL_GPUS = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


@dataclass(frozen=True)
class TimeSlicing:
    """Pods take turns on a GPU; its memory is not divided, and nobody is kept from the others' share.

    Args:
        replicas: pods on one GPU, 2 or more.
        rename: the resource is then called nvidia.com/gpu.shared.
        refuse_several: a pod that asks for several shares is refused: two are not twice as fast as one.
    """

    replicas: int
    rename: bool = False
    refuse_several: bool = False

    def config(self) -> dict[str, object]:
        """As the plugin's config file has it."""
        return {
            "timeSlicing": {
                "renameByDefault": self.rename,
                "failRequestsGreaterThanOne": self.refuse_several,
                "resources": [{"name": RESOURCE, "replicas": self.replicas}],
            }
        }


@dataclass(frozen=True)
class Mps:
    """Pods run on a GPU at once by NVIDIA's Multi-Process Service, each with its part of memory and threads.

    Args:
        replicas: pods on one GPU, 2 or more.
        rename: the resource is then called nvidia.com/gpu.shared.
        resources: requests and limits of each container of NVIDIA's daemon, MPS' servers included; ample,
            as what they need was not measured.
    """

    replicas: int
    rename: bool = False
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _MPS_RESOURCES)

    def config(self) -> dict[str, object]:
        """As the plugin's config file has it."""
        resources = [{"name": RESOURCE, "replicas": self.replicas}]
        return {"mps": {"renameByDefault": self.rename, "resources": resources}}


@dataclass(frozen=True)
class NvidiaRuntimeArgs:
    """The device plugin; what its Helm chart calls each of these is in docs/gpu.md.

    Args:
        image: NVIDIA's k8s-device-plugin by digest.
        runtime_class: RuntimeClass of the plugin's own pods, which need the driver; K3s ships `nvidia`.
        sharing: how several pods use one GPU; None: each has its own.
        mig_strategy: how partitions of a GPU (MIG) are offered; none: whole GPUs.
        fail_on_init_error: a node whose GPUs cannot be read is an error instead of a node without GPUs.
        device_list_strategy: how devices reach a container; only cdi-cri and cdi-annotations reach wasm pods.
        device_id_strategy: what a device is called, its UUID or its index.
        driver_root: where the driver lies on the host.
        node_selector: labels of the nodes that it runs on.
        tolerations: taints that it bears.
        resources: requests and limits of its container.
    """

    image: str
    runtime_class: str | None = "nvidia"
    sharing: TimeSlicing | Mps | None = None
    mig_strategy: Literal["none", "single", "mixed"] = "none"
    fail_on_init_error: bool = True
    device_list_strategy: Literal["cdi-cri", "cdi-annotations", "envvar", "volume-mounts"] = "cdi-cri"
    device_id_strategy: Literal["uuid", "index"] = "uuid"
    driver_root: str = "/"
    node_selector: Mapping[str, str] = field(default_factory=lambda: NODE_LABEL)
    tolerations: Sequence[Mapping[str, str]] = TOLERATIONS
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _RESOURCES)

    def __post_init__(self) -> None:
        if self.sharing and self.sharing.replicas < 2:
            raise ValueError(f"sharing: {self.sharing.replicas} pods on a GPU, need 2 or more, or None")
        if isinstance(self.sharing, Mps) and self.mig_strategy != "none":
            raise ValueError(f"sharing: Mps knows no partitions: mig_strategy {self.mig_strategy}, need none")

    @property
    def config(self) -> str | None:
        """The plugin's config file, where there is one."""
        if self.sharing is None:
            return None
        return json.dumps({"version": "v1", "sharing": self.sharing.config()}, indent=1, sort_keys=True)

    def environment(self) -> dict[str, str]:
        """The plugin's settings."""
        mig = {"NVIDIA_MIG_MONITOR_DEVICES": "all"} if self.mig_strategy != "none" else {}
        config = {"CONFIG_FILE": "/config/config.yaml"} if self.sharing else {}
        return {
            "MPS_ROOT": MPS_ROOT,
            "MIG_STRATEGY": self.mig_strategy,
            "FAIL_ON_INIT_ERROR": str(self.fail_on_init_error).lower(),
            "DEVICE_LIST_STRATEGY": self.device_list_strategy,
            "DEVICE_ID_STRATEGY": self.device_id_strategy,
            "NVIDIA_DRIVER_ROOT": self.driver_root,
            **_ALL_GPUS,
            **mig,
            **config,
        }


class NvidiaRuntime(pulumi.ComponentResource):
    """NVIDIA's device plugin as a DaemonSet on the nodes with GPUs, with MPS' daemon where that is wanted."""

    def __init__(
        self, name: str, args: NvidiaRuntimeArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("edge:nvidia:NvidiaRuntime", name, None, opts)
        self._name = name
        self._args = args
        self._opts = pulumi.ResourceOptions(parent=self, deleted_with=opts.deleted_with if opts else None)
        self._config = self._config_map()
        self._daemon_set(PLUGIN, self._plugin_pod())
        if isinstance(args.sharing, Mps):
            self._daemon_set(f"{PLUGIN}-mps-control-daemon", self._mps_pod(args.sharing))
        self.register_outputs({})

    def _selector(self, name: str) -> dict[str, str]:
        return {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": self._name}

    def _metadata(self, name: str, part: str) -> dict[str, Any]:
        labels = self._selector(part) | {"app.kubernetes.io/managed-by": "pulumi"}
        return {"name": name, "namespace": NAMESPACE, "labels": labels}

    def _config_map(self) -> pulumi.Input[str] | None:
        if self._args.config is None:
            return None
        name = f"{PLUGIN}-configs"
        made = k8s.core.v1.ConfigMap(
            f"{self._name}-config",
            metadata=self._metadata(name, PLUGIN),
            data={"config.yaml": self._args.config},
            opts=self._opts,
        )
        return known_name(name, made)

    def _daemon_set(self, name: str, pod: dict[str, Any]) -> None:
        labels = self._selector(name)
        metadata: dict[str, Any] = {"labels": labels}
        if self._args.config:
            # The plugin reads its config once, at its start.
            metadata["annotations"] = {
                "checksum/config": hashlib.sha256(self._args.config.encode()).hexdigest()
            }
        k8s.apps.v1.DaemonSet(
            self._name if name == PLUGIN else f"{self._name}-mps",
            metadata=self._metadata(name, name),
            spec={
                "selector": {"match_labels": labels},
                "update_strategy": {"type": "RollingUpdate"},
                "template": {"metadata": metadata, "spec": self._common() | pod},
            },
            opts=self._opts,
        )

    def _common(self) -> dict[str, Any]:
        args = self._args
        return {
            "runtime_class_name": args.runtime_class,
            "node_selector": dict(args.node_selector),
            "priority_class_name": "system-node-critical",
            "tolerations": [dict(each) for each in args.tolerations],
            "automount_service_account_token": False,
        }

    def _shared(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Mounts and volumes of both pods."""
        mounts = [
            # MPS' shared memory is how the plugin asks for the daemon's health.
            {"name": "mps-shm", "mount_path": "/dev/shm"},  # noqa: S108
            {"name": "mps-root", "mount_path": "/mps"},
        ]
        volumes: list[dict[str, Any]] = [
            {"name": "mps-shm", "host_path": {"path": f"{MPS_ROOT}/shm"}},
            {"name": "mps-root", "host_path": {"path": MPS_ROOT, "type": "DirectoryOrCreate"}},
        ]
        if self._config is not None:
            mounts.append({"name": "config", "mount_path": "/config"})
            volumes.append({"name": "config", "config_map": {"name": self._config}})
        return mounts, volumes

    def _plugin_pod(self) -> dict[str, Any]:
        args = self._args
        mounts, volumes = self._shared()
        for volume, source, target in (
            ("kubelet-device-plugins-dir", _SOCKETS, _SOCKETS),
            ("cdi-root", _CDI, _CDI),
            ("driver-root", args.driver_root, "/driver-root"),
        ):
            made = "DirectoryOrCreate" if source == _CDI else "Directory"
            volumes.append({"name": volume, "host_path": {"path": source, "type": made}})
            mounts.append(
                {"name": volume, "mount_path": target, "read_only": True}
                if volume == "driver-root"
                else {"name": volume, "mount_path": target}
            )
        container = {
            "name": f"{PLUGIN}-ctr",
            "image": args.image,
            "image_pull_policy": "IfNotPresent",
            "command": [PLUGIN],
            "env": [{"name": key, "value": value} for key, value in sorted(args.environment().items())],
            "resources": args.resources,
            "security_context": self._plugin_security(),
            "volume_mounts": mounts,
        }
        return {"containers": [container], "volumes": volumes}

    def _plugin_security(self) -> dict[str, Any]:
        args = self._args
        if args.mig_strategy != "none" or args.device_list_strategy == "volume-mounts":
            return {"capabilities": {"add": ["SYS_ADMIN"]}}
        return {"allow_privilege_escalation": False, "capabilities": {"drop": ["ALL"]}}

    def _mps_pod(self, sharing: Mps) -> dict[str, Any]:
        """NVIDIA's daemon that runs MPS on each node; it must be privileged."""
        args = self._args
        mounts, volumes = self._shared()
        base = {"image": args.image, "resources": sharing.resources, "security_context": {"privileged": True}}
        shared_memory = base | {
            "name": "mps-control-daemon-mounts",
            "command": ["mps-control-daemon", "mount-shm"],
            "volume_mounts": [
                {"name": "mps-root", "mount_path": "/mps", "mount_propagation": "Bidirectional"}
            ],
        }
        field_ref = {"api_version": "v1", "field_path": "spec.nodeName"}
        node = {"name": "NODE_NAME", "value_from": {"field_ref": field_ref}}
        settings = _ALL_GPUS | {
            "MIG_STRATEGY": args.mig_strategy,
            "CONFIG_FILE": args.environment()["CONFIG_FILE"],
        }
        daemon = base | {
            "name": "mps-control-daemon-ctr",
            "image_pull_policy": "IfNotPresent",
            "command": ["mps-control-daemon"],
            "env": [node, *({"name": key, "value": value} for key, value in sorted(settings.items()))],
            "volume_mounts": mounts,
        }
        return {
            # The MPS server finds its own id by /proc/self (k8s-device-plugin, pull request 1045).
            "host_pid": True,
            "init_containers": [shared_memory],
            "containers": [daemon],
            "volumes": volumes,
        }
