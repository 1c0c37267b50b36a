"""Objects that the pack refuses or takes, one a case: for the real engine, and for the API server of a K3s.

Each is in order but for what its case is about, by the settings the project ships (policies/config.json).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from policies.limits import MODEL_MEMORY
from policies.pods import TEMPLATES

DIGEST = "sha256:" + "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
IMAGE, WASM_IMAGE = f"edge.local/app@{DIGEST}", f"edge.local/models/digits:v1@{DIGEST}"
NAMESPACE = "corpus"
_VERSIONS = {
    "Pod": "v1",
    "PodTemplate": "v1",
    "ReplicationController": "v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
}
_PROBE = {"tcpSocket": {"port": 8080}}


@dataclass(frozen=True)
class Case:
    """One object and what is to become of it.

    Args:
        rule: the rule that refuses it; empty for an object that is taken.
        manifest: the object.
    """

    rule: str
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """The object's name, which says what the case is about."""
        return str(self.manifest["metadata"]["name"])

    @property
    def type(self) -> str:
        """Pulumi's type token."""
        version = self.manifest["apiVersion"]
        return f"kubernetes:{version if '/' in version else f'core/{version}'}:{self.manifest['kind']}"


def container(**changes: Any) -> dict[str, Any]:
    """A container in order, then changed; None takes a field away."""
    made = {
        "name": "c",
        "image": IMAGE,
        "ports": [{"containerPort": 8080}],
        "resources": {
            "requests": {"cpu": "500m", "memory": "512Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        "livenessProbe": _PROBE,
        "readinessProbe": _PROBE,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def init(**changes: Any) -> dict[str, Any]:
    """An init container in order, then changed."""
    return container(**{"name": "i", "livenessProbe": None, "readinessProbe": None, **changes})


def pod(one: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A pod's spec in order, then changed; None takes a field away."""
    made = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [one or container()],
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def workload(kind: str, name: str, spec: dict[str, Any], **annotations: str) -> dict[str, Any]:
    """An object of a kind that holds this pod."""
    spec = copy.deepcopy(spec)
    if kind in ("Job", "CronJob"):
        spec["restartPolicy"] = "Never"
    template: dict[str, Any] = {
        "metadata": {"labels": {"app": name}, "annotations": annotations},
        "spec": spec,
    }
    if kind == "Pod":
        body = {"spec": spec}
    else:
        body = template
        for step in reversed(TEMPLATES[kind]):
            body = {str(step): body}
    if kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"):
        body["spec"]["selector"] = {"matchLabels": {"app": name}}
    if kind == "StatefulSet":
        body["spec"]["serviceName"] = name
    if kind == "CronJob":
        body["spec"]["schedule"] = "@daily"
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        **({"annotations": annotations} if kind == "Pod" else {}),
    }
    return {"apiVersion": _VERSIONS.get(kind, "apps/v1"), "kind": kind, "metadata": metadata, **body}


def service(name: str, namespace: str, kind: str) -> dict[str, Any]:
    """A Service."""
    spec = {"type": kind, "selector": {"app": name}, "ports": [{"port": 8080}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def namespace(name: str, **labels: str) -> dict[str, Any]:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def resources(requests: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    """A container with these resources."""
    return container(resources={"requests": requests, "limits": limits})


def _good() -> Iterator[dict[str, Any]]:
    for kind in TEMPLATES:
        yield workload(kind, f"good-{kind.lower()}", pod())
        sidecar = container(name="s", restartPolicy="Always")
        yield workload(kind, f"good-init-{kind.lower()}", pod(initContainers=[init(), sidecar]))
    yield workload("Deployment", "good-wasm", pod(container(image=WASM_IMAGE), runtimeClassName="wasm"))
    gpu = {"cpu": 1, "memory": "1Gi", "nvidia.com/gpu": 1}
    yield workload("Deployment", "good-gpu", pod(resources(gpu, gpu)))
    exponent = resources({"cpu": "5e-1", "memory": "1e8"}, {"cpu": 4, "memory": "4Gi"})
    yield workload("Deployment", "good-exponents", pod(exponent))
    yield workload(
        "Pod", "good-defaulted", pod(container(resources={"limits": {"cpu": "1", "memory": "1Gi"}}))
    )
    yield workload("Deployment", "good-model", pod(), **{MODEL_MEMORY: "1Gi"})
    yield workload("Job", "good-ends", pod(container(livenessProbe=None, readinessProbe=None)))
    asks = pod(automountServiceAccountToken=True, serviceAccountName="operator")
    yield workload("Deployment", "good-token", asks)
    user = pod(securityContext={"runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}})
    yield workload("Deployment", "good-user", user)
    yield workload("Deployment", "good-volume", pod(volumes=[{"name": "v", "emptyDir": {}}]))
    yield service("good-cluster-ip", NAMESPACE, "ClusterIP")
    yield service("good-load-balancer", "inference", "LoadBalancer")
    yield namespace("good-namespace", **{"pod-security.kubernetes.io/enforce": "restricted"})


def _bad_limits() -> Iterator[dict[str, Any]]:
    whole = {"cpu": "1", "memory": "1Gi"}
    cases = {
        "no-resources": container(resources=None),
        "no-requests": resources({}, whole),
        "no-cpu-request": resources({"memory": "1Gi"}, whole),
        "no-cpu-limit": resources(whole, {"memory": "1Gi"}),
        "no-memory-limit": resources(whole, {"cpu": "1"}),
        "zero": resources({"cpu": "0", "memory": "1Gi"}, whole),
        "negative": resources({"cpu": "-1", "memory": "1Gi"}, whole),
        "limit-below-request": resources({"cpu": "1", "memory": "2Gi"}, whole),
        "invalid": resources({"cpu": "1", "memory": "1GB"}, whole),
        "millibytes": resources({"cpu": "1", "memory": "512m"}, whole),
        "cpu-above-ceiling": resources(whole, {"cpu": "4001m", "memory": "1Gi"}),
        "memory-above-ceiling": resources(whole, {"cpu": "1", "memory": "5e9"}),
        "gpu-fraction": resources({**whole, "nvidia.com/gpu": "500m"}, {**whole, "nvidia.com/gpu": "500m"}),
        "gpu-differs": resources({**whole, "nvidia.com/gpu": 1}, {**whole, "nvidia.com/gpu": 2}),
    }
    for name, one in cases.items():
        yield workload("Deployment", f"limits-{name}", pod(one))
    for kind in TEMPLATES:
        yield workload(kind, f"limits-init-{kind.lower()}", pod(initContainers=[init(resources=None)]))
    yield workload("Deployment", "limits-model", pod(), **{MODEL_MEMORY: "2Gi"})
    yield workload("Deployment", "limits-model-invalid", pod(), **{MODEL_MEMORY: "2GB"})


def _bad_images() -> Iterator[tuple[str, dict[str, Any]]]:
    for rule, name, image in (
        ("image-digest", "no-digest", "edge.local/app:v1"),
        ("image-digest", "no-tag", "edge.local/app"),
        ("image-digest", "latest", f"edge.local/app:latest@{DIGEST}"),
        ("image-digest", "short-digest", "edge.local/app@sha256:abc"),
        ("image-registry", "foreign", f"registry.example.com/app@{DIGEST}"),
        ("image-registry", "docker-hub", f"nginx@{DIGEST}"),
        ("image-registry", "docker-hub-user", f"user/app:v1@{DIGEST}"),
        ("image-registry", "alike", f"edge.local.example.com/app@{DIGEST}"),
        ("image-registry", "port", f"edge.local:5000/app@{DIGEST}"),
    ):
        yield rule, workload("Deployment", f"image-{name}", pod(container(image=image)))


def _bad_shapes() -> Iterator[tuple[str, dict[str, Any]]]:
    def deployment(rule: str, name: str, spec: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return rule, workload("Deployment", f"{rule}-{name}", spec)

    yield deployment("wasm-runtime-class", "missing", pod(container(image=WASM_IMAGE)))
    yield deployment("wasm-runtime-class", "native", pod(runtimeClassName="wasm"))
    mixed = pod(container(image=WASM_IMAGE), runtimeClassName="wasm", initContainers=[init()])
    yield deployment("wasm-runtime-class", "mixed", mixed)
    for probe in ("livenessProbe", "readinessProbe"):
        yield deployment("probes", probe.lower(), pod(container(**{probe: None})))
    bare = workload("Pod", "probes-pod", pod(container(livenessProbe=None)))
    yield "probes", bare
    yield deployment("service-account-token", "missing", pod(automountServiceAccountToken=None))
    yield deployment("service-account-token", "default", pod(automountServiceAccountToken=True))
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        shared: dict[str, Any] = {name: True}
        yield deployment("pod-security", name.lower(), pod(**shared))
    volume = [{"name": "v", "hostPath": {"path": "/etc"}}]
    yield deployment("pod-security", "hostpath", pod(volumes=volume))
    contexts: dict[str, dict[str, Any]] = {
        "privileged": {"privileged": True},
        "capability": {"capabilities": {"add": ["SYS_ADMIN"]}},
        "user-0": {"runAsUser": 0},
        "root": {"runAsNonRoot": False},
    }
    for name, context in contexts.items():
        yield deployment("pod-security", name, pod(container(securityContext=context)))
    yield deployment("pod-security", "no-context", pod(securityContext=None))
    root = [init(securityContext={"runAsUser": 0})]
    yield deployment("pod-security", "init", pod(initContainers=root))
    yield "namespace-pod-security", namespace("namespace-bare")
    yield (
        "namespace-pod-security",
        namespace("namespace-baseline", **{"pod-security.kubernetes.io/enforce": "baseline"}),
    )
    yield "load-balancer", service("load-balancer", NAMESPACE, "LoadBalancer")


API_SERVER = frozenset(
    f"limits-{name}" for name in ("negative", "limit-below-request", "invalid", "gpu-fraction", "gpu-differs")
)
"""Bad objects that Kubernetes itself refuses, before any policy sees them."""
GOOD = [Case("", manifest) for manifest in _good()]
BAD = [
    *(Case("resource-limits", manifest) for manifest in _bad_limits()),
    *(Case(*case) for case in _bad_images()),
    *(Case(*case) for case in _bad_shapes()),
]
