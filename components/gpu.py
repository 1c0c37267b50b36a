"""GpuHost: the NVIDIA GPUs of a host, checked before anything is changed; what a pod asks for to use one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
from pulumi_command import remote

from components.artifact import Artifact
from components.host import EdgeHost
from components.step import HostStep

PRELOAD = "WASMEDGE_WASINN_PRELOAD"
"""Environment by which WasmEdge loads a model before the program: `alias:backend:device:file`."""


@dataclass(frozen=True)
class GpuHostArgs:
    """What the GPUs of a host must offer.

    Args:
        host: the machine.
        minimum_driver: least version of NVIDIA's driver.
        driver_for: what needs that driver, for people: "CUDA 12.4".
        minimum_toolkit: least version of NVIDIA's container toolkit.
        memory_mib: least memory of each GPU, in MiB; 0: any.
        gpus: least number of GPUs.
        packages: "": the host brings its software; "before": GpuPackages is still to install it, so that only
            the hardware is looked at; "after": it has.
        installed: what GpuPackages installed; another value checks again.
    """

    host: EdgeHost
    minimum_driver: str
    driver_for: str
    minimum_toolkit: str
    memory_mib: int = 0
    gpus: int = 1
    packages: Literal["", "before", "after"] = ""
    installed: pulumi.Input[str] = ""


class GpuHost(pulumi.ComponentResource):
    """The GPUs of a host. The checks read only, and all that is wrong with a host is said at once.

    Hand `checked` to `prepare`, so that no host is changed before all GPUs passed.

    Outputs:
        facts: what the checks found, a JSON object: driver, toolkit, and per GPU its PCI address, id, name
            and memory.
    """

    checked: remote.Command
    facts: pulumi.Output[str]

    def __init__(self, name: str, args: GpuHostArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("edge:gpu:GpuHost", name, None, opts)
        self.checked = HostStep(
            f"{name}-check",
            "gpu.sh",
            args.host.target,
            {
                "MINIMUM_GPUS": str(args.gpus),
                "MINIMUM_DRIVER": args.minimum_driver,
                "DRIVER_FOR": args.driver_for,
                "MINIMUM_TOOLKIT": args.minimum_toolkit,
                "MEMORY_MIB": str(args.memory_mib),
                "PACKAGES": args.packages,
                "INSTALLED": args.installed,
            },
            parent=self,
            read_only=True,
        )
        self.facts = self.checked.stdout
        self.register_outputs({"facts": self.facts})


class GpuPackages(pulumi.ComponentResource):
    """NVIDIA's driver and toolkit from staged .deb files; at deletion they are purged.

    A package of which the host has another version is an error, as that one could not be given back.

    Args:
        host: the machine.
        packages: the files, which `prepare` brought, all that they depend on and the host lacks among them.

    Outputs:
        installed: the packages and their versions.
    """

    installed: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        host: EdgeHost,
        packages: Sequence[Artifact],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("edge:gpu:GpuPackages", name, None, opts)
        files = pulumi.Output.all(*(host.path(package) for package in packages))
        step = HostStep(
            f"{name}-install",
            "gpu-packages.sh",
            host.target,
            {"FILES": files.apply(lambda paths: "\n".join(paths))},
            parent=self,
        )
        self.installed = step.stdout
        self.register_outputs({"installed": self.installed})


class GpuCdi(pulumi.ComponentResource):
    """The CDI specification of a host's GPUs: written now, at each boot, and after a change of the driver.

    NVIDIA's units `nvidia-cdi-refresh` are used where they are enabled (container toolkit 1.18 and newer);
    else units of ours run `nvidia-ctk cdi generate`, and go at deletion with the file that they wrote.
    Specifications in /etc/cdi stay the owner's. Source of calls, capabilities and watched files: NVIDIA's
    nvidia-container-toolkit 1.17.8 and 1.18.0, cmd/nvidia-ctk/cdi and deployments/systemd.

    Args:
        host: the machine.
        facts: what GpuHost found: the specification must have each of its GPUs, and its driver.

    Outputs:
        devices: CDI names of the GPUs, one a line: "nvidia.com/gpu=0".
        step: the step; a node that needs the specification comes after it.
    """

    devices: pulumi.Output[str]
    step: remote.Command

    def __init__(
        self,
        name: str,
        host: EdgeHost,
        facts: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("edge:gpu:GpuCdi", name, None, opts)
        self.step = HostStep(
            f"{name}-units",
            "gpu-cdi.sh",
            host.target,
            {"FACTS": facts},
            parent=self,
            depends_on=[host.staged],
        )
        self.devices = self.step.stdout
        self.register_outputs({"devices": self.devices})


def gpu_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a server that has a GPU: it is told so, and WASI-NN's device AUTO becomes GPU.

    Args:
        env: what the server has beside it.
    """
    result = {**env, "GPU_ENABLED": "true"}
    if PRELOAD in env:
        alias, backend, device, file = env[PRELOAD].split(":", 3)
        result[PRELOAD] = ":".join([alias, backend, "GPU" if device == "AUTO" else device, file])
    return result
