"""A stack's settings and outputs, read by the Pulumi command."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from stacks.settings import PROJECT, Settings, parse


class StatusError(Exception):
    """What could not be read, and what to do about it."""


@dataclass(frozen=True)
class Stack:
    """A stack that is up.

    Args:
        settings: its checked settings.
        kubeconfig: the admin's kubeconfig, a secret: never printed.
        endpoints: service name to URL.
    """

    settings: Settings
    kubeconfig: str
    endpoints: dict[str, str]


def read_stack(name: str) -> Stack:
    """Reads the settings and outputs of a stack of the project in the working folder.

    Raises:
        StatusError: Pulumi can't read it, or it is not up.
        SettingsError: its settings are wrong.
    """
    outputs = _pulumi("stack", "output", "--json", "--show-secrets", "--stack", name)
    if "kubeconfig" not in outputs:
        raise StatusError(f"stack {name} is not up: run `pulumi up --stack {name}` first")
    return Stack(read_settings(name), outputs["kubeconfig"], outputs.get("endpoints", {}))


def read_settings(name: str) -> Settings:
    """Reads the settings of a stack of the project in the working folder, whether it is up or not.

    Raises:
        StatusError: Pulumi can't read them.
        SettingsError: they are wrong.
    """
    config = _pulumi("config", "--json", "--show-secrets", "--stack", name)
    prefix = f"{PROJECT}:"
    values = {
        key.removeprefix(prefix): item.get("objectValue", item["value"])
        for key, item in config.items()
        if key.startswith(prefix)
    }
    return parse(values)


def _pulumi(*arguments: str) -> dict[str, Any]:
    try:
        done = subprocess.run(["pulumi", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StatusError("pulumi is not on PATH: run `. ./env.sh` first") from None
    if done.returncode != 0:
        raise StatusError(done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found
