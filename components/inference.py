"""InferenceService: a model served by pods under the wasm RuntimeClass, with its Service and guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components.gpu import gpu_environment
from components.nvidia import RESOURCE as GPU
from components.outputs import known_name
from policies.limits import MODEL_MEMORY


@dataclass(frozen=True)
class Autoscaling:
    """Replicas follow CPU use.

    Args:
        min_replicas: never fewer.
        max_replicas: never more.
        cpu_percent: the use, in percent of the CPU request, that is aimed at.
    """

    min_replicas: int
    max_replicas: int
    cpu_percent: int = 70


@dataclass(frozen=True)
class InferenceServiceArgs:
    """What is served and how.

    Args:
        image: reference by digest.
        namespace: an existing namespace.
        deployment_name: the Deployment's name.
        service_name: the Service's name, and that of what belongs to it; empty: the component's.
        runtime_class: RuntimeClass of the pods.
        replicas: pods; left to the autoscaler where there is one.
        port: TCP port of the server in the pod and of the Service.
        service_type: LoadBalancer, NodePort or ClusterIP.
        external_traffic_policy: Cluster, or Local: a node sends only to its own pods, cut off or not.
        unreachable_seconds: how long the pods of a node that does not answer are waited for, in s; None: for
            ever. kubernetes.io, "Taint based Evictions".
        requests: resource requests (Kubernetes quantities).
        limits: resource limits.
        gpus: NVIDIA GPUs of each pod, added to requests and limits alike; the server's environment says so.
        env: environment of the server.
        command: replaces the image's entrypoint; empty: the image's own.
        autoscaling: None: `replicas` stays.
        ready_path: HTTP path of the readiness probe.
        live_path: HTTP path of the liveness probe.
        model_memory: what the model needs, a Kubernetes quantity; an annotation of the pod, which policies
            compare with its limit.
        after: what must be done first: the image on the nodes.
    """

    image: pulumi.Input[str]
    namespace: pulumi.Input[str]
    deployment_name: str
    runtime_class: pulumi.Input[str]
    service_name: str = ""
    replicas: int = 1
    port: int = 8080
    service_type: str = "LoadBalancer"
    external_traffic_policy: str = "Cluster"
    unreachable_seconds: int | None = 300
    requests: Mapping[str, str] = field(default_factory=lambda: {"cpu": "500m", "memory": "512Mi"})
    limits: Mapping[str, str] = field(default_factory=lambda: {"cpu": "1", "memory": "1Gi"})
    gpus: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    autoscaling: Autoscaling | None = None
    ready_path: str = "/v2/health/ready"
    live_path: str = "/v2/health/live"
    model_memory: str | None = None
    after: Sequence[pulumi.Resource] = ()


class InferenceService(pulumi.ComponentResource):
    """Deployment, Service, ServiceAccount and NetworkPolicy; HPA and disruption budget where they apply.

    Outputs:
        url: where the Service answers from outside the cluster; inside it for a ClusterIP or NodePort.
    """

    url: pulumi.Output[str]

    def __init__(
        self, name: str, args: InferenceServiceArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("edge:inference:InferenceService", name, None, opts)
        self._name = name
        self._args = args
        self._service = args.service_name or name
        self._selector = {
            "app.kubernetes.io/name": self._service,
            "app.kubernetes.io/instance": args.deployment_name,
        }
        self._labels = self._selector | {
            "app.kubernetes.io/component": "inference",
            "app.kubernetes.io/managed-by": "pulumi",
        }
        # Pulumi hands the provider down to children, but not this option.
        deleted_with = opts.deleted_with if opts else None
        self._opts = pulumi.ResourceOptions(
            parent=self, depends_on=list(args.after), deleted_with=deleted_with
        )
        account = k8s.core.v1.ServiceAccount(
            name,
            metadata=self._metadata(self._service),
            automount_service_account_token=False,
            opts=self._opts,
        )
        self._guards()
        options = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts("5m", "5m", "3m"))
        deployment = k8s.apps.v1.Deployment(
            name,
            metadata=self._metadata(args.deployment_name),
            spec=self._deployment_spec(known_name(self._service, account)),
            opts=pulumi.ResourceOptions.merge(self._opts, options),
        )
        scaled = self._scale(deployment)
        self.url = self._expose(scaled)
        self.register_outputs({"url": self.url})

    def _metadata(self, name: str) -> Any:
        return {"name": name, "namespace": self._args.namespace, "labels": self._labels}

    def _deployment_spec(self, account: pulumi.Input[str]) -> Any:
        args = self._args
        metadata: dict[str, Any] = {"labels": self._labels}
        if args.model_memory:
            metadata["annotations"] = {MODEL_MEMORY: args.model_memory}
        return {
            "selector": {"match_labels": self._selector},
            "template": {
                "metadata": metadata,
                "spec": {
                    "tolerations": self._tolerations() or None,
                    "runtime_class_name": args.runtime_class,
                    "service_account_name": account,
                    "automount_service_account_token": False,
                    "enable_service_links": False,
                    "termination_grace_period_seconds": 10,
                    "security_context": {
                        "run_as_non_root": True,
                        "run_as_user": 65532,
                        "run_as_group": 65532,
                        "seccomp_profile": {"type": "RuntimeDefault"},
                    },
                    "containers": [self._container()],
                    "topology_spread_constraints": [
                        {
                            "max_skew": 1,
                            "topology_key": "kubernetes.io/hostname",
                            "when_unsatisfiable": "ScheduleAnyway",
                            "label_selector": {"match_labels": self._selector},
                        }
                    ],
                },
            },
        }

    def _tolerations(self) -> list[dict[str, Any]]:
        """Kubernetes itself adds those for a node that is lost, where there are none, with 300 s."""
        args = self._args
        # Nodes whose GPUs are kept for pods that ask for one have this taint.
        found: list[dict[str, Any]] = (
            [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}] if args.gpus else []
        )
        if args.unreachable_seconds != 300:
            seconds = {"toleration_seconds": args.unreachable_seconds}
            found += [
                {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute"}
                | ({} if args.unreachable_seconds is None else seconds)
                for taint in ("not-ready", "unreachable")
            ]
        return found

    def _container(self) -> dict[str, Any]:
        args = self._args
        gpus = {GPU: str(args.gpus)} if args.gpus else {}
        env = gpu_environment(args.env) if args.gpus else args.env
        container: dict[str, Any] = {
            "name": "server",
            "image": args.image,
            "image_pull_policy": "IfNotPresent",
            "ports": [{"name": "http", "container_port": args.port}],
            "env": [{"name": key, "value": value} for key, value in sorted(env.items())],
            "resources": {"requests": {**args.requests, **gpus}, "limits": {**args.limits, **gpus}},
            "startup_probe": _probe(args.ready_path, 1, 60),
            "readiness_probe": _probe(args.ready_path, 5, 3),
            "liveness_probe": _probe(args.live_path, 10, 3),
            "security_context": {
                "allow_privilege_escalation": False,
                "read_only_root_filesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        if args.command:
            container["command"] = list(args.command)
        return container

    def _guards(self) -> None:
        args = self._args
        k8s.networking.v1.NetworkPolicy(
            self._name,
            metadata=self._metadata(self._service),
            spec={
                "pod_selector": {"match_labels": self._selector},
                "policy_types": ["Ingress"],
                "ingress": [{"ports": [{"port": args.port, "protocol": "TCP"}]}],
            },
            opts=self._opts,
        )
        if (args.autoscaling.min_replicas if args.autoscaling else args.replicas) >= 2:
            k8s.policy.v1.PodDisruptionBudget(
                self._name,
                metadata=self._metadata(self._service),
                spec={"max_unavailable": 1, "selector": {"match_labels": self._selector}},
                opts=self._opts,
            )

    def _scale(self, deployment: k8s.apps.v1.Deployment) -> pulumi.Resource:
        """The number of pods, apart from the Deployment, so that an autoscaler can have it and give it back.

        A field that its only owner leaves out falls back to 1 pod at once (kubernetes.io: "Migrating
        Deployments and StatefulSets to horizontal autoscaling"); a patch that is retained leaves it as it is.
        """
        args = self._args
        if args.autoscaling:
            return self._autoscaler(args.autoscaling, deployment)
        return k8s.apps.v1.DeploymentPatch(
            f"{self._name}-replicas",
            metadata={
                "name": known_name(args.deployment_name, deployment),
                "namespace": args.namespace,
                "annotations": {"pulumi.com/patchForce": "true"},
            },
            spec={"replicas": args.replicas},
            opts=pulumi.ResourceOptions.merge(self._opts, pulumi.ResourceOptions(retain_on_delete=True)),
        )

    def _autoscaler(self, wanted: Autoscaling, deployment: k8s.apps.v1.Deployment) -> pulumi.Resource:
        metric = {
            "type": "Resource",
            "resource": {
                "name": "cpu",
                "target": {"type": "Utilization", "average_utilization": wanted.cpu_percent},
            },
        }
        name = known_name(self._args.deployment_name, deployment)
        target = {"api_version": "apps/v1", "kind": "Deployment", "name": name}
        return k8s.autoscaling.v2.HorizontalPodAutoscaler(
            self._name,
            metadata=self._metadata(self._service),
            spec={
                "scale_target_ref": target,
                "min_replicas": wanted.min_replicas,
                "max_replicas": wanted.max_replicas,
                "metrics": [metric],
            },
            opts=self._opts,
        )

    def _expose(self, scaled: pulumi.Resource) -> pulumi.Output[str]:
        args = self._args
        local = args.external_traffic_policy == "Local"
        service = k8s.core.v1.Service(
            self._name,
            metadata=self._metadata(self._service),
            spec={
                "type": args.service_type,
                "external_traffic_policy": "Local" if local else None,
                "selector": self._selector,
                "ports": [{"name": "http", "port": args.port, "target_port": "http"}],
            },
            opts=pulumi.ResourceOptions.merge(self._opts, pulumi.ResourceOptions(depends_on=[scaled])),
        )
        if args.service_type == "LoadBalancer":
            return service.status.apply(
                lambda status: (
                    f"http://{status.load_balancer.ingress[0].ip}:{args.port}"
                    if status and status.load_balancer and status.load_balancer.ingress
                    else ""
                )
            )
        return pulumi.Output.format("http://{0}:{1}", service.spec.cluster_ip, args.port)


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "http_get": {"path": path, "port": "http"},
        "period_seconds": period,
        "failure_threshold": failures,
        "timeout_seconds": 2,
    }
