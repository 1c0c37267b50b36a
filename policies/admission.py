"""The rules as policies of the cluster's API server, so that `kubectl apply` past Pulumi is refused too.

ValidatingAdmissionPolicy is GA since Kubernetes 1.30 (kubernetes.io: "Validating Admission Policy").
`python -m policies.admission --stack prod | kubectl apply -f -` puts them into a cluster without Pulumi.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from policies import cel, config
from policies.catalog import RULES
from policies.rules import Admission, AnyRule, Rule, Validation

PREFIX = "edge-inference"
EXEMPT_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")
"""Namespaces of the cluster's own parts, which state no limits."""

_GROUPS: dict[str, list[tuple[str, list[str]]]] = {
    "pods": [
        ("", ["pods", "pods/ephemeralcontainers", "podtemplates", "replicationcontrollers"]),
        ("apps", ["deployments", "statefulsets", "daemonsets", "replicasets"]),
        ("batch", ["jobs", "cronjobs"]),
    ],
    "Namespace": [("", ["namespaces"])],
    "Service": [("", ["services"])],
}
# `object.kind` is not always there; the request's is.
_TEMPLATE = (
    "request.kind.kind == 'Pod' ? object"
    " : request.kind.kind == 'PodTemplate' ? object.template"
    " : request.kind.kind == 'CronJob' ? object.spec.jobTemplate.spec.template"
    " : object.spec.template"
)
_IMAGES = (
    "variables.allContainers.map(c, has(c.image) ? c.image : '')"
    ".map(i, !i.contains('/') ? 'docker.io/library/' + i"
    " : i.split('/')[0].contains('.') || i.split('/')[0].contains(':') || i.split('/')[0] == 'localhost'"
    " ? i"
    " : 'docker.io/' + i)"
)
_VARIABLES = {
    "template": _TEMPLATE,
    "podSpec": "variables.template.spec",
    "containers": "variables.podSpec.containers"
    " + (has(variables.podSpec.initContainers) ? variables.podSpec.initContainers : [])",
    "allContainers": "variables.containers"
    " + (has(variables.podSpec.ephemeralContainers) ? variables.podSpec.ephemeralContainers : [])",
    "images": _IMAGES,
}
# What was there before the policy may be finished, labelled and deleted; a change has to be in order.
_CHANGED = {
    "pods": "request.operation == 'CREATE' || request.kind.kind == 'PodTemplate'"
    " || object.spec != oldObject.spec",
    "Namespace": f"request.operation == 'CREATE' || {cel.labels('object')} != {cel.labels('oldObject')}",
    "Service": "request.operation == 'CREATE' || object.spec.type != oldObject.spec.type",
}


def manifests(
    stack: str,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    exempt_namespaces: Sequence[str] = EXEMPT_NAMESPACES,
    rules: Sequence[AnyRule] = RULES,
) -> list[dict[str, Any]]:
    """Return a policy and its binding for every rule that CEL can decide and that a stack's settings enforce.

    A mandatory or remediated rule denies, an advisory one warns and leaves a mark in the audit log.

    Args:
        stack: the stack's name, which picks `config.<stack>.json`.
        given: settings over those of the files, in Pulumi's form.
        exempt_namespaces: namespaces in which nothing is checked.
        rules: the rules.

    Raises:
        ConfigError: the settings cannot be used.
    """
    made: list[dict[str, Any]] = []
    for rule in rules:
        own = (given or {}).get(rule.id)
        level = config.level(rule.id, stack, own)
        if not isinstance(rule, Rule) or rule.admission is None or level == "disabled":
            continue
        settings = config.load(rule.id, rule.settings, stack, own)
        made.append(_policy(rule, rule.admission(settings), settings))
        made.append(_binding(rule, level, exempt_namespaces))
    return made


def _metadata(rule: AnyRule) -> dict[str, Any]:
    return {"name": f"{PREFIX}-{rule.id}", "labels": {"app.kubernetes.io/part-of": PREFIX}}


