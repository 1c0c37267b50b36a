"""A resource's inputs as plain values: what is not known yet, and what is a secret, said as such."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pulumi_policy import proxy
from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY
from pulumi_policy.secret import Secret

Path: TypeAlias = tuple[str | int, ...]
_SENTINELS = frozenset(value for name, value in vars(proxy).items() if name.startswith("UNKNOWN_"))


@dataclass(frozen=True)
class Unknown:
    """A value that the engine knows only once other resources exist."""


@dataclass(frozen=True)
class Hidden(Unknown):
    """A secret that a file of the engine's holds encrypted."""


@dataclass(frozen=True)
class Edit:
    """A value to set in a resource's inputs.

    Args:
        path: where, from the top; mappings that lack on the way are made.
        value: what to put there.
    """

    path: Path
    value: Any


def plain(value: Any) -> Any:
    """Copy inputs into dicts, lists and scalars, with Unknown where the SDK's proxies would raise.

    Args:
        value: inputs from the policy SDK, or from a file that the engine wrote.
    """
    if isinstance(value, str):
        return Unknown() if value in _SENTINELS else value
    if isinstance(value, Mapping):
        if value.get(SPECIAL_SIG_KEY) == SPECIAL_SECRET_SIG:
            return plain(value["value"]) if "value" in value else Hidden()
        return {key: _item(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_item(value, index) for index in range(len(value))]
    return value


def _item(values: Any, key: Any) -> Any:
    try:
        return plain(values[key])
    except proxy.UnknownValueError:
        return Unknown()


def edited(inputs: Any, edits: Sequence[Edit]) -> dict[str, Any]:
    """Copy a resource's inputs with edits made, keeping secrets secret and unknown values unknown.

    Args:
        inputs: from the policy SDK's remediation, or plain.
        edits: made in order.
    """
    result: dict[str, Any] = _raw(inputs)
    for edit in edits:
        place: Any = result
        for step in edit.path[:-1]:
            inner: Any = place.get(step) if isinstance(place, dict) else place[step]
            if isinstance(inner, Secret):
                inner = inner.value
            if inner is None:
                inner = place[step] = {}
            place = inner
        place[edit.path[-1]] = edit.value
    return result


def _raw(value: Any) -> Any:
    """Copy dicts and lists out of the SDK's proxies, which would hide what is secret."""
    if isinstance(value, Secret):
        return Secret(_raw(value.value))
    if isinstance(value, Mapping):
        inner = value if isinstance(value, dict) else value["__target"]
        return {key: _raw(item) for key, item in inner.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items: Any = value
        return [_raw(item) for item in (items if isinstance(items, list) else items["__target"])]
    return value


def text_path(path: Path) -> str:
    """Write a path as people do: `spec.containers[0].resources.limits["nvidia.com/gpu"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif "/" in step or "." in step:
            text += f'["{step}"]'
        else:
            text += f".{step}" if text else step
    return text
