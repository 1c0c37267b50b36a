"""Settings of GPUs: what hosts must offer, how GPUs are shared, and what a service asks for."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from policies.quantities import QuantityError
from policies.quantities import parse as quantity
from stacks.model import Model

CUDA_DRIVERS = {
    "11.8": "520.61.05",
    "12.0": "525.60.13",
    "12.1": "530.30.02",
    "12.2": "535.54.03",
    "12.3": "545.23.06",
    "12.4": "550.54.14",
    "12.5": "555.42.02",
    "12.6": "560.28.03",
    "12.8": "570.26",
    "12.9": "575.51.03",
    "13.0": "580.65.06",
    "13.1": "590.44.01",
}
"""Least Linux driver of each CUDA version: NVIDIA CUDA Toolkit Release Notes, table "CUDA Toolkit and
Corresponding Driver Versions", the rows of first releases (GA). There was no CUDA 12.7."""


class SharingSettings(Model):
    """How several pods use one GPU; it holds for all GPUs of the stack."""

    by: Literal["time-slicing", "mps"] = Field(
        description="time-slicing: pods take turns; nothing guards the memory of one from another or "
        "promises it time. mps: NVIDIA's Multi-Process Service runs them at once, each held to its part of "
        "the memory."
    )
    replicas: int = Field(ge=2, description="Pods on one GPU: each nvidia.com/gpu is then such a share.")


class DcgmExporterSettings(Model):
    """Metrics of the GPUs for Prometheus."""

    enabled: bool = Field(default=False, description="Run NVIDIA's dcgm-exporter beside the device plugin.")
    image: str | None = Field(
        default=None, pattern=r"@sha256:[0-9a-f]{64}$", description="NVIDIA's dcgm-exporter by digest."
    )
    profiling: bool = Field(
        default=False,
        description="Add DCGM's profiling fields (DCGM_FI_PROF_...). The exporter is then root with "
        "SYS_ADMIN, which the policy pack refuses without an exception.",
    )
    per_pod: bool = Field(
        default=False,
        description="Say in each metric which pod has the GPU. The exporter is then root and mounts the "
        "kubelet's pod-resources, which the policy pack refuses without an exception.",
    )

    @model_validator(mode="after")
    def _has_an_image(self) -> Self:
        if self.enabled and not self.image:
            raise ValueError("image: missing: name the exporter's image by digest")
        return self


class NvidiaSettings(Model):
    """GPUs."""

    enabled: bool = Field(default=False, description="Run the device plugin on hosts with gpu: true.")
    device_plugin_image: str | None = Field(
        default=None, pattern=r"@sha256:[0-9a-f]{64}$", description="NVIDIA's k8s-device-plugin by digest."
    )
    cuda_version: str = Field(
        default="12.4",
        json_schema_extra={"enum": list(CUDA_DRIVERS)},
        description="CUDA version that the services are built with: a host with gpu: true must have the "
        "driver that this version came with, or a newer one.",
    )
    minimum_driver: str | None = Field(
        default=None,
        pattern=r"^\d{3,}\.\d+(\.\d+)?$",
        description="Least driver version instead of cudaVersion's; for example 525.60.13 is enough for "
        "programs of any CUDA 12 that bring no PTX code (CUDA's minor version compatibility).",
    )
    minimum_toolkit: str = Field(
        default="1.17.8",
        pattern=r"^\d+\.\d+\.\d+$",
        description="Least version of the NVIDIA container toolkit; before 1.17.8 a crafted image gets out "
        "of its container (CVE-2025-23266).",
    )

    sharing: SharingSettings | None = Field(
        default=None, description="How several pods use one GPU; left out: each pod has its GPUs alone."
    )
    packages: list[str] = Field(
        default=[],
        description="Artifacts that are .deb files, installed on hosts with gpu: true and purged at destroy: "
        "driver, toolkit and what they need. Driver and toolkit are then checked after their installation, "
        "before K3s; left out: the host brings them.",
    )

    dcgm_exporter: DcgmExporterSettings = Field(
        default=DcgmExporterSettings(), description="Metrics of the GPUs for Prometheus."
    )

    @model_validator(mode="after")
    def _exports_what_it_runs(self) -> Self:
        if self.dcgm_exporter.enabled and not self.enabled:
            raise ValueError("dcgmExporter.enabled: true with enabled: false: set both, or neither")
        return self

    @field_validator("cuda_version")
    @classmethod
    def _known_cuda(cls, version: str) -> str:
        if version not in CUDA_DRIVERS:
            raise ValueError(f"found {version!r}, known are {', '.join(CUDA_DRIVERS)}: choose one of these")
        return version

    @property
    def driver(self) -> tuple[str, str]:
        """The least driver, and what asks for it."""
        if self.minimum_driver:
            return self.minimum_driver, "nvidia.minimumDriver"
        return CUDA_DRIVERS[self.cuda_version], f"CUDA {self.cuda_version}, nvidia.cudaVersion"


class GpuSettings(Model):
    """The GPUs of each pod of a service."""

    count: int = Field(
        default=1,
        ge=1,
        description="nvidia.com/gpu of each pod, as request and limit alike: whole GPUs, or one share where "
        "they are shared. Kubernetes schedules by this number alone.",
    )
    memory: str | None = Field(
        default=None,
        description="GPU memory that a pod needs, a Kubernetes quantity. Kubernetes may give a pod any GPU, "
        "so each GPU of each host with gpu: true must have it, times nvidia.sharing.replicas: checked before "
        "anything is changed. A running pod is not held to it.",
    )
    sharing: Literal["exclusive", "time-slicing", "mps"] = Field(
        default="exclusive",
        description="What the service was made for: a GPU alone, or a share. It places no pod, as a share "
        "and a whole GPU are both called nvidia.com/gpu; where nvidia.sharing says else, the preview fails.",
    )

    @field_validator("memory")
    @classmethod
    def _quantity(cls, memory: str | None) -> str | None:
        try:
            if memory is not None and quantity(memory) <= 0:
                raise ValueError(f"found {memory!r}, need more than 0: leave it out if any memory will do")
        except QuantityError as error:
            raise ValueError(str(error)) from None
        return memory

    @model_validator(mode="after")
    def _one_share(self) -> Self:
        if self.sharing != "exclusive" and self.count != 1:
            raise ValueError(
                f"count is {self.count} with sharing {self.sharing}: set 1, more shares are no more of a GPU"
            )
        return self

    @property
    def memory_mib(self) -> int:
        """In MiB, rounded up; 0: any."""
        return math.ceil(quantity(self.memory) / 2**20) if self.memory else 0
