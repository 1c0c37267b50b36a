"""What the Kubernetes API says: nodes, and the pods that serve models."""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from kubernetes import client, config

from status.stack import Site

_TIMEOUT = (5, 10)  # seconds to connect, seconds to read


@dataclass(frozen=True)
class Node:
    """A node as the API shows it."""

    name: str
    ready: bool
    kubelet: str
    container_runtime: str


@dataclass(frozen=True)
class Pod:
    """A pod of an inference service.

    Args:
        container: the server container's id in containerd; empty before it runs.
        start_seconds: from scheduled to ready, whole seconds as the API keeps them; None while not ready.
    """

    name: str
    node: str
    runtime_class: str
    ready: bool
    container: str
    start_seconds: float | None


def _api(site: Site) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config_dict(yaml.safe_load(site.kubeconfig)))


def nodes(site: Site) -> list[Node]:
    """All nodes, by name."""
    found = []
    for item in _api(site).list_node(_request_timeout=_TIMEOUT).items:
        ready = any(c.type == "Ready" and c.status == "True" for c in item.status.conditions)
        info = item.status.node_info
        found.append(Node(item.metadata.name, ready, info.kubelet_version, info.container_runtime_version))
    return sorted(found, key=lambda node: node.name)


def pods(site: Site) -> list[Pod]:
    """The pods that serve models, by name."""
    listed = _api(site).list_namespaced_pod(
        site.settings.namespace,
        label_selector="app.kubernetes.io/component=inference",
        _request_timeout=_TIMEOUT,
    )
    return sorted((_pod(item) for item in listed.items), key=lambda pod: pod.name)


def _pod(item: client.V1Pod) -> Pod:
    times = {c.type: c.last_transition_time for c in item.status.conditions or [] if c.status == "True"}
    ready = "Ready" in times
    statuses = item.status.container_statuses or []
    container = statuses[0].container_id.removeprefix("containerd://") if statuses and ready else ""
    seconds = (times["Ready"] - times["PodScheduled"]).total_seconds() if ready else None
    return Pod(
        item.metadata.name,
        item.spec.node_name or "",
        item.spec.runtime_class_name or "",
        ready,
        container,
        seconds,
    )
