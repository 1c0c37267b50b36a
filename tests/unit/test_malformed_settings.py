"""Malformed stack configs, made from the stacks we ship: each is refused, and says where it is wrong."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacks.settings import PROJECT, SettingsError
from stacks.sites import parse_sites

STACKS = Path(__file__).parents[2] / "stacks"
Where = tuple[str | int, ...]
# What no field takes, whatever its type: a number or a text for a mapping, a mapping in a list for the rest.
NOT_A_MAPPING: tuple[Any, ...] = (7, "text", ["list"], True)
NOT_A_LIST: tuple[Any, ...] = (7, "text", {"a": "mapping"}, True)
NOT_A_SCALAR: tuple[Any, ...] = ([{"a": 1}], {"a": [1]}, [[]])
FREE = ("env", "labels", "taints", "serverFlags", "flags")
"""Mappings whose keys are the user's own."""


def _sites() -> dict[str, Any]:
    """The stack local as two sites, of which one has its own services and the other shares them."""
    shared = _config("local")
    (north, south), services = shared.pop("hosts"), shared["services"]
    both = {"namespace": "serving", "cluster": {"waitSeconds": 60}}
    return {
        **shared,
        **both,
        "sites": {
            "north": {
                "hosts": [north | {"role": "server", "architecture": "amd64"}],
                "cluster": {"datastore": "etcd"},
            },
            "south": {
                "hosts": [south | {"role": "server"}],
                "services": services,
                "artifacts": {"manifests": {"arm64": "arm64.json"}},
            },
        },
    }


def _config(name: str) -> dict[str, Any]:
    if name == "sites":
        return _sites()
    stated = yaml.safe_load((STACKS / f"Pulumi.{name}.yaml").read_text())["config"]
    return {key.removeprefix(f"{PROJECT}:"): value for key, value in stated.items()}


def _places(value: Any, at: Where = ()) -> Iterator[tuple[Where, Any]]:
    if at:
        yield at, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*at, index))


def _text(at: Where) -> str:
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return f"{PROJECT}:{text}"


def _changed(config: dict[str, Any], at: Where, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(config)
    place: Any = result
    for part in at[:-1]:
        place = place[part]
    place[at[-1]] = value
    return result


def _cases() -> Iterator[tuple[dict[str, Any], str]]:
    """A config with one thing wrong, and the path that the message has to name."""
    for name in ("local", "prod", "sites"):
        config = _config(name)
        for at, value in _places(config):
            is_free = any(part in FREE for part in at[:-1])
            if isinstance(value, dict) and not is_free and at[-1] not in FREE:
                yield _changed(config, (*at, "unknownKey"), 1), _text((*at, "unknownKey"))
            wrong = (
                NOT_A_MAPPING
                if isinstance(value, dict)
                else NOT_A_LIST
                if isinstance(value, list)
                else NOT_A_SCALAR
            )
            for each in wrong:
                yield _changed(config, at, each), _text(at)
        yield {**config, "unknownKey": 1}, f"{PROJECT}:unknownKey"


CASES = list(_cases())


def test_there_are_hundreds() -> None:
    assert len(CASES) >= 200


@pytest.mark.parametrize(("config", "path"), CASES, ids=[f"{n}-{path}" for n, (_, path) in enumerate(CASES)])
def test_each_is_refused_by_its_path(config: dict[str, Any], path: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_sites(config)
    assert path in str(raised.value)
