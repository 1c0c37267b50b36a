"""The Pulumi program of the policy tests, one function a stack; the tests copy it into its own project."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi.output import UNKNOWN

IMAGES: dict[str, str] = json.loads(Path("images.json").read_text(encoding="utf-8"))
GOOD_IMAGES = ("signed", "offline", "bundle", "offline-bundle", "wasm")
GOOD_RESOURCES: dict[str, dict[str, Any]] = {
    "requests": {"cpu": "500m", "memory": "512Mi", "nvidia.com/gpu": 1},
    "limits": {"cpu": 1, "memory": "1Gi", "nvidia.com/gpu": 1},
}
BAD_RESOURCES: dict[str, dict[str, Any]] = {
    "no-cpu-request": {"requests.cpu": None},
    "no-memory-limit": {"limits.memory": None},
    "limit-below-request": {"requests.memory": "2Gi"},
    "invalid-quantity": {"limits.memory": "1GB"},
    "negative": {"requests.cpu": "-1"},
    "zero": {"limits.cpu": "0"},
    "millibytes": {"requests.memory": "512m"},
    "above-ceiling": {"limits.cpu": "1e3"},
    "gpu-fraction": {"requests.nvidia.com/gpu": "500m", "limits.nvidia.com/gpu": "500m"},
    "gpu-differs": {"limits.nvidia.com/gpu": 2},
}


def container(image: Any = IMAGES["signed"], changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a container in good order, then changed: `{"requests.cpu": None}` leaves that quantity out."""
    resources = copy.deepcopy(GOOD_RESOURCES)
    for key, value in (changes or {}).items():
        side, name = key.split(".", 1)
        if value is None:
            del resources[side][name]
        else:
            resources[side][name] = value
    return {"name": "c", "image": image, "resources": resources}


def template(one: dict[str, Any], init: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a pod template with one container, and one init container if given."""
    spec = {
        "containers": [one],
        "initContainers": [init] if init else [],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True},
    }
    return {"metadata": {"labels": {"app": "test"}}, "spec": spec}


def workload(pod: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the spec of a Deployment, StatefulSet, ReplicaSet or DaemonSet."""
    return {"selector": {"matchLabels": {"app": "test"}}, "template": pod, **more}


def cron(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of a CronJob."""
    return {"schedule": "@daily", "jobTemplate": {"spec": {"template": pod}}}


def good(opts: pulumi.ResourceOptions) -> None:
    """Declare what is in order, of several kinds; one image is known only after the preview."""
    kubernetes.core.v1.Pod("pod", spec=template(container())["spec"], opts=opts)
    kubernetes.apps.v1.Deployment("d", spec=workload(template(container(IMAGES["offline"]))), opts=opts)
    kubernetes.apps.v1.DaemonSet("ds", spec=workload(template(container(), container())), opts=opts)
    kubernetes.batch.v1.CronJob("cronjob", spec=cron(template(container())), opts=opts)
    for name in GOOD_IMAGES:
        one = container(IMAGES.get(name, IMAGES["signed"]))
        kubernetes.core.v1.Pod(f"good-{name}", spec=template(one)["spec"], opts=opts)
    kubernetes.core.v1.ConfigMap("configmap", data={"image": "unsigned:latest"}, opts=opts)
    later = pulumi.Output.from_input(UNKNOWN)
    kubernetes.core.v1.Pod("later", spec=template(container(later))["spec"], opts=opts)


def late(opts: pulumi.ResourceOptions) -> None:
    """Declare an image that preview cannot know and that turns out to be unsigned."""
    image = pulumi.Output.from_input(UNKNOWN if pulumi.runtime.is_dry_run() else IMAGES["unsigned"])
    kubernetes.core.v1.Pod("late", spec=template(container(image))["spec"], opts=opts)


def bad(opts: pulumi.ResourceOptions) -> None:
    """Declare one resource for each thing the pack refuses; its name says which."""
    for name, image in IMAGES.items():
        if name not in GOOD_IMAGES:
            kubernetes.core.v1.Pod(f"image-{name}", spec=template(container(image))["spec"], opts=opts)
    unsigned = container(IMAGES["unsigned"])
    kubernetes.core.v1.Pod("image-init", spec=template(container(), unsigned)["spec"], opts=opts)
    for name, changes in BAD_RESOURCES.items():
        pod = template(container(changes=changes))
        kubernetes.apps.v1.Deployment(name, spec=workload(pod), opts=opts)
    bare = {"name": "bare", "image": IMAGES["signed"]}
    pod = template(bare)
    kubernetes.batch.v1.Job("bare-job", spec={"template": pod}, opts=opts)
    kubernetes.batch.v1.CronJob("bare-cronjob", spec=cron(pod), opts=opts)
    kubernetes.apps.v1.ReplicaSet("bare-replicaset", spec=workload(pod), opts=opts)
    kubernetes.apps.v1.StatefulSet("bare-statefulset", spec=workload(pod, serviceName="s"), opts=opts)
    kubernetes.apps.v1.DaemonSet("bare-daemonset", spec=workload(template(container(), bare)), opts=opts)


def given(opts: pulumi.ResourceOptions) -> None:
    """Declare the resources of the file that RESOURCES names: type, name and inputs of each."""
    for one in json.loads(Path(os.environ["RESOURCES"]).read_text(encoding="utf-8")):
        if one["type"].startswith("edge:"):
            pulumi.ComponentResource(one["type"], one["name"], one["inputs"])
        else:
            own = opts if one["type"].startswith("kubernetes:") else None
            pulumi.CustomResource(one["type"], one["name"], one["inputs"], own)


def rendered(opts: pulumi.ResourceOptions) -> None:
    """Declare pods without limits in other things: a custom resource, a group of manifests, a chart."""
    bare = {"containers": [{"name": "bare", "image": IMAGES["signed"]}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "in-group"}, "spec": bare}
    kubernetes.apiextensions.CustomResource(
        "in-custom-resource",
        api_version="serving.example.com/v1",
        kind="Model",
        spec={"predictor": {"spec": bare}},
        opts=opts,
    )
    kubernetes.yaml.v2.ConfigGroup("group", objs=[pod], opts=opts)
    chart = Path("chart")
    (chart / "templates").mkdir(parents=True, exist_ok=True)
    about = {"apiVersion": "v2", "name": "app", "version": "1.0.0"}
    (chart / "Chart.yaml").write_text(json.dumps(about))
    manifest = json.dumps(pod | {"metadata": {"name": "in-chart-{{ .Values.suffix }}"}})
    (chart / "templates" / "pod.yaml").write_text(manifest)
    kubernetes.helm.v4.Chart("chart", chart=str(chart), values={"suffix": "a"}, opts=opts)


DECLARE: dict[str, Callable[[pulumi.ResourceOptions], None]] = {
    "good": good,
    "late": late,
    "bad": bad,
    "given": given,
    "rendered": rendered,
}

if __name__ == "__main__":
    # Rendering to files needs no cluster.
    files = kubernetes.Provider("files", render_yaml_to_directory="rendered")
    DECLARE[pulumi.get_stack()](pulumi.ResourceOptions(provider=files))