def _policy(rule: AnyRule, admission: Admission, settings: config.Settings) -> dict[str, Any]:
    variables = dict(_VARIABLES if "pods" in admission.kinds else {}) | dict(admission.variables)
    used = _used(variables, [each.expression for each in admission.validations])
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": _metadata(rule),
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [_resources(*each) for each in _groups(admission)]},
            "matchConditions": list(_conditions(admission, settings)),
            "variables": [
                {"name": name, "expression": variables[name]} for name in variables if name in used
            ],
            "validations": [_validation(rule, each) for each in admission.validations],
        },
    }


def _groups(admission: Admission) -> Iterator[tuple[str, list[str]]]:
    for kind in admission.kinds:
        yield from _GROUPS[kind]


def _resources(group: str, resources: list[str]) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": resources,
    }


def _used(variables: Mapping[str, str], expressions: Sequence[str]) -> set[str]:
    """Names of the variables that expressions use, and those that these use."""
    used: set[str] = set()
    waiting = list(expressions)
    while waiting:
        expression = waiting.pop()
        for name, value in variables.items():
            if f"variables.{name}" in expression and name not in used:
                used.add(name)
                waiting.append(value)
    return used


def _validation(rule: AnyRule, validation: Validation) -> dict[str, str]:
    return {"expression": validation.expression, "message": f"{rule.id}: {validation.message}"}


def _conditions(admission: Admission, settings: config.Settings) -> Iterator[dict[str, str]]:
    for kind in admission.kinds:
        yield {"name": f"changed-{kind.lower()}", "expression": _CHANGED[kind]}
    for index, each in enumerate(settings.exceptions):
        if each.resource.count("/") == 2:
            yield {"name": f"exception-{index}", "expression": f"!({_excepted(each)})"}


def _excepted(exception: config.PolicyException) -> str:
    """The object itself, or one that its controller makes from it, until the exception's last day is over.

    CEL has no clock; the API server writes the time of each change into the object's managedFields.
    """
    kind, namespace, name = exception.resource.split("/")
    # Pulumi's own names end in eight hexadecimal digits, controllers add another part.
    itself = cel.text(rf"^{cel.glob(name)}(-[0-9a-f]{{8}})?$")
    owner = cel.text(rf"^{cel.glob(name)}(-[0-9a-f]{{8}})?(-[a-z0-9]+)?$")
    owned = (
        f"{cel.has('object.metadata.ownerReferences')} && object.metadata.ownerReferences.exists("
        f"o, has(o.controller) && o.controller && o.name.matches({owner}))"
    )
    last = f"{exception.expires}T23:59:59Z"
    # The request about a namespace bears that namespace's own name.
    where = "true" if kind == "Namespace" else f"request.namespace == {cel.text(namespace or 'default')}"
    return (
        f"{where} && ((request.kind.kind == {cel.text(kind)} && object.metadata.name.matches({itself}))"
        f" || ({owned}))"
        f" && {cel.has('object.metadata.managedFields')} && size(object.metadata.managedFields) > 0"
        " && object.metadata.managedFields.all(f, !has(f.time)"
        f" || timestamp(f.time) <= timestamp({cel.text(last)}))"
    )


def _binding(rule: AnyRule, level: config.Level, exempt_namespaces: Sequence[str]) -> dict[str, Any]:
    exempt = {
        "key": "kubernetes.io/metadata.name",
        "operator": "NotIn",
        "values": sorted(exempt_namespaces),
    }
    selector: dict[str, Any] = {"matchExpressions": [exempt]} if exempt_namespaces else {}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": _metadata(rule),
        "spec": {
            "policyName": f"{PREFIX}-{rule.id}",
            "validationActions": ["Warn", "Audit"] if level == "advisory" else ["Deny"],
            "matchResources": {"namespaceSelector": selector},
        },
    }


def main() -> None:
    """Print the policies as YAML."""
    parser = argparse.ArgumentParser(
        prog="python -m policies.admission",
        description="Prints the pack's rules as ValidatingAdmissionPolicies, for kubectl apply.",
        epilog="example: python -m policies.admission --stack prod | kubectl apply --server-side -f -",
    )
    parser.add_argument("--stack", default="", help="stack whose settings count: policies/config.STACK.json")
    stack = parser.parse_args().stack
    try:
        config.check_files(RULES)
        yaml.safe_dump_all(manifests(stack), sys.stdout, sort_keys=False, width=1000)
    except config.ConfigError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
