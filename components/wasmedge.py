"""WasmEdge: the library and containerd shim on a host, and the RuntimeClass that chooses them."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from components.artifact import Artifact
from components.host import EdgeHost
from components.outputs import known_name
from components.step import HostStep

NODE_LABEL = {"edge.inference/runtime": "wasmedge"}
"""Label of the nodes that can run wasm pods."""


@dataclass(frozen=True)
class WasmEdgeInstallArgs:
    """WasmEdge on one host.

    Args:
        host: the machine.
        archive: tar archive of opt/wasmedge/{bin,lib,VERSION}.
        version: WasmEdge's version; the archive's VERSION must contain it.
    """

    host: EdgeHost
    archive: Artifact
    version: str = "0.14.1"


class WasmEdgeInstall(HostStep):
    """Library and shim in /opt/wasmedge; K3s detects the shim when it starts, so this goes before K3s.

    Outputs:
        version: the archive's VERSION.
    """

    def __init__(
        self, name: str, args: WasmEdgeInstallArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        values: dict[str, pulumi.Input[str]] = {
            "ARCHIVE": args.host.path(args.archive),
            "VERSION": args.version,
        }
        super().__init__(name, "wasmedge.sh", args.host.target, values, opts=opts)

    @property
    def version(self) -> pulumi.Output[str]:
        return self.stdout


@dataclass(frozen=True)
class WasmEdgeRuntimeArgs:
    """The runtime as the cluster sees it.

    Args:
        runtime_class: name of the RuntimeClass.
        overhead_memory: what the shim takes beside the pod's own limit (a Kubernetes quantity).
        overhead_cpu: the same for CPU.
    """

    runtime_class: str = "wasm"
    overhead_memory: str = "96Mi"
    overhead_cpu: str = "10m"


class WasmEdgeRuntime(pulumi.ComponentResource):
    """RuntimeClass with containerd's handler `wasmedge`, scheduled only on nodes with NODE_LABEL.

    Outputs:
        runtime_class: the RuntimeClass's name; what uses it waits for the class.
    """

    runtime_class: pulumi.Output[str]

    def __init__(
        self, name: str, args: WasmEdgeRuntimeArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("edge:wasmedge:WasmEdgeRuntime", name, None, opts)
        created = k8s.node.v1.RuntimeClass(
            name,
            metadata={"name": args.runtime_class, "labels": {"app.kubernetes.io/managed-by": "pulumi"}},
            handler="wasmedge",
            overhead={"pod_fixed": {"memory": args.overhead_memory, "cpu": args.overhead_cpu}},
            scheduling={"node_selector": NODE_LABEL},
            opts=pulumi.ResourceOptions(parent=self, deleted_with=opts.deleted_with if opts else None),
        )
        self.runtime_class = known_name(args.runtime_class, created)
        self.register_outputs({"runtime_class": self.runtime_class})
