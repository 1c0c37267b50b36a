"""The site of made-up GPUs and its cluster, asked by the Kubernetes client."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from kubernetes import client, config, utils

from components.nvidia import RESOURCE
from tests.integration.equipment import Image
from tests.integration.local_site import CHECKOUT, STACK, LocalSite

NAMESPACE = "default"
PATIENCE = 60
"""Seconds that the cluster has for a change."""


@dataclass
class GpuSite:
    """Hosts with made-up GPUs.

    Args:
        site: the hosts and the stack.
        images: the test equipment.
        gpus: whether each host has GPUs.
    """

    site: LocalSite
    images: dict[str, Image]
    gpus: dict[str, bool] = field(default_factory=dict)

    def prepare(self) -> None:
        """Puts the program of made-up GPUs into the site's project."""
        (self.site.project / "__main__.py").unlink()
        shutil.copy(CHECKOUT / "tests/integration/gpu_site/__main__.py", self.site.project)

    def up(self, replicas: int = 1) -> str:
        """Settles the stack with this many pods on a GPU; returns what `pulumi up` printed."""
        self._configure(replicas)
        done = self.site.pulumi("up", "--yes", "--skip-preview")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _configure(self, replicas: int) -> None:
        site = self.site
        file = site.project / "config" / f"Pulumi.{STACK}.yaml"
        hosts = [
            {
                "name": name,
                "role": role,
                "address": f"{site.subnet}.{number}",
                "hostKeyFile": str(site.folder / f"hosts/{name}/ssh_host_ed25519_key.pub"),
                "gpu": self.gpus[name],
            }
            for name, role, number in zip(site.names, ("server", "agent"), (11, 12), strict=True)
        ]
        images = {
            name: {"reference": each.reference, "archive": str(each.archive), "sha256": each.sha256}
            for name, each in self.images.items()
        }
        values: dict[str, Any] = {
            "gpu:hosts": hosts,
            "gpu:privateKeyFile": str(site.folder / "hosts/id_ed25519"),
            "gpu:artifacts": str(CHECKOUT / ".artifacts"),
            "gpu:images": images,
            "gpu:replicas": replicas,
        }
        salt = yaml.safe_load(file.read_text())["encryptionsalt"]
        file.write_text(yaml.safe_dump({"encryptionsalt": salt, "config": values}))


class GpuCluster:
    """Pods that ask for GPUs."""

    def __init__(self, site: LocalSite) -> None:
        server = site.names[0]
        found = yaml.safe_load(site.ssh(server, "cat /etc/rancher/k3s/k3s.yaml"))
        found["clusters"][0]["cluster"]["server"] = f"https://{site.subnet}.11:6443"
        self.core = client.CoreV1Api(config.new_client_from_config_dict(found))

    def create(self, manifest: dict[str, Any], **options: Any) -> str | None:
        """Creates an object and returns why not; None when it is taken."""
        try:
            utils.create_from_dict(self.core.api_client, copy.deepcopy(manifest), **options)
        except utils.FailToCreateError as error:
            return str(json.loads(error.api_exceptions[0].body)["message"])
        return None

    def allocatable(self, node: str) -> str:
        """How many GPUs or shares the scheduler may give away on a node."""
        return str(self.core.read_node(node).status.allocatable.get(RESOURCE, "0"))

    def run(self, name: str, image: Image, runtime_class: str | None = None, node: str | None = None) -> None:
        """Starts a pod of the witness that asks for one GPU."""
        gpu = {RESOURCE: "1"}
        container = {
            "name": "see",
            "image": image.reference,
            "imagePullPolicy": "Never",
            "env": [{"name": "GPU_ENABLED", "value": "true"}],
            "resources": {
                "requests": {"cpu": "50m", "memory": "64Mi"} | gpu,
                "limits": {"cpu": "1", "memory": "128Mi"} | gpu,
            },
        }
        spec = {
            "containers": [container],
            "runtimeClassName": runtime_class,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "nodeSelector": {"kubernetes.io/hostname": node} if node else None,
        }
        self.core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": name}, "spec": spec})

    def stop(self, *names: str) -> None:
        """Takes pods away and waits until they are gone."""
        for name in names:
            self.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
        self.until(lambda: not set(names) & set(self.phases()), lambda: f"still there: {self.phases()}")

    def phases(self) -> dict[str, str]:
        """The phase of each pod."""
        return {pod.metadata.name: pod.status.phase for pod in self.core.list_namespaced_pod(NAMESPACE).items}

    def node(self, name: str) -> str:
        """Where a pod runs."""
        return str(self.core.read_namespaced_pod(name, NAMESPACE).spec.node_name)

    def running(self, *names: str) -> None:
        """Waits until pods run."""
        self.until(
            lambda: {self.phases().get(name) for name in names} == {"Running"},
            lambda: f"{self.phases()}\n{self.events()}",
        )

    def refusal(self, name: str) -> str:
        """Waits for the scheduler's reason why a pod is pending."""

        def reason() -> str:
            conditions = self.core.read_namespaced_pod(name, NAMESPACE).status.conditions or []
            return next((each.message for each in conditions if each.reason == "Unschedulable"), "")

        self.until(lambda: bool(reason()), self.events)
        assert self.phases()[name] == "Pending"
        return reason()

    def failure(self, name: str) -> str:
        """Waits until a pod's container could not be started; returns the kubelet's event."""

        def said() -> list[str]:
            wanted = f"involvedObject.name={name},reason=Failed"
            listed = self.core.list_namespaced_event(NAMESPACE, field_selector=wanted).items
            return [each.message for each in listed]

        def refused() -> bool:
            found = self.core.read_namespaced_pod(name, NAMESPACE).status.container_statuses or []
            ends = [
                end for each in found for end in (each.state.terminated, each.last_state.terminated) if end
            ]
            assert not any(each.started for each in found)
            return any(end.reason == "StartError" for end in ends)

        self.until(lambda: refused() and bool(said()), self.events)
        return said()[0]

    def log(self, name: str) -> str:
        """What a pod's container wrote."""
        # The client would read a line as a value and write it again in Python's form.
        answer = self.core.read_namespaced_pod_log(name, NAMESPACE, _preload_content=False)
        return str(answer.data, "utf-8")

    def seen(self, name: str) -> dict[str, Any]:
        """What a pod's witness says."""
        text = ""

        def read() -> bool:
            nonlocal text
            text = self.log(name)
            return text.endswith("\n")

        self.until(read, lambda: f"{text!r}\n{self.events()}")
        result = json.loads(text.splitlines()[-1])
        assert isinstance(result, dict)
        return result

    def events(self) -> str:
        """What the cluster says of its pods, for an error's message."""
        listed = self.core.list_namespaced_event(NAMESPACE).items
        return "\n".join(f"{each.involved_object.name}: {each.reason}: {each.message}" for each in listed)

    def until(self, reached: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        """Waits for a state."""
        end = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < end, otherwise()
            time.sleep(0.3)
