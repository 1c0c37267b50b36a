"""Several independent sites in one stack: `edge-inference:sites`, and what they share beside it.

`python -m stacks.sites > stacks/settings.schema.json` writes the schema that editors use.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from stacks.model import DNS_LABEL
from stacks.settings import (
    PROJECT,
    Location,
    Settings,
    SettingsError,
    parse,
    read_yaml,
    setting_path,
)


@dataclass(frozen=True)
class SiteSettings:
    """One site of a stack.

    Args:
        name: empty for the one site of a stack without `sites`.
        settings: the site's own, and what it shares with the others.
        own: its own alone, as written.
        shared: what all sites share, as written.
    """

    name: str
    settings: Settings
    own: Mapping[str, Any]
    shared: Mapping[str, Any]

    def place(self, *location: str | int) -> str:
        """Where a setting stands, as messages name it: `sites.north.hosts[0].address`."""
        return _place(self.name, self.own, self.shared, location)


def parse_sites(values: dict[str, Any]) -> list[SiteSettings]:
    """Checks a stack's settings given as plain values (the keys without `edge-inference:`).

    Each site has the settings of a stack. What stands beside `sites` is every site's, unless it says else:
    mappings are merged, anything else is replaced.

    Args:
        values: the settings, `sites` among them or not.

    Raises:
        SettingsError: names each wrong setting where it was written, what was found and what to do.
    """
    if "sites" not in values:
        return [SiteSettings("", parse(values), values, {})]
    shared = {key: value for key, value in values.items() if key != "sites"}
    stated = values["sites"]
    if isinstance(stated, str):
        stated = read_yaml(stated, "sites")
    problems = list(_problems(shared, stated))
    if problems:
        raise SettingsError("\n".join(problems))
    sites = []
    for name, own in stated.items():
        try:
            settings = parse(_merged(shared, own), partial(_place, name, own, shared))
            sites.append(SiteSettings(name, settings, own, shared))
        except SettingsError as error:
            problems += str(error).splitlines()
    problems += _twice(sites)
    if problems:
        raise SettingsError("\n".join(dict.fromkeys(problems)))
    return sites


def _problems(shared: Mapping[str, Any], stated: Any) -> Iterator[str]:
    """What keeps the sites from being looked at one by one."""
    wanted = "a mapping from each site's name to its settings"
    if "hosts" in shared:
        yield f"{PROJECT}:hosts: found beside sites: move it into the site that has these hosts"
    if not isinstance(stated, Mapping) or not stated:
        kind = "nothing" if stated in (None, {}) else type(stated).__name__
        yield f"{PROJECT}:sites: found {kind}: need {wanted}"
        return
    for name, own in stated.items():
        if not isinstance(name, str) or not re.match(DNS_LABEL, name):
            yield f"{PROJECT}:sites.{name}: found the name {name!r}: need lower-case letters, digits and -"
        elif not isinstance(own, Mapping):
            kind = type(own).__name__
            yield f"{PROJECT}:sites.{name}: found {kind}: need a mapping with the site's settings"


def _merged(shared: Any, own: Any) -> Any:
    if not isinstance(shared, Mapping) or not isinstance(own, Mapping):
        return own
    return {**shared, **{key: _merged(shared.get(key), value) for key, value in own.items()}}


def _place(name: str, own: Any, shared: Any, location: Location) -> str:
    """A setting that the site leaves to what is shared is named there."""
    for part in location if name else ():
        if not isinstance(own, Mapping):
            break
        if part not in own and isinstance(shared, Mapping) and part in shared:
            return setting_path(location)
        own, shared = (each.get(part) if isinstance(each, Mapping) else None for each in (own, shared))
    return setting_path(("sites", name, *location) if name else location)


def _twice(sites: list[SiteSettings]) -> Iterator[str]:
    """Hosts' names are those of resources: one stack, one host of a name."""
    names = Counter(host.name for site in sites for host in site.settings.hosts)
    for site in sites:
        for index, host in enumerate(site.settings.hosts):
            if names[host.name] > 1:
                place = site.place("hosts", index, "name")
                yield f"{PROJECT}:{place}: another site has a host {host.name}, too: give each its own name"


def stack_schema() -> dict[str, Any]:
    """What editors check: a stack is whole, or each of its sites is whole with what they share."""
    schema = Settings.model_json_schema()
    manifest = schema["$defs"]["ArtifactSettings"].pop("required")
    whole = {"required": schema.pop("required"), "properties": {"artifacts": {"required": manifest}}}
    schema["$defs"]["SiteSettings"] = {
        "additionalProperties": False,
        "description": "A site: what it shares with the others stands beside sites.",
        "properties": {key: {"$ref": f"#/properties/{key}"} for key in schema["properties"]},
        "required": ["hosts"],
        "type": "object",
    }
    schema["properties"]["sites"] = {
        "anyOf": [
            {
                "additionalProperties": False,
                "minProperties": 1,
                "patternProperties": {DNS_LABEL: {"$ref": "#/$defs/SiteSettings"}},
                "type": "object",
            },
            {"type": "string"},
        ],
        "description": "Independent sites by name, each with the settings of a stack; or the path of a YAML "
        "or JSON file with them. What stands beside this is every site's, unless it says else.",
        "title": "Sites",
    }
    return schema | {
        "description": "All settings of a stack.",
        "else": whole,
        "if": {"required": ["sites"]},
        "then": {"properties": {"hosts": False}},
    }


if __name__ == "__main__":
    json.dump(stack_schema(), sys.stdout, indent=2, sort_keys=True)
    sys.stdout.write("\n")
