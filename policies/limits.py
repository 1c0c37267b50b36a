"""Rule `resource-limits`: no container without bounds on what it takes from its node."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal

from pydantic import Field, field_validator

from policies import cel, quantities
from policies.config import Part, Settings
from policies.pods import Container, Pod, pods
from policies.rules import (
    Admission,
    Finding,
    Resource,
    Rule,
    Validation,
    is_kubernetes,
    not_yet_known,
    unreadable,
)
from policies.values import Edit, Path, Unknown, text_path

Side = Literal["requests", "limits"]
_SIDES: tuple[Side, Side] = ("requests", "limits")
MODEL_MEMORY = "edge.inference/model-memory"
"""Annotation of a pod with the memory that its model needs, as the model's build measured it."""


class FillIn(Part):
    """What `remediate` writes where a container states nothing."""

    cpuRequest: str = Field(default="100m", description="CPU request.")
    cpuLimit: str = Field(default="500m", description="CPU limit.")
    memoryRequest: str = Field(default="128Mi", description="Memory request.")
    memoryLimit: str = Field(default="256Mi", description="Memory limit.")

    @field_validator("*")
    @classmethod
    def _is_quantity(cls, value: str) -> str:
        return _positive(value)

    def amount(self, side: Side, name: str) -> str:
        """Return what belongs at one place."""
        return str(getattr(self, f"{name}{'Request' if side == 'requests' else 'Limit'}"))


class LimitSettings(Settings):
    """The ceilings of one environment."""

    maxCpu: str = Field(
        default="4", description="Highest CPU limit of one container, a Kubernetes quantity in cores."
    )
    maxMemory: str = Field(
        default="4Gi", description="Highest memory limit of one container, a Kubernetes quantity in bytes."
    )
    fillIn: FillIn = Field(
        default=FillIn(),
        description="What a container gets that states nothing, at enforcement level remediate.",
    )

    @field_validator("maxCpu", "maxMemory")
    @classmethod
    def _is_quantity(cls, value: str) -> str:
        return _positive(value)

    def ceiling(self, name: str) -> str:
        """Return the ceiling as written for `cpu` or `memory`."""
        return self.maxCpu if name == "cpu" else self.maxMemory


def _positive(value: str) -> str:
    if quantities.parse(value) <= 0:
        raise ValueError("must be more than zero")
    return value


def check(resource: Resource, settings: LimitSettings) -> Iterator[Finding]:
    """Every container, init container and sidecar states requests and limits of CPU and memory.

    They are above zero and within the environment's ceilings, no limit is below its request, and memory is
    whole bytes. Devices such as `nvidia.com/gpu` are requested whole, with request and limit the same.
    Where the pod's annotation `edge.inference/model-memory` says what the model needs, one container's
    memory limit holds it.

    A bare Pod's missing requests are its limits, as the API server fills them in (SetDefaults_Pod); a pod
    template has to state both.

    Good:
        ```yaml
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: app, namespace: default}
        spec:
          selector: {matchLabels: {app: app}}
          template:
            metadata: {labels: {app: app}}
            spec:
              containers:
                - name: app
                  image: edge.local/m@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
                  resources:
                    requests: {cpu: 500m, memory: 512Mi}
                    limits: {cpu: "1", memory: 1Gi}
        ```

    Bad:
        ```yaml
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: app, namespace: default}
        spec:
          selector: {matchLabels: {app: app}}
          template:
            metadata: {labels: {app: app}}
            spec:
              containers:
                - name: app
                  image: edge.local/m@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
                  resources:
                    requests: {cpu: 500m, memory: 512Mi}
        ```
    """
    for pod in pods(resource.type, resource.inputs):
        if not isinstance(pod, Pod):
            yield unreadable(pod)
            continue
        parts = list(pod.containers())
        for part in parts:
            if not isinstance(part, Container):
                yield unreadable(part)
            elif part.group != "ephemeralContainers":  # Kubernetes lets those have no resources
                yield from _of_container(part, settings, is_bare=resource.kind == "Pod")
        yield from _model_fits(pod, [part for part in parts if isinstance(part, Container)])


