"""NamespaceIsolation: what CIS asks of namespaces: network policies, and default accounts without a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

_NAME = "kubernetes.io/metadata.name"
_BUILT_IN = ("default", "kube-node-lease", "kube-public", "kube-system")
_DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


@dataclass(frozen=True)
class NamespaceIsolationArgs:
    """Which namespace, besides Kubernetes' own.

    Args:
        namespace: of the services: nothing goes in or out of its pods but DNS and what a NetworkPolicy of
            the service itself lets in.
        prefix: what resources' names begin with: a program may have several clusters.
    """

    namespace: pulumi.Input[str]
    prefix: str = ""


class NamespaceIsolation(pulumi.ComponentResource):
    """NetworkPolicies as in K3s' hardening guide (docs.k3s.io/security/hardening-guide), CIS 5.1.5 and 5.3.2.

    Pods of Kubernetes' own namespaces are reached from within their namespace alone, but for CoreDNS,
    metrics-server and the pods of K3s' load balancer. Default service accounts there hand out no token.
    """

    def __init__(
        self, name: str, args: NamespaceIsolationArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("edge:isolation:NamespaceIsolation", name, None, opts)
        self._prefix = args.prefix
        self._opts = pulumi.ResourceOptions(parent=self, deleted_with=opts.deleted_with if opts else None)
        for namespace in _BUILT_IN:
            own = {"namespace_selector": {"match_labels": {_NAME: namespace}}}
            self._policy("intra-namespace", namespace, {}, [{"from": [own]}])
            k8s.core.v1.ServiceAccountPatch(
                f"{args.prefix}{namespace}-default",
                metadata={"name": "default", "namespace": namespace},
                automount_service_account_token=False,
                opts=self._opts,
            )
        dns = {"match_labels": {"k8s-app": "kube-dns"}}
        self._policy("dns", "kube-system", dns, [{"ports": _DNS}])
        metrics = {"match_labels": {"k8s-app": "metrics-server"}}
        self._policy("metrics-server", "kube-system", metrics, [{}])
        balancer = {"key": "svccontroller.k3s.cattle.io/svcname", "operator": "Exists"}
        self._policy("load-balancer", "kube-system", {"match_expressions": [balancer]}, [{}])
        servers = {
            "namespace_selector": {"match_labels": {_NAME: "kube-system"}},
            "pod_selector": dns,
        }
        self._policy("default-deny", args.namespace, {}, [], [{"to": [servers], "ports": _DNS}])
        self.register_outputs({})

    def _policy(
        self,
        name: str,
        namespace: pulumi.Input[str],
        pods: Mapping[str, Any],
        ingress: list[dict[str, Any]],
        egress: list[dict[str, Any]] | None = None,
    ) -> None:
        place = namespace if isinstance(namespace, str) else "services"
        spec = {"pod_selector": pods, "policy_types": ["Ingress"], "ingress": ingress}
        if egress is not None:
            spec |= {"policy_types": ["Ingress", "Egress"], "egress": egress}
        k8s.networking.v1.NetworkPolicy(
            f"{self._prefix}{place}-{name}",
            metadata={
                "name": name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "pulumi"},
            },
            spec=spec,
            opts=self._opts,
        )
