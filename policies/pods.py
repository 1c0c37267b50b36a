"""Where the pods are: finds pod specs and their containers in the inputs of a Kubernetes resource."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from policies.values import Path, Unknown, text_path

# Kind of the resource → path from the resource to its pod template (to the pod itself, for a Pod).
TEMPLATES: dict[str, Path] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **{
        kind: ("spec", "template")
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job")
    },
}
CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")
# Groups of Kubernetes itself, whose kinds are known; any other group's object may hide a pod anywhere.
_CORE_GROUPS = frozenset(("core", "apps", "batch", "autoscaling", "policy", "meta", "extensions"))
_DEEPEST = 40


@dataclass(frozen=True)
class Misshapen:
    """A part of a resource that has the wrong type, so that no rule can look into it.

    Args:
        at: where it is.
        expected: what belongs there.
    """

    at: Path
    expected: str

    @property
    def path(self) -> str:
        """Where it is, such as `spec.template.spec.containers`."""
        return text_path(self.at)


@dataclass(frozen=True)
class Container:
    """One container of a pod.

    Args:
        at: where it is in the resource.
        group: the list it is in, one of CONTAINER_LISTS.
        fields: its fields; a value not known at preview is an Unknown.
    """

    at: Path
    group: str
    fields: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where it is, such as `spec.template.spec.containers[0]`."""
        return text_path(self.at)

    @property
    def name(self) -> str:
        """Its name as written, or `(unnamed)`."""
        name = self.fields.get("name")
        return name if isinstance(name, str) and name else "(unnamed)"


@dataclass(frozen=True)
class Pod:
    """A pod that a resource describes.

    Args:
        at: where its spec is in the resource.
        kind: the resource's kind.
        metadata: the metadata beside the spec.
        spec: its spec; a value not known at preview is an Unknown.
    """

    at: Path
    kind: str
    metadata: Mapping[str, Any]
    spec: Mapping[str, Any]

    def field(self, name: str) -> str:
        """The path of a field of its spec, for people."""
        return text_path((*self.at, name))

    def annotation(self, name: str) -> Any:
        """An annotation, or None."""
        annotations = self.metadata.get("annotations")
        if isinstance(annotations, Unknown):
            return annotations
        return annotations.get(name) if isinstance(annotations, Mapping) else None

    def containers(self) -> Iterator["Container | NotSeen"]:
        """Yield its containers, of all three lists."""
        for group in CONTAINER_LISTS:
            yield from _of_group(group, self.spec.get(group), (*self.at, group))


NotSeen: TypeAlias = Misshapen | tuple[str, Unknown]
Part: TypeAlias = Container | NotSeen


def pods(resource_type: str, inputs: Mapping[str, Any]) -> Iterator[Pod | NotSeen]:
    """Yield every pod of a resource.

    A kind that is not Kubernetes' own (a CustomResource) is searched for whatever looks like a pod's spec.

    Args:
        resource_type: Pulumi's type token, such as `kubernetes:apps/v1:Deployment`.
        inputs: the resource's inputs, made by plain().

    Yields:
        Each pod; a path and Unknown for a part not known yet; Misshapen for a part of the wrong type.
    """
    if not resource_type.startswith("kubernetes:"):
        return
    group, _, kind = resource_type.removeprefix("kubernetes:").partition(":")
    kind = kind.removesuffix("Patch")
    if kind.removesuffix("List") in TEMPLATES and kind.endswith("List"):
        yield from _listed(kind.removesuffix("List"), inputs)
    elif kind in TEMPLATES and _is_own(group):
        yield from _of_object(kind, inputs, ())
    elif not _is_own(group):
        yield from _hidden(kind, inputs, (), 0)


def containers(resource_type: str, inputs: Mapping[str, Any]) -> Iterator[Part]:
    """Yield every container of every pod of a resource, and what could not be seen, as pods()."""
    for pod in pods(resource_type, inputs):
        if isinstance(pod, Pod):
            yield from pod.containers()
        else:
            yield pod


def _is_own(group: str) -> bool:
    name = group.partition("/")[0]
    return name in _CORE_GROUPS or name.endswith(".k8s.io")


def _listed(kind: str, inputs: Mapping[str, Any]) -> Iterator[Pod | NotSeen]:
    items = inputs.get("items")
    if isinstance(items, Unknown):
        yield "items", items
    elif not isinstance(items, list):
        yield Misshapen(("items",), "a list")
    else:
        for index, item in enumerate(items):
            yield from _of_object(kind, item, ("items", index))


def _of_object(kind: str, value: Any, at: Path) -> Iterator[Pod | NotSeen]:
    for step in TEMPLATES[kind]:
        if not isinstance(value, Mapping):
            break
        value, at = value.get(str(step)), (*at, step)
    if isinstance(value, Mapping):
        yield from _beside(kind, value, at)
    elif isinstance(value, Unknown):
        yield text_path(at) or kind, value
    elif value is not None:
        yield Misshapen(at, "a mapping")


def _beside(kind: str, template: Mapping[str, Any], at: Path) -> Iterator[Pod | NotSeen]:
    metadata, spec = template.get("metadata"), template.get("spec")
    if isinstance(spec, Mapping):
        yield Pod((*at, "spec"), kind, metadata if isinstance(metadata, Mapping) else {}, spec)
    elif isinstance(spec, Unknown):
        yield text_path((*at, "spec")), spec
    elif spec is not None:
        yield Misshapen((*at, "spec"), "a mapping")


def _hidden(kind: str, value: Any, at: Path, depth: int) -> Iterator[Pod | NotSeen]:
    """Search an object of a foreign kind; what is not known yet could be a pod only where one belongs."""
    if depth > _DEEPEST:
        yield Misshapen(at, f"nested less than {_DEEPEST} deep")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _hidden(kind, item, (*at, index), depth + 1)
    elif isinstance(value, Mapping):
        if _has_containers(value):
            yield Pod(at, kind, {}, value)
        elif isinstance(value.get("spec"), Mapping) and _has_containers(value["spec"]):
            yield from _beside(kind, value, at)
        else:
            for key, item in value.items():
                if isinstance(item, Unknown) and key in ("spec", "template", "containers"):
                    yield text_path((*at, key)), item
                else:
                    yield from _hidden(kind, item, (*at, str(key)), depth + 1)


def _has_containers(value: Mapping[str, Any]) -> bool:
    found = value.get("containers")
    return isinstance(found, list) and any(
        isinstance(item, Mapping) and ("image" in item or "resources" in item) for item in found
    )


def _of_group(group: str, value: Any, at: Path) -> Iterator[Part]:
    if value is None:
        return
    if isinstance(value, Unknown):
        yield text_path(at), value
    elif not isinstance(value, list):
        yield Misshapen(at, "a list of containers")
    else:
        for index, item in enumerate(value):
            where = (*at, index)
            if isinstance(item, Unknown):
                yield text_path(where), item
            elif isinstance(item, Mapping):
                yield Container(where, group, item)
            else:
                yield Misshapen(where, "a container")
