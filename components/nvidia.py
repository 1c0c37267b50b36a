"""NvidiaRuntime: nodes labelled as having a GPU offer `nvidia.com/gpu`."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

NODE_LABEL = {"edge.inference/gpu": "nvidia"}
"""Label of the nodes that have an NVIDIA GPU."""
_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


@dataclass(frozen=True)
class NvidiaRuntimeArgs:
    """The device plugin.

    Args:
        image: NVIDIA's k8s-device-plugin by digest.
        runtime_class: RuntimeClass of the plugin's own pods; K3s ships `nvidia`.
    """

    image: str
    runtime_class: str = "nvidia"


class NvidiaRuntime(pulumi.ComponentResource):
    """NVIDIA's device plugin as a DaemonSet, only on nodes with NODE_LABEL."""

    def __init__(
        self, name: str, args: NvidiaRuntimeArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("edge:nvidia:NvidiaRuntime", name, None, opts)
        labels = {"app.kubernetes.io/name": "nvidia-device-plugin", "app.kubernetes.io/instance": name}
        plugin = {
            "name": "device-plugin",
            "image": args.image,
            "env": [{"name": "FAIL_ON_INIT_ERROR", "value": "false"}],
            "resources": {
                "requests": {"cpu": "10m", "memory": "32Mi"},
                "limits": {"cpu": "100m", "memory": "128Mi"},
            },
            "security_context": {"allow_privilege_escalation": False, "capabilities": {"drop": ["ALL"]}},
            "volume_mounts": [{"name": "sockets", "mount_path": "/var/lib/kubelet/device-plugins"}],
        }
        k8s.apps.v1.DaemonSet(
            name,
            metadata={"name": "nvidia-device-plugin", "namespace": "kube-system", "labels": labels},
            spec={
                "selector": {"match_labels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "runtime_class_name": args.runtime_class,
                        "node_selector": NODE_LABEL,
                        "priority_class_name": "system-node-critical",
                        "tolerations": [_TOLERATION],
                        "automount_service_account_token": False,
                        "containers": [plugin],
                        "volumes": [
                            {"name": "sockets", "host_path": {"path": "/var/lib/kubelet/device-plugins"}}
                        ],
                    },
                },
            },
            opts=pulumi.ResourceOptions(parent=self, deleted_with=opts.deleted_with if opts else None),
        )
        self.register_outputs({})