def _of_container(container: Container, settings: LimitSettings, *, is_bare: bool) -> Iterator[Finding]:
    at: Path = (*container.at, "resources")
    resources = container.fields.get("resources")
    if isinstance(resources, Unknown):
        yield not_yet_known(text_path(at), container.name)
        return
    if resources is not None and not isinstance(resources, Mapping):
        fix = "write a mapping with requests and limits"
        yield Finding(text_path(at), f"is {resources!r}", fix, container.name)
        return
    stated: dict[Side, Mapping[str, Any]] = {}
    for side in _SIDES:
        values = (resources or {}).get(side)
        if isinstance(values, Unknown):
            yield not_yet_known(text_path((*at, side)), container.name)
            return
        if values is not None and not isinstance(values, Mapping):
            fix = "write a mapping of quantities"
            yield Finding(text_path((*at, side)), f"is {values!r}", fix, container.name)
            return
        stated[side] = values or {}
    if is_bare:
        stated["requests"] = {**stated["limits"], **_set(stated["requests"])}
    for name in ("cpu", "memory"):
        yield from _bounded(container, stated, name, settings)
    for name in sorted({*stated["requests"], *stated["limits"]} - {"cpu", "memory"}, key=str):
        yield from _other(container, stated, name, settings)


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _amount(
    container: Container, side: Side, name: str, value: Any, settings: LimitSettings
) -> Fraction | Finding:
    path, example = _path(container, side, name), _example(side, name, settings)
    if isinstance(value, Unknown):
        return not_yet_known(path, container.name)
    try:
        amount = quantities.parse(value)
    except quantities.QuantityError as error:
        return Finding(path, f"is invalid: {error}", f"write a quantity such as {example}", container.name)
    if amount < 0:
        return Finding(path, f"is {value}, less than zero", f"write e.g. {example}", container.name)
    return amount


def _bounded(
    container: Container, stated: Mapping[Side, Mapping[str, Any]], name: str, settings: LimitSettings
) -> Iterator[Finding]:
    amounts: dict[Side, Fraction] = {}
    for side in _SIDES:
        value, path = stated[side].get(name), _path(container, side, name)
        example = _example(side, name, settings)
        if value is None:
            yield Finding(path, "is missing", f"set {path}, for example {example}", container.name)
            continue
        amount = _amount(container, side, name, value, settings)
        if isinstance(amount, Finding):
            yield amount
        elif amount == 0:
            yield Finding(path, f"is {value}, which is no bound", f"write e.g. {example}", container.name)
        elif name == "memory" and amount.denominator != 1:
            found = f"is {value}, not a whole number of bytes (m means thousandths)"
            yield Finding(path, found, f"write e.g. {example}", container.name)
        else:
            amounts[side] = amount
    limit, path = amounts.get("limits"), _path(container, "limits", name)
    if limit is None:
        return
    if limit < amounts.get("requests", limit):
        found = f"is {stated['limits'][name]}, less than the request {stated['requests'][name]}"
        yield Finding(path, found, "raise the limit or lower the request", container.name)
    ceiling = settings.ceiling(name)
    if limit > quantities.parse(ceiling):
        found = f"is {stated['limits'][name]}, above this environment's ceiling {ceiling}"
        setting = "maxCpu" if name == "cpu" else "maxMemory"
        fix = f"lower it to {ceiling} or less, or raise resource-limits.{setting}"
        yield Finding(path, found, fix, container.name)


def _other(
    container: Container, stated: Mapping[Side, Mapping[str, Any]], name: str, settings: LimitSettings
) -> Iterator[Finding]:
    amounts: dict[Side, Fraction] = {}
    refused = False
    for side in _SIDES:
        if (value := stated[side].get(name)) is None:
            continue
        amount = _amount(container, side, name, value, settings)
        if isinstance(amount, Finding):
            refused = True
            yield amount
        else:
            amounts[side] = amount
    if "/" not in str(name) or refused:  # a name with a domain is a device's: nvidia.com/gpu
        return
    path = _path(container, "limits", name)
    for side, amount in amounts.items():
        if amount.denominator != 1:
            found = f"is {stated[side][name]}, not whole"
            fix = "a device is requested whole: write 1 or more"
            yield Finding(_path(container, side, name), found, fix, container.name)
    if "limits" not in amounts:
        fix = f"set {path} to {stated['requests'][name]}"
        yield Finding(path, "is missing, though it is requested", fix, container.name)
    elif amounts.get("requests", amounts["limits"]) != amounts["limits"]:
        found = f"is {stated['limits'][name]}, the request {stated['requests'][name]}"
        yield Finding(path, found, "a device cannot be overcommitted: make both the same", container.name)


