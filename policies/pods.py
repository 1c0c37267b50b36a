"""Where the pods are: finds pod specs and their containers in the inputs of a Kubernetes resource."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pulumi_policy.proxy import UnknownValueError

# Kind of the resource → path from the resource to its pod spec.
_POD_SPEC: dict[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "PodTemplate": ("template", "spec"),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    **{
        kind: ("spec", "template", "spec")
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job")
    },
}
CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True)
class Unknown:
    """A value that the engine knows only once other resources exist."""


@dataclass(frozen=True)
class Misshapen:
    """A part of a resource that has the wrong type, so that no rule can look into it.

    Args:
        path: where it is, such as `spec.template.spec.containers`.
        expected: what belongs there.
    """

    path: str
    expected: str


@dataclass(frozen=True)
class Container:
    """One container of a pod.

    Args:
        path: where it is in the resource, such as `spec.template.spec.containers[0]`.
        group: the list it is in, one of CONTAINER_LISTS.
        fields: its fields; a value not known at preview is an Unknown.
    """

    path: str
    group: str
    fields: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name as written, or `(unnamed)`."""
        name = self.fields.get("name")
        return name if isinstance(name, str) and name else "(unnamed)"


Part: TypeAlias = Container | Misshapen | tuple[str, Unknown]


def plain(value: Any) -> Any:
    """Copy a resource's inputs, putting Unknown where the SDK's proxies would raise."""
    if isinstance(value, Mapping):
        return {key: _item(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_item(value, index) for index in range(len(value))]
    return value


def _item(values: Any, key: Any) -> Any:
    try:
        return plain(values[key])
    except UnknownValueError:
        return Unknown()


def containers(resource_type: str, inputs: Mapping[str, Any]) -> Iterator[Part]:
    """Yield every container of a resource.

    Args:
        resource_type: Pulumi's type token, such as `kubernetes:apps/v1:Deployment`.
        inputs: the resource's inputs, made by plain().

    Yields:
        Each container; a path and Unknown for a part not known yet; Misshapen for a part of the wrong type.
    """
    if not resource_type.startswith("kubernetes:"):
        return
    kind = resource_type.rsplit(":", 1)[-1].removesuffix("Patch")
    if kind.removesuffix("List") in _POD_SPEC and kind.endswith("List"):
        yield from _listed(kind.removesuffix("List"), inputs)
    elif kind in _POD_SPEC:
        yield from _of_object(kind, inputs, "")


def _listed(kind: str, inputs: Mapping[str, Any]) -> Iterator[Part]:
    items = inputs.get("items")
    if isinstance(items, Unknown):
        yield "items", items
    elif not isinstance(items, list):
        yield Misshapen("items", "a list")
    else:
        for index, item in enumerate(items):
            yield from _of_object(kind, item, f"items[{index}].")


def _of_object(kind: str, value: Any, prefix: str) -> Iterator[Part]:
    path = prefix.rstrip(".")
    for step in _POD_SPEC[kind]:
        if not isinstance(value, Mapping):
            break
        value, path = value.get(step), f"{prefix}{step}"
        prefix = f"{path}."
    if isinstance(value, Unknown):
        yield path, value
    elif isinstance(value, Mapping):
        for group in CONTAINER_LISTS:
            yield from _of_group(group, value.get(group), prefix + group)
    elif value is not None:
        yield Misshapen(path, "a mapping")


def _of_group(group: str, value: Any, path: str) -> Iterator[Part]:
    if value is None:
        return
    if isinstance(value, Unknown):
        yield path, value
    elif not isinstance(value, list):
        yield Misshapen(path, "a list of containers")
    else:
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            if isinstance(item, Unknown):
                yield where, item
            elif isinstance(item, Mapping):
                yield Container(where, group, item)
            else:
                yield Misshapen(where, "a container")
