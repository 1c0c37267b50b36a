"""AdmissionPolicies: the policy pack's rules again, inside the cluster, for what comes past Pulumi."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s


@dataclass(frozen=True)
class AdmissionPoliciesArgs:
    """What the API server enforces.

    Args:
        manifests: ValidatingAdmissionPolicies and bindings, as policies.admission.manifests() makes them.
        prefix: what resources' names begin with, before the objects': a program may have several clusters.
    """

    manifests: Sequence[Mapping[str, Any]]
    prefix: str = ""


class AdmissionPolicies(pulumi.ComponentResource):
    """Policies and bindings of admissionregistration.k8s.io/v1 (GA in Kubernetes 1.30).

    Outputs:
        names: the policies' names, known once they are bound.

    Raises:
        ValueError: a manifest of another kind.
    """

    names: pulumi.Output[list[str]]

    def __init__(
        self, name: str, args: AdmissionPoliciesArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("edge:admission:AdmissionPolicies", name, None, opts)
        registration = k8s.admissionregistration.v1
        deleted_with = opts.deleted_with if opts else None
        self.bindings: list[pulumi.Resource] = []
        policies: dict[str, pulumi.Resource] = {}
        names = []
        for manifest in args.manifests:
            kind, metadata, spec = (manifest[key] for key in ("kind", "metadata", "spec"))
            child = pulumi.ResourceOptions(parent=self, deleted_with=deleted_with)
            if kind == "ValidatingAdmissionPolicy":
                policies[metadata["name"]] = registration.ValidatingAdmissionPolicy(
                    f"{args.prefix}{metadata['name']}", metadata=metadata, spec=spec, opts=child
                )
            elif kind == "ValidatingAdmissionPolicyBinding":
                child.depends_on = [policies[spec["policyName"]]]
                binding = registration.ValidatingAdmissionPolicyBinding(
                    f"{args.prefix}{metadata['name']}", metadata=metadata, spec=spec, opts=child
                )
                self.bindings.append(binding)
                names.append(binding.spec.policy_name)
            else:
                raise ValueError(f"admission {name}: {kind} is neither a policy nor a binding")
        self.names = pulumi.Output.all(*names)
        self.register_outputs({"names": self.names})
