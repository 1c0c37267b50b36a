"""The Pulumi program that the policy benchmark previews: COUNT resources, five kinds, all in order."""

import json
import os

import pulumi
import pulumi_kubernetes as k8s

PROBE = {"http_get": {"path": "/v2/health/ready", "port": 8080}}
SPEC = {
    "runtime_class_name": "wasm",
    "automount_service_account_token": False,
    "security_context": {"run_as_non_root": True},
    "containers": [
        {
            "name": "server",
            "image": os.environ["IMAGE"],
            "ports": [{"container_port": 8080}],
            "env": [{"name": "MODEL_NAME", "value": "digits"}],
            "resources": {
                "requests": {"cpu": "100m", "memory": "96Mi"},
                "limits": {"cpu": "1", "memory": "256Mi"},
            },
            "liveness_probe": PROBE,
            "readiness_probe": PROBE,
            "security_context": {"allow_privilege_escalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


def service(name: str, opts: pulumi.ResourceOptions) -> None:
    """One service: five resources."""
    labels, metadata = {"app": name}, {"name": name, "namespace": "inference"}
    k8s.core.v1.ServiceAccount(name, metadata=metadata, automount_service_account_token=False, opts=opts)
    k8s.core.v1.ConfigMap(name, metadata=metadata, data={"settings": json.dumps(labels)}, opts=opts)
    template = {"metadata": {"labels": labels}, "spec": SPEC}
    spec = {"replicas": 2, "selector": {"match_labels": labels}, "template": template}
    k8s.apps.v1.Deployment(name, metadata=metadata, spec=spec, opts=opts)
    ports = [{"port": 8080}]
    k8s.core.v1.Service(name, metadata=metadata, spec={"selector": labels, "ports": ports}, opts=opts)
    budget = {"max_unavailable": 1, "selector": {"match_labels": labels}}
    k8s.policy.v1.PodDisruptionBudget(name, metadata=metadata, spec=budget, opts=opts)


cluster = k8s.Provider("cluster", kubeconfig=os.environ["KUBECONFIG"])
for number in range(int(os.environ["COUNT"]) // 5):
    service(f"service-{number}", pulumi.ResourceOptions(provider=cluster))
