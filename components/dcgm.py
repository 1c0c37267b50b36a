"""DcgmExporter: metrics of the GPUs for Prometheus, from NVIDIA's dcgm-exporter on each node with one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.nvidia import NAMESPACE, NODE_LABEL, TOLERATIONS
from components.outputs import known_name

EXPORTER = "dcgm-exporter"
PORT = 9400
COUNTERS = """\
DCGM_FI_DEV_GPU_UTIL, gauge, Time in which a kernel ran in percent
DCGM_FI_DEV_MEM_COPY_UTIL, gauge, Time in which memory was read or written in percent
DCGM_FI_DEV_FB_USED, gauge, GPU memory in use in MiB
DCGM_FI_DEV_FB_FREE, gauge, Free GPU memory in MiB
DCGM_FI_DEV_GPU_TEMP, gauge, Temperature of the GPU in degrees Celsius
DCGM_FI_DEV_MEMORY_TEMP, gauge, Temperature of its memory in degrees Celsius
DCGM_FI_DEV_POWER_USAGE, gauge, Power in W
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, counter, Energy since the driver was loaded in mJ
DCGM_FI_DEV_SM_CLOCK, gauge, Clock of the multiprocessors in MHz
DCGM_FI_DEV_MEM_CLOCK, gauge, Clock of the memory in MHz
DCGM_FI_DEV_XID_ERRORS, gauge, Number of the last XID error
DCGM_FI_DEV_PCIE_REPLAY_COUNTER, counter, PCIe packets sent again
DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS, counter, Rows of memory replaced after uncorrectable errors
DCGM_FI_DEV_ROW_REMAP_FAILURE, gauge, Whether a row could not be replaced
DCGM_FI_DRIVER_VERSION, label, Version of the driver
"""
"""Fields of DCGM that need no right, all of the exporter's own list: field, Prometheus type, help."""
PROFILING = """\
DCGM_FI_PROF_GR_ENGINE_ACTIVE, gauge, Part of the time in which a kernel ran
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE, gauge, Part of the cycles in which tensor cores worked
DCGM_FI_PROF_DRAM_ACTIVE, gauge, Part of the cycles in which memory was read or written
DCGM_FI_PROF_PCIE_TX_BYTES, gauge, Bytes per second sent over PCIe
DCGM_FI_PROF_PCIE_RX_BYTES, gauge, Bytes per second received over PCIe
"""
"""Fields that DCGM gives to root with SYS_ADMIN alone (DCGM issue 196, dcgm-exporter issues 165 and 407)."""
_FOLDER = "/etc/edge-inference"
_POD_RESOURCES = "/var/lib/kubelet/pod-resources"
_RESOURCES = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"cpu": "200m", "memory": "512Mi"},
}


@dataclass(frozen=True)
class DcgmExporterArgs:
    """The exporter; what its Helm chart calls each of these is in docs/gpu.md.

    Args:
        image: NVIDIA's dcgm-exporter by digest.
        profiling: PROFILING beside COUNTERS; the exporter then is root and has the capability SYS_ADMIN.
        per_pod: each metric names the pod that has the GPU; the exporter then is root, as the kubelet's
            socket is root's, and mounts the socket's folder.
        runtime_class: RuntimeClass of its pods, which need the driver; K3s ships `nvidia`.
        node_selector: labels of the nodes that it runs on.
        tolerations: taints that it bears.
        resources: requests and limits of its container; the defaults are the chart's.
    """

    image: str
    profiling: bool = False
    per_pod: bool = False
    runtime_class: str | None = "nvidia"
    node_selector: Mapping[str, str] = field(default_factory=lambda: NODE_LABEL)
    tolerations: Sequence[Mapping[str, str]] = TOLERATIONS
    resources: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _RESOURCES)

    @property
    def counters(self) -> str:
        """The exporter's list of fields."""
        return COUNTERS + (PROFILING if self.profiling else "")

    def security(self) -> dict[str, Any]:
        """The least that the wanted metrics need."""
        root = self.profiling or self.per_pod
        user = {"run_as_user": 0} if root else {"run_as_non_root": True, "run_as_user": 65532}
        added = {"add": ["SYS_ADMIN"]} if self.profiling else {}
        return {
            **user,
            "allow_privilege_escalation": False,
            "capabilities": {"drop": ["ALL"], **added},
            "seccomp_profile": {"type": "RuntimeDefault"},
        }


