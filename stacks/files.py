"""A site's artifacts: the entries of its manifests, by the architecture of the hosts that get them."""

from __future__ import annotations

from typing import TypeAlias

from stacks.manifest import (
    NOT_KNOWN,
    Entry,
    UnsignedError,
    check_signature,
    load_manifest,
    manifest_setting,
    wanted_artifacts,
)
from stacks.settings import PROJECT, SettingsError
from stacks.sites import SiteSettings

Files: TypeAlias = dict[str, dict[str, Entry]]
"""Entries by architecture and artifact."""


class FilesReader:
    """Reads artifacts; what several sites have in common is looked at once.

    Args:
        stack: the stack's name.
        preview: sums that are not known yet are let through, and so are signatures that are missing.
    """

    def __init__(self, stack: str, *, preview: bool) -> None:
        self._stack = stack
        self._preview = preview
        self._read: dict[tuple[object, ...], tuple[dict[str, Entry], list[str]]] = {}
        self.unsigned: list[str] = []

    def read(self, found: SiteSettings) -> tuple[Files, list[str]]:
        """A site's artifacts, and one line per problem."""
        settings, setting = found.settings.artifacts, f"{PROJECT}:{found.place('artifacts')}"
        files: Files = {}
        problems: list[str] = []
        for architecture, names in wanted_artifacts(found.settings).items():
            key = (settings.model_dump_json(), setting, architecture, frozenset(names))
            if key not in self._read:
                self._read[key] = self._entries(found, setting, architecture, names)
            files[architecture], wrong = self._read[key]
            problems += wrong
        problems += _several_images(found, files)
        first = files.get(settings.architecture, {})
        return {each: _shared(entries, first) for each, entries in files.items()}, problems

    def _entries(
        self, found: SiteSettings, setting: str, architecture: str, names: set[str]
    ) -> tuple[dict[str, Entry], list[str]]:
        """Nothing is read of a manifest that is not signed."""
        settings = found.settings.artifacts
        try:
            check_signature(settings, self._stack, setting, architecture)
        except UnsignedError as error:
            if not self._preview:
                return {}, [str(error)]
            self.unsigned.append(str(error))
        except SettingsError as error:
            return {}, [str(error)]
        return load_manifest(
            settings.by_architecture[architecture],
            names,
            preview=self._preview,
            architecture=architecture,
            setting=manifest_setting(settings, architecture, setting),
        )


def _shared(entries: dict[str, Entry], first: dict[str, Entry]) -> dict[str, Entry]:
    """One file that serves all architectures is taken from one place."""

    def is_same(name: str) -> bool:
        return name in first and first[name].sha256 == entries[name].sha256 != NOT_KNOWN

    return {name: first[name] if is_same(name) else entry for name, entry in entries.items()}


def _several_images(found: SiteSettings, files: Files) -> list[str]:
    """A service has one image, by digest, on hosts of all architectures."""
    problems = []
    for index, service in enumerate(found.settings.services):
        sums = {each[service.archive].sha256 for each in files.values() if service.archive in each}
        if len(sums - {NOT_KNOWN}) > 1:
            place = found.place("services", index, "archive")
            problems.append(
                f"{PROJECT}:{place}: {service.archive} is another file in the manifest for "
                f"{' than in that for '.join(files)}, and a service has one image: put one file into all of "
                "them, as a .wasm image serves all architectures"
            )
    return problems
