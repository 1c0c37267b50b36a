"""Rule `resource-limits`: no container without bounds on what it takes from its node."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal

from pydantic import Field, field_validator

from policies import quantities
from policies.pods import Container, Unknown, containers
from policies.rules import Finding, Resource, Rule, not_yet_known, unreadable
from policies.stated import Settings

Side = Literal["requests", "limits"]
_SIDES: tuple[Side, Side] = ("requests", "limits")
_EXAMPLE = {
    ("requests", "cpu"): "500m",
    ("limits", "cpu"): "1",
    ("requests", "memory"): "512Mi",
    ("limits", "memory"): "1Gi",
}


class LimitSettings(Settings):
    """The ceilings of one environment."""

    maxCpu: str = Field(description="Highest CPU limit of one container, a Kubernetes quantity in cores.")
    maxMemory: str = Field(
        description="Highest memory limit of one container, a Kubernetes quantity in bytes."
    )

    @field_validator("maxCpu", "maxMemory")
    @classmethod
    def _is_quantity(cls, value: str) -> str:
        if quantities.parse(value) <= 0:
            raise ValueError("must be more than zero")
        return value

    def ceiling(self, name: str) -> str:
        """Return the ceiling as written for `cpu` or `memory`."""
        return self.maxCpu if name == "cpu" else self.maxMemory


def check(resource: Resource, settings: LimitSettings) -> Iterator[Finding]:
    """Check that every container and init container states requests and limits of CPU and memory, above zero,
    within the environment's ceilings, limit ≥ request; and that a GPU is requested whole, request = limit.
    """
    for part in containers(resource.type, resource.inputs):
        if not isinstance(part, Container):
            yield unreadable(part)
        elif part.group != "ephemeralContainers":  # Kubernetes lets those have no resources
            yield from _of_container(part, settings)


def _of_container(container: Container, settings: LimitSettings) -> Iterator[Finding]:
    path = f"{container.path}.resources"
    resources = container.fields.get("resources")
    if isinstance(resources, Unknown):
        yield not_yet_known(path, container.name)
        return
    if resources is not None and not isinstance(resources, Mapping):
        yield Finding(path, f"is {resources!r}", "write a mapping with requests and limits", container.name)
        return
    stated: dict[Side, Mapping[str, Any]] = {}
    for side in _SIDES:
        values = (resources or {}).get(side)
        if isinstance(values, Unknown):
            yield not_yet_known(f"{path}.{side}", container.name)
            return
        if values is not None and not isinstance(values, Mapping):
            yield Finding(f"{path}.{side}", f"is {values!r}", "write a mapping of quantities", container.name)
            return
        stated[side] = values or {}
    for name in ("cpu", "memory"):
        yield from _bounded(container, stated, name, settings.ceiling(name))
    for name in sorted({*stated["requests"], *stated["limits"]} - {"cpu", "memory"}):
        yield from _other(container, stated, name)


def _amount(container: Container, side: Side, name: str, value: Any) -> Fraction | Finding:
    path = _path(container, side, name)
    if isinstance(value, Unknown):
        return not_yet_known(path, container.name)
    try:
        amount = quantities.parse(value)
    except quantities.QuantityError as error:
        return Finding(
            path, f"is invalid: {error}", f"write a quantity such as {_example(side, name)}", container.name
        )
    if amount < 0:
        return Finding(
            path, f"is {value}, less than zero", f"write e.g. {_example(side, name)}", container.name
        )
    return amount


def _bounded(
    container: Container, stated: Mapping[Side, Mapping[str, Any]], name: str, ceiling: str
) -> Iterator[Finding]:
    amounts: dict[Side, Fraction] = {}
    for side in _SIDES:
        value, path = stated[side].get(name), _path(container, side, name)
        if value is None:
            yield Finding(
                path, "is missing", f"set {path}, for example {_example(side, name)}", container.name
            )
            continue
        amount = _amount(container, side, name, value)
        if isinstance(amount, Finding):
            yield amount
        elif amount == 0:
            yield Finding(
                path, f"is {value}, which is no bound", f"write e.g. {_example(side, name)}", container.name
            )
        elif name == "memory" and amount.denominator != 1:
            yield Finding(
                path,
                f"is {value}, not a whole number of bytes (m means thousandths)",
                f"write e.g. {_example(side, name)}",
                container.name,
            )
        else:
            amounts[side] = amount
    limit, path = amounts.get("limits"), _path(container, "limits", name)
    if limit is None:
        return
    if limit < amounts.get("requests", limit):
        yield Finding(
            path,
            f"is {stated['limits'][name]}, less than the request {stated['requests'][name]}",
            "raise the limit or lower the request",
            container.name,
        )
    if limit > quantities.parse(ceiling):
        setting = "maxCpu" if name == "cpu" else "maxMemory"
        yield Finding(
            path,
            f"is {stated['limits'][name]}, above this environment's ceiling {ceiling}",
            f"lower it to {ceiling} or less, or raise resource-limits.{setting}",
            container.name,
        )


def _other(container: Container, stated: Mapping[Side, Mapping[str, Any]], name: str) -> Iterator[Finding]:
    amounts: dict[Side, Fraction] = {}
    waiting = False
    for side in _SIDES:
        if (value := stated[side].get(name)) is None:
            continue
        amount = _amount(container, side, name, value)
        if isinstance(amount, Finding):
            waiting = True
            yield amount
        else:
            amounts[side] = amount
    if "/" not in name or waiting:  # a name with a domain is a device's: nvidia.com/gpu
        return
    path = _path(container, "limits", name)
    for side, amount in amounts.items():
        if amount.denominator != 1:
            yield Finding(
                _path(container, side, name),
                f"is {stated[side][name]}, not whole",
                "a device is requested whole: write 1 or more",
                container.name,
            )
    if "limits" not in amounts:
        yield Finding(
            path,
            "is missing, though it is requested",
            f"set {path} to {stated['requests'][name]}",
            container.name,
        )
    elif amounts.get("requests", amounts["limits"]) != amounts["limits"]:
        yield Finding(
            path,
            f"is {stated['limits'][name]}, the request {stated['requests'][name]}",
            "a device cannot be overcommitted: make both the same",
            container.name,
        )


def _path(container: Container, side: Side, name: str) -> str:
    key = f'["{name}"]' if "/" in name else f".{name}"
    return f"{container.path}.resources.{side}{key}"


def _example(side: Side, name: str) -> str:
    return f'"{_EXAMPLE.get((side, name), "1")}"'


RULE = Rule(
    "resource-limits",
    "Every container has CPU and memory requests and limits within bounds.",
    LimitSettings,
    check,
)
