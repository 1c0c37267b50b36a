"""Rule `high-availability`: what serves survives the loss of one pod."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import Field

from policies.config import Settings
from policies.rules import Finding, Resource, StackRule, not_yet_known
from policies.values import Unknown

_KINDS = ("Deployment", "StatefulSet")
Key: TypeAlias = tuple[str, str, str]


class AvailabilitySettings(Settings):
    """How many pods are enough."""

    minReplicas: int = Field(default=2, ge=1, description="Fewest pods of a Deployment or StatefulSet.")


@dataclass
class _Cluster:
    """What the objects of a cluster say together: replicas are stated in three kinds of them."""

    workloads: dict[Key, Resource] = field(default_factory=dict)
    stated: dict[Key, Any] = field(default_factory=dict)
    scaled: dict[Key, Any] = field(default_factory=dict)
    budgets: list[tuple[str, Any]] = field(default_factory=list)
    # What preview cannot place: workloads; kinds whose number of pods something states; a budget.
    nameless: list[Resource] = field(default_factory=list)
    stated_somewhere: set[str] = field(default_factory=set)
    budget_somewhere: bool = False

    def add(self, resource: Resource) -> None:
        """Take in one resource."""
        spec = resource.inputs.get("spec")
        if not resource.is_kubernetes or not isinstance(spec, Mapping):
            return
        if any(isinstance(value, Unknown) for value in _whereabouts(resource, spec)):
            self._add_unplaced(resource)
            return
        namespace = _text(resource.metadata("namespace"))
        key = (namespace, resource.kind, _text(resource.metadata("name")) or resource.name)
        if resource.kind in _KINDS:
            if not resource.type.endswith("Patch"):
                self.workloads[key] = resource
            if spec.get("replicas") is not None:
                self.stated[key] = spec["replicas"]
        elif resource.kind == "HorizontalPodAutoscaler":
            target = spec.get("scaleTargetRef")
            if isinstance(target, Mapping):
                scaled = (namespace, _text(target.get("kind")), _text(target.get("name")))
                self.scaled[scaled] = spec.get("minReplicas", 1)
        elif resource.kind == "PodDisruptionBudget":
            self.budgets.append((namespace, spec.get("selector")))

    def _add_unplaced(self, resource: Resource) -> None:
        if resource.kind == "PodDisruptionBudget":
            self.budget_somewhere = True
        elif resource.kind == "HorizontalPodAutoscaler":
            self.stated_somewhere |= {*_KINDS}
        elif resource.kind in _KINDS and resource.type.endswith("Patch"):
            self.stated_somewhere.add(resource.kind)
        elif resource.kind in _KINDS:
            self.nameless.append(resource)

    def replicas(self, key: Key) -> Any:
        """Fewest pods of a workload; Kubernetes makes one where nothing is said."""
        unsaid = Unknown() if key[1] in self.stated_somewhere else 1
        return self.scaled.get(key, self.stated.get(key, unsaid))

    def has_budget(self, namespace: str, labels: Any) -> bool | None:
        """Whether a budget covers pods with these labels; None when that is not known yet."""
        answers = [_selects(selector, labels) for where, selector in self.budgets if where == namespace]
        if self.budget_somewhere:
            answers.append(None)
        return True if True in answers else None if None in answers else False


def check(
    resources: Sequence[Resource], settings: AvailabilitySettings
) -> Iterator[tuple[Resource, Finding]]:
    """A Deployment or StatefulSet has two pods or more, and a PodDisruptionBudget keeps one.

    The number of pods is the autoscaler's minimum where one scales the workload, else what a patch or the
    workload itself states. The budget must select the pods' labels, in the same namespace.

    Good:
        ```yaml
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: app, namespace: default}
        spec:
          replicas: 2
          selector: {matchLabels: {app: app}}
          template:
            metadata: {labels: {app: app}}
            spec:
              containers: [{name: app, image: edge.local/app}]
        ---
        apiVersion: policy/v1
        kind: PodDisruptionBudget
        metadata: {name: app, namespace: default}
        spec: {maxUnavailable: 1, selector: {matchLabels: {app: app}}}
        ```

    Bad:
        ```yaml
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: app, namespace: default}
        spec:
          replicas: 2
          selector: {matchLabels: {app: app}}
          template:
            metadata: {labels: {app: app}}
            spec:
              containers: [{name: app, image: edge.local/app}]
        ```
    """
    clusters: dict[str, _Cluster] = {}
    for resource in resources:
        clusters.setdefault(resource.provider, _Cluster()).add(resource)
    for cluster in clusters.values():
        yield from _check(cluster, settings)


def _check(cluster: _Cluster, settings: AvailabilitySettings) -> Iterator[tuple[Resource, Finding]]:
    for resource in cluster.nameless:
        yield resource, not_yet_known("metadata")
    for key, resource in cluster.workloads.items():
        replicas = cluster.replicas(key)
        if isinstance(replicas, Unknown):
            yield resource, not_yet_known("spec.replicas")
        elif not isinstance(replicas, int | float) or replicas < settings.minReplicas:
            fix = f"set replicas, or the autoscaler's minReplicas, to {settings.minReplicas} or more"
            yield (
                resource,
                Finding("spec.replicas", f"is {replicas}: the loss of one pod ends the service", fix),
            )
        covered = cluster.has_budget(key[0], _labels(resource))
        if covered is None:
            yield resource, not_yet_known("PodDisruptionBudget")
        elif not covered:
            fix = "add a PodDisruptionBudget with maxUnavailable: 1 that selects the pods' labels"
            yield resource, Finding("spec.template.metadata.labels", "are in no PodDisruptionBudget", fix)


def _whereabouts(resource: Resource, spec: Mapping[str, Any]) -> Iterator[Any]:
    yield from (resource.metadata("namespace"), resource.metadata("name"))
    if resource.kind == "HorizontalPodAutoscaler":
        target = spec.get("scaleTargetRef")
        yield target
        if isinstance(target, Mapping):
            yield from (target.get("kind"), target.get("name"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _labels(resource: Resource) -> Any:
    value: Any = resource.inputs
    for step in ("spec", "template", "metadata", "labels"):
        if isinstance(value, Unknown):
            return value
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _selects(selector: Any, labels: Any) -> bool | None:
    """Whether a selector (kubernetes.io: "Labels and Selectors") takes labels; None: not known yet."""
    if isinstance(selector, Unknown) or isinstance(labels, Unknown):
        return None
    if not isinstance(selector, Mapping):
        return False
    have = labels if isinstance(labels, Mapping) else {}
    wanted, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if isinstance(wanted, Unknown) or isinstance(expressions, Unknown):
        return None
    if any(isinstance(value, Unknown) for value in (*wanted.values(), *have.values())):
        return None
    return all(have.get(key) == value for key, value in wanted.items()) and all(
        _expression(each, have) for each in expressions
    )


def _expression(expression: Any, labels: Mapping[str, Any]) -> bool:
    if not isinstance(expression, Mapping):
        return False
    value, values = labels.get(str(expression.get("key"))), expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False


RULE: StackRule[AvailabilitySettings] = StackRule(
    id="high-availability",
    description="What serves has two pods or more, and a disruption budget.",
    settings=AvailabilitySettings,
    severity="medium",
    check=check,
    outside="It needs several objects at once (workload, autoscaler, budget), and CEL sees one.",
)
