"""Generated pods: the pack never crashes, and its verdict on limits is an independent oracle's."""

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from policies import config, limits
from policies.catalog import RULES
from policies.rules import Resource, Rule, StackRule
from policies.values import Unknown, edited

CEILINGS = {"cpu": Decimal(4), "memory": Decimal(4 * 2**30)}
# What the Kubernetes client reads as the API server does; tests of quantities cover where the two differ.
QUANTITIES = st.sampled_from(
    [
        "1",
        "500m",
        "0.5",
        "1e3",
        "1E3",
        "5e-1",
        "1Gi",
        "128Mi",
        "0",
        "-1",
        "100k",
        "5G",
        "4",
        "4Gi",
        "4294967297",
        "1GB",
        "abc",
        "",
        "--1",
        "1.5.2",
        "Mi",
        1,
        0,
        2,
        0.25,
        8,
    ]
)
RESOURCES = st.builds(
    dict.__or__,
    st.sampled_from([{}, *[{"cpu": "1", "memory": "1Gi"}] * 4]),  # or hardly any container would be in order
    st.dictionaries(
        st.sampled_from(["cpu", "memory", "nvidia.com/gpu", "ephemeral-storage"]), QUANTITIES, max_size=2
    ),
)
CONTAINER = st.fixed_dictionaries(
    {"name": st.text(max_size=4)},
    optional={
        "resources": st.fixed_dictionaries({}, optional={"requests": RESOURCES, "limits": RESOURCES}),
        "restartPolicy": st.just("Always"),
    },
)
POD = st.fixed_dictionaries(
    {"containers": st.lists(CONTAINER, max_size=3)},
    optional={"initContainers": st.lists(CONTAINER, max_size=2)},
)


def amount(value: Any) -> Decimal | None:
    """The Kubernetes client's reading, or None."""
    try:
        return Decimal(parse_quantity(value))
    except (ValueError, ArithmeticError):
        return None


def is_bounded(container: dict[str, Any]) -> bool:
    """The oracle: written from the issue's words, without the pack's code."""
    resources = container.get("resources", {})
    requests, most = resources.get("requests", {}), resources.get("limits", {})
    read = [amount(value) for side in (requests, most) for value in side.values()]
    if any(value is None or value < 0 for value in read):
        return False
    for name in ("cpu", "memory"):
        low, high = amount(requests.get(name, "")), amount(most.get(name, ""))
        if low is None or high is None or not 0 < low <= high <= CEILINGS[name]:
            return False
        if name == "memory" and (low % 1 or high % 1):
            return False
    devices = [name for name in {*requests, *most} if "/" in name]
    for name in devices:
        high = amount(most.get(name, ""))
        if high is None or high % 1 or amount(requests.get(name, most[name])) != high:
            return False
    return True


def _deployment(pod: dict[str, Any]) -> Resource:
    return Resource("kubernetes:apps/v1:Deployment", {"spec": {"template": {"spec": pod}}}, "d")


@settings(max_examples=500)
@given(POD)
def test_limits_agree_with_the_oracle(pod: dict[str, Any]) -> None:
    bounded = all(is_bounded(each) for each in [*pod["containers"], *pod.get("initContainers", [])])
    own = limits.LimitSettings(maxCpu="4", maxMemory="4Gi")
    findings = list(limits.check(_deployment(pod), own))
    assert bounded == (not findings), findings


@settings(max_examples=200)
@given(POD)
def test_remediation_never_crashes_nor_makes_a_pod_worse(pod: dict[str, Any]) -> None:
    before = _deployment(pod)
    for rule in RULES:
        if not isinstance(rule, Rule) or rule.remediate is None:
            continue
        own = config.load(rule.id, rule.settings, "")
        after = Resource(before.type, edited(before.inputs, list(rule.remediate(before, own))), before.name)
        assert len(list(rule.check(after, own))) <= len(list(rule.check(before, own)))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(Unknown()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "spec",
                    "template",
                    "metadata",
                    "labels",
                    "containers",
                    "initContainers",
                    "image",
                    "resources",
                    "limits",
                    "requests",
                    "cpu",
                    "memory",
                    "securityContext",
                    "capabilities",
                    "add",
                    "volumes",
                    "hostPath",
                    "path",
                    "livenessProbe",
                    "ports",
                    "containerPort",
                    "replicas",
                    "selector",
                    "type",
                    "matchLabels",
                    "matchExpressions",
                    "connection",
                    "hostKey",
                    "create",
                    "environment",
                    "proxy",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)
TYPES = st.sampled_from(
    [
        "kubernetes:apps/v1:Deployment",
        "kubernetes:core/v1:Pod",
        "kubernetes:core/v1:PodList",
        "kubernetes:core/v1:Service",
        "kubernetes:core/v1:Namespace",
        "kubernetes:serving.example.com/v1:Model",
        "kubernetes:policy/v1:PodDisruptionBudget",
        "kubernetes:autoscaling/v2:HorizontalPodAutoscaler",
        "command:remote:Command",
        "command:local:Command",
        "edge:artifact:Artifact",
        "aws:s3/bucket:Bucket",
    ]
)


@settings(max_examples=500)
@given(TYPES, st.dictionaries(st.sampled_from(["spec", "metadata", "connection", "create"]), ANYTHING))
def test_no_rule_crashes(kind: str, inputs: dict[str, Any]) -> None:
    """Whatever an object holds, each rule has a verdict, and so has its remediation."""
    resource = Resource(kind, inputs, "r")
    for rule in RULES:
        if rule.id == "signed-images":
            continue  # asks registries; its reading of images has tests of its own
        own = config.load(rule.id, rule.settings, "")
        if isinstance(rule, StackRule):
            list(rule.check([resource], own))
        elif rule.applies(kind):
            list(rule.check(resource, own))
            if rule.remediate:
                edited(inputs, list(rule.remediate(resource, own)))