def _model_fits(pod: Pod, parts: list[Container]) -> Iterator[Finding]:
    need = pod.annotation(MODEL_MEMORY)
    path = text_path((*pod.at[:-1], "metadata", "annotations", MODEL_MEMORY))
    if need is None:
        return
    if isinstance(need, Unknown):
        yield not_yet_known(path)
        return
    try:
        wanted = quantities.parse(need)
    except quantities.QuantityError as error:
        yield Finding(path, f"is invalid: {error}", 'write the model\'s need, such as "512Mi"')
        return
    limits = [_memory_limit(part) for part in parts if part.group == "containers"]
    if any(isinstance(limit, Unknown) for limit in limits):
        return  # what is not known yet has been said of the limit itself
    known = [limit for limit in limits if isinstance(limit, Fraction)]
    if known and max(known) < wanted:
        found = f"is {need}, more than any container's memory limit"
        yield Finding(path, found, f"raise the memory limit of the model's container to {need} or more")


def _memory_limit(container: Container) -> Fraction | Unknown | None:
    value: Any = container.fields
    for step in ("resources", "limits", "memory"):
        value = value.get(step) if isinstance(value, Mapping) else value
    if isinstance(value, Unknown):
        return value
    try:
        return quantities.parse(value)
    except quantities.QuantityError:
        return None


def _path(container: Container, side: Side, name: str) -> str:
    return text_path((*container.at, "resources", side, str(name)))


def _example(side: Side, name: str, settings: LimitSettings) -> str:
    return f'"{settings.fillIn.amount(side, name)}"' if name in ("cpu", "memory") else '"1"'


def remediate(resource: Resource, settings: LimitSettings) -> Iterator[Edit]:
    """Give every container what it does not state; a stated value is left as it is, right or wrong."""
    for pod in pods(resource.type, resource.inputs):
        for part in pod.containers() if isinstance(pod, Pod) else ():
            if isinstance(part, Container) and part.group != "ephemeralContainers":
                yield from _fill(part, settings)


def _fill(container: Container, settings: LimitSettings) -> Iterator[Edit]:
    resources = container.fields.get("resources") or {}
    for name in ("cpu", "memory"):
        sides = {}
        for side in _SIDES:
            values = (resources.get(side) or {}) if isinstance(resources, Mapping) else None
            if not isinstance(values, Mapping):
                return  # not known yet, or of a shape that check() refuses
            sides[side] = values.get(name)
        if all(value is not None for value in sides.values()):
            continue
        for side in _SIDES:
            if sides[side] is None:
                # The other side as written bounds this one; only where both are missing there is a choice.
                other = sides["limits" if side == "requests" else "requests"]
                value = settings.fillIn.amount(side, name) if other is None else other
                if not isinstance(value, Unknown):
                    yield Edit((*container.at, "resources", side, name), value)


def admission(settings: LimitSettings) -> Admission:
    """The rule in CEL. Devices, and a limit below its request, the API server refuses by itself."""
    validations = []
    for name in ("cpu", "memory"):
        for side in _SIDES:
            value = f"c.resources.{side}[{cel.text(name)}]"
            given = f"{cel.has(f'c.resources.{side}')} && {cel.text(name)} in c.resources.{side}"
            bound = f"quantity({value}).isGreaterThan(quantity('0'))"
            if name == "memory":
                bound += f" && quantity({value}).isInteger()"
            validations.append(
                Validation(
                    f"variables.containers.all(c, {given} && {bound})",
                    f"every container needs resources.{side}.{name}, more than zero",
                )
            )
        value, ceiling = f"c.resources.limits[{cel.text(name)}]", settings.ceiling(name)
        given = f"{cel.has('c.resources.limits')} && {cel.text(name)} in c.resources.limits"
        validations.append(
            Validation(
                f"variables.containers.all(c, !({given})"
                f" || quantity({value}).compareTo(quantity({cel.text(ceiling)})) <= 0)",
                f"a container's limit of {name} is above this environment's ceiling {ceiling}",
            )
        )
    need = f"variables.template.metadata.annotations[{cel.text(MODEL_MEMORY)}]"
    declared = (
        f"{cel.has('variables.template.metadata.annotations')}"
        f" && {cel.text(MODEL_MEMORY)} in variables.template.metadata.annotations"
    )
    holds = (
        "variables.podSpec.containers.exists(c, "
        f"{cel.has('c.resources.limits')} && 'memory' in c.resources.limits"
        f" && quantity(c.resources.limits['memory']).compareTo(quantity({need})) >= 0)"
    )
    validations.append(
        Validation(
            f"!({declared}) || (isQuantity({need}) && {holds})",
            f"no container's memory limit holds what the annotation {MODEL_MEMORY} says the model needs",
        )
    )
    return Admission(("pods",), validations)


RULE: Rule[LimitSettings] = Rule(
    id="resource-limits",
    description="Every container has CPU and memory requests and limits within bounds.",
    settings=LimitSettings,
    severity="high",
    check=check,
    applies=is_kubernetes,
    remediate=remediate,
    admission=admission,
)
