"""What is served: `edge-inference:services`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from stacks.gpu import GpuSettings
from stacks.model import DNS_LABEL, Model


class ResourceSettings(Model):
    """Kubernetes quantities."""

    cpu: str = Field(description="CPU, for example 500m.")
    memory: str = Field(description="Memory, for example 512Mi.")

    def quantities(self) -> dict[str, str]:
        """As Kubernetes names them."""
        return {"cpu": self.cpu, "memory": self.memory}


class AutoscalingSettings(Model):
    """Replicas that follow the load."""

    min_replicas: int = Field(ge=1, description="Never fewer pods.")
    max_replicas: int = Field(ge=1, description="Never more pods.")
    cpu_percent: int = Field(
        default=70, ge=1, le=100, description="CPU use aimed at, in percent of the request."
    )


class ServiceSettings(Model):
    """A model that is served."""

    name: str = Field(pattern=DNS_LABEL, description="Name of the Service.")
    deployment: str = Field(
        default="ai-inference-edge", pattern=DNS_LABEL, description="Name of the Deployment."
    )
    image: str | None = Field(
        default=None, pattern=r"@sha256:[0-9a-f]{64}$", description="The image by digest (…@sha256:…)."
    )
    image_file: str | None = Field(
        default=None,
        description="Instead of image: the JSON file that the model's build wrote, its key `image`.",
    )
    archive: str | None = Field(
        default=None,
        description="Artifact with the image, put on every node; left out: nodes pull it.",
    )
    replicas: int = Field(default=1, ge=0, description="Pods; not used with autoscaling.")
    port: int = Field(default=8080, ge=1, le=65535, description="TCP port of the server and of the Service.")
    service_type: Literal["LoadBalancer", "NodePort", "ClusterIP"] = Field(
        default="LoadBalancer", description="How the Service is reached."
    )
    external_traffic_policy: Literal["Cluster", "Local"] = Field(
        default="Cluster",
        description="Cluster: each node sends on to pods of all nodes. Local: only to its own pods, so that "
        "one that is cut off from the others still serves; a node without a pod of its own does not answer.",
    )
    unreachable_seconds: int | None = Field(
        default=300,
        ge=0,
        description="How long a pod is waited for whose node does not answer before another takes its place, "
        "and it ends once the node is back, in s; null: for ever, the pod serves on where it is.",
    )
    requests: ResourceSettings = Field(
        default=ResourceSettings(cpu="500m", memory="512Mi"),
        description="Resources set aside for a pod.",
    )
    limits: ResourceSettings = Field(
        default=ResourceSettings(cpu="1", memory="1Gi"), description="Resources a pod may use at most."
    )
    gpu: GpuSettings | None = Field(
        default=None,
        description="GPUs of each pod; left out: none. It sets GPU_ENABLED, and the device AUTO in "
        "WASMEDGE_WASINN_PRELOAD (WASI-NN) becomes GPU.",
    )
    env: dict[str, str] = Field(default={}, description="Environment of the server.")
    command: list[str] = Field(default=[], description="Replaces the image's entrypoint.")
    autoscaling: AutoscalingSettings | None = Field(
        default=None, description="Replicas that follow the load."
    )

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if (self.image is None) == (self.image_file is None):
            raise ValueError("need exactly one of image and imageFile: what shall be served")
        return self

    @model_validator(mode="after")
    def _traffic_from_outside(self) -> Self:
        if self.service_type == "ClusterIP" and self.external_traffic_policy == "Local":
            raise ValueError(
                "externalTrafficPolicy: Local is about traffic from outside, which a ClusterIP does not "
                "take: leave it out, or write another serviceType"
            )
        return self

    @model_validator(mode="after")
    def _gpu_says_the_environment(self) -> Self:
        if "GPU_ENABLED" in self.env:
            raise ValueError("env.GPU_ENABLED: it is set by gpu: remove it, and write gpu: {} for one GPU")
        preload = self.env.get("WASMEDGE_WASINN_PRELOAD")
        if preload is None:
            return self
        parts = preload.split(":", 3)
        wrong = "CPU" if self.gpu else "GPU"
        if len(parts) != 4:
            raise ValueError(
                f"env.WASMEDGE_WASINN_PRELOAD: found {preload!r}, want alias:backend:device:file: mend it"
            )
        if parts[2] == wrong:
            has = "a gpu" if self.gpu else "no gpu"
            raise ValueError(
                f"env.WASMEDGE_WASINN_PRELOAD: device {wrong}, and the service has {has}: write AUTO"
            )
        return self
