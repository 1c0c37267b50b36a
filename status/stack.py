"""A stack's settings and outputs, read by the Pulumi command."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from stacks.settings import PROJECT, Settings
from stacks.sites import SiteSettings, parse_sites


class StatusError(Exception):
    """What could not be read, and what to do about it."""


@dataclass(frozen=True)
class Site:
    """A site that is up.

    Args:
        name: empty for the one site of a stack without `sites`.
        settings: its checked settings.
        kubeconfig: the admin's kubeconfig, a secret: never printed.
        endpoints: service name to URL.
    """

    name: str
    settings: Settings
    kubeconfig: str
    endpoints: dict[str, str]


def read_stack(name: str) -> list[Site]:
    """Reads the settings and outputs of a stack of the project in the working folder.

    Raises:
        StatusError: Pulumi can't read it, or it is not up.
        SettingsError: its settings are wrong.
    """
    outputs = _pulumi("stack", "output", "--json", "--show-secrets", "--stack", name)
    sites = []
    for site in read_settings(name):
        shown = outputs.get(site.name, {}) if site.name else outputs
        if "kubeconfig" not in shown:
            what = f"site {site.name} of stack {name}" if site.name else f"stack {name}"
            raise StatusError(f"{what} is not up: run `pulumi up --stack {name}` first")
        sites.append(Site(site.name, site.settings, shown["kubeconfig"], shown.get("endpoints", {})))
    return sites


def read_settings(name: str) -> list[SiteSettings]:
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
    return parse_sites(values)


def _pulumi(*arguments: str) -> dict[str, Any]:
    try:
        done = subprocess.run(["pulumi", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StatusError("pulumi is not on PATH: run `. ./env.sh` first") from None
    if done.returncode != 0:
        raise StatusError(done.stderr.strip())
    found: dict[str, Any] = json.loads(done.stdout)
    return found
