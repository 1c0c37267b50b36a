"""NvidiaRuntime once for each of config `nvidia:cases`, name to arguments; only a preview is meant."""

from typing import Any

import pulumi
import pulumi_kubernetes as k8s

import components as edge
from components.nvidia import Mps, TimeSlicing

SHARING = {"mps": Mps, "time-slicing": TimeSlicing}


def arguments(values: dict[str, Any]) -> edge.NvidiaRuntimeArgs:
    """The component's arguments; sharing is written as in a stack's settings."""
    sharing = values.pop("sharing", None)
    shared = SHARING[sharing["by"]](sharing["replicas"]) if sharing else None
    return edge.NvidiaRuntimeArgs(**values, sharing=shared)


files = k8s.Provider("files", render_yaml_to_directory="rendered")
for name, values in pulumi.Config("nvidia").require_object("cases").items():
    edge.NvidiaRuntime(name, arguments(values), pulumi.ResourceOptions(provider=files))