class DcgmExporter(pulumi.ComponentResource):
    """NVIDIA's dcgm-exporter as a DaemonSet on the nodes with GPUs, with a Service that Prometheus finds.

    The Service has the annotations prometheus.io/scrape and prometheus.io/port; a NetworkPolicy lets nothing
    but the metrics' port in, and nothing out.
    """

    def __init__(self, name: str, args: DcgmExporterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("edge:dcgm:DcgmExporter", name, None, opts)
        self._name = name
        self._args = args
        self._opts = pulumi.ResourceOptions(parent=self, deleted_with=opts.deleted_with if opts else None)
        self._selector = {"app.kubernetes.io/name": EXPORTER, "app.kubernetes.io/instance": name}
        self._guard()
        self._expose()
        configuration = k8s.core.v1.ConfigMap(
            f"{name}-counters",
            metadata=self._metadata(f"{EXPORTER}-counters"),
            data={"counters.csv": args.counters},
            opts=self._opts,
        )
        k8s.apps.v1.DaemonSet(
            name,
            metadata=self._metadata(EXPORTER),
            spec={
                "selector": {"match_labels": self._selector},
                "update_strategy": {"type": "RollingUpdate"},
                "template": self._pod(known_name(f"{EXPORTER}-counters", configuration)),
            },
            opts=self._opts,
        )
        self.register_outputs({})

    def _metadata(self, name: str, annotations: dict[str, str] | None = None) -> Any:
        labels = self._selector | {"app.kubernetes.io/managed-by": "pulumi"}
        return {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": annotations}

    def _pod(self, counters: pulumi.Input[str]) -> dict[str, Any]:
        args = self._args
        # The exporter reads its list once, at its start.
        checksum = hashlib.sha256(args.counters.encode()).hexdigest()
        volumes: list[dict[str, Any]] = [{"name": "counters", "config_map": {"name": counters}}]
        if args.per_pod:
            volumes.append({"name": "pod-gpu-resources", "host_path": {"path": _POD_RESOURCES}})
        return {
            "metadata": {"labels": self._selector, "annotations": {"checksum/config": checksum}},
            "spec": {
                "runtime_class_name": args.runtime_class,
                "node_selector": dict(args.node_selector),
                "priority_class_name": "system-node-critical",
                "tolerations": [dict(each) for each in args.tolerations],
                "automount_service_account_token": False,
                "containers": [self._container()],
                "volumes": volumes,
            },
        }

    def _container(self) -> dict[str, Any]:
        args = self._args
        mounts = [{"name": "counters", "mount_path": _FOLDER, "read_only": True}]
        if args.per_pod:
            mounts.append({"name": "pod-gpu-resources", "mount_path": _POD_RESOURCES, "read_only": True})
        health = {"http_get": {"path": "/health", "port": "metrics"}, "initial_delay_seconds": 45}
        return {
            "name": "exporter",
            "image": args.image,
            "image_pull_policy": "IfNotPresent",
            "args": ["-f", f"{_FOLDER}/counters.csv"],
            "env": [
                {"name": "DCGM_EXPORTER_KUBERNETES", "value": str(args.per_pod).lower()},
                {"name": "DCGM_EXPORTER_LISTEN", "value": f":{PORT}"},
                {"name": "NODE_NAME", "value_from": {"field_ref": {"field_path": "spec.nodeName"}}},
            ],
            "ports": [{"name": "metrics", "container_port": PORT}],
            "resources": args.resources,
            "security_context": args.security(),
            "liveness_probe": health | {"period_seconds": 5},
            "readiness_probe": health,
            "volume_mounts": mounts,
        }

    def _expose(self) -> None:
        scraped = {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(PORT),
            # Pulumi would wait for a pod behind it, and there may be no node with a GPU.
            "pulumi.com/skipAwait": "true",
        }
        k8s.core.v1.Service(
            self._name,
            metadata=self._metadata(EXPORTER, scraped),
            spec={
                "type": "ClusterIP",
                "selector": self._selector,
                "ports": [{"name": "metrics", "port": PORT, "target_port": "metrics"}],
            },
            opts=self._opts,
        )

    def _guard(self) -> None:
        k8s.networking.v1.NetworkPolicy(
            self._name,
            metadata=self._metadata(EXPORTER),
            spec={
                "pod_selector": {"match_labels": self._selector},
                "policy_types": ["Ingress", "Egress"],
                "ingress": [{"ports": [{"port": PORT, "protocol": "TCP"}]}],
            },
            opts=self._opts,
        )
