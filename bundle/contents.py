"""What belongs into a stack's bundle, and where each file lies on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bundle.wheels import wheels
from policies.config import load as load_policy
from policies.trust import SignatureSettings
from stacks.manifest import Entry, Manifest, load_manifest, wanted_artifacts
from stacks.settings import PROJECT, Settings, SettingsError
from stacks.sites import SiteSettings, parse_sites
from toolchain.artifacts import sha256
from toolchain.manifest import CACHE, REPO, Part, load, source_files
from toolchain.release import download

PLUGIN = "pulumi-resource-"


class BundleError(Exception):
    """A bundle can't be made or used; the message has one line per problem, with what to do."""


@dataclass(frozen=True)
class Contents:
    """A bundle's files.

    Args:
        architecture: the processors of the hosts; programs are for machines such as this one.
        artifacts: what hosts install, sources as paths in the bundle.
        files: every file but the manifest: path in the bundle → file here.
    """

    architecture: str
    artifacts: dict[str, Entry]
    files: dict[str, Path]

    def manifest(self) -> Manifest:
        """Sums and sizes of all files."""
        hosts = {entry.source for entry in self.artifacts.values()}
        return Manifest.model_validate(
            {
                "architecture": self.architecture,
                "artifacts": self.artifacts,
                "files": {
                    path: {"sha256": sha256(file), "size": file.stat().st_size}
                    for path, file in sorted(self.files.items())
                    if path not in hosts
                },
            }
        )


def read_stack(stack: str) -> list[SiteSettings]:
    """Settings of a stack's sites without the engine; a secret's value is not needed, nor asked for.

    Raises:
        BundleError: there is no such stack, or its settings are wrong.
    """
    file = REPO / "stacks" / f"Pulumi.{stack}.yaml"
    if not file.is_file():
        raise BundleError(f"--stack {stack}: no file {file.relative_to(REPO)}: name a stack of stacks/")
    prefix = f"{PROJECT}:"
    config = yaml.safe_load(file.read_text())["config"]
    values = {key.removeprefix(prefix): _shown(value) for key, value in config.items() if prefix in key}
    try:
        return parse_sites(values)
    except SettingsError as error:
        raise BundleError(f"--stack {stack}: its settings are wrong:\n{error}") from None


def _shown(value: Any) -> Any:
    if isinstance(value, dict):
        return "secret" if set(value) == {"secure"} else {key: _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def _chosen(stack: str, site: str, architecture: str) -> tuple[str, str, list[Settings]]:
    """Architecture, manifest and sites' settings that a bundle is for."""
    found = {each.name: each.settings for each in read_stack(stack)}
    if site and site not in found:
        named = ", ".join(filter(None, found)) or "it has none"
        raise BundleError(f"--site {site}: want a site of stack {stack}: {named}")
    chosen = [found[site]] if site else list(found.values())
    known = sorted({known for settings in chosen for known in wanted_artifacts(settings)})
    if len(known) > 1 and not architecture:
        raise BundleError(
            f"--stack {stack}: its hosts are {' and '.join(known)}: make a bundle of each, by --architecture"
        )
    architecture = architecture or known[0]
    if architecture not in known:
        raise BundleError(f"--architecture {architecture}: the stack's hosts are {' and '.join(known)}")
    chosen = [settings for settings in chosen if architecture in wanted_artifacts(settings)]
    manifests = sorted({settings.artifacts.by_architecture[architecture] for settings in chosen})
    if len(manifests) > 1:
        raise BundleError(
            f"--stack {stack}: its sites have manifests of their own ({', '.join(manifests)}): "
            "make a bundle of each, by --site"
        )
    return architecture, manifests[0], chosen


def collect(stack: str, progress: Callable[[str], None], site: str = "", architecture: str = "") -> Contents:
    """Finds the files of a stack's bundle; what lies on a mirror or index is fetched into the cache.

    Args:
        stack: the stack's name.
        progress: is told what is being done.
        site: the one of its sites that the bundle is for; empty: all of them.
        architecture: of the hosts that the bundle is for; empty: all have the same.

    Raises:
        BundleError: something is missing here; names each and what to do.
        Unavailable, BuildError: a mirror or the package index does not give it.
    """
    architecture, manifest, chosen = _chosen(stack, site, architecture)
    wanted = {name for settings in chosen for name in wanted_artifacts(settings)[architecture]}
    entries, problems = load_manifest(str(REPO / manifest), wanted, preview=False, architecture=architecture)
    named = list(dict.fromkeys(_named_files(stack, chosen)))
    absent = [file for file in named if not file.exists()]
    problems += [f"{file}: not there: run `make model`, or mend the path" for file in absent]
    if problems:
        raise BundleError("\n".join(problems))
    files: dict[str, Path] = {}
    artifacts = {}
    for name, entry in entries.items():
        source = _local(entry, progress)
        path = f"artifacts/{source.name}"
        if files.setdefault(path, source) != source:
            raise BundleError(f"{stack}: artifact {name} and another are both {source.name}: rename one")
        artifacts[name] = entry.model_copy(update={"source": path, "size": source.stat().st_size})
    files |= dict(_programs(load()[1]))
    files |= dict(_project(named))
    files |= wheels(progress)
    return Contents(architecture, artifacts, files)


def _local(entry: Entry, progress: Callable[[str], None]) -> Path:
    if not entry.source.startswith("https://"):
        return Path(entry.source)
    target = CACHE / "mirror" / str(entry.sha256) / entry.source.rsplit("/", 1)[1]
    if not target.is_file() or sha256(target) != entry.sha256:
        target.parent.mkdir(parents=True, exist_ok=True)
        if (found := download(entry.source, target, progress)) != entry.sha256:
            target.unlink()
            raise BundleError(f"{entry.source}: sha256 found {found}, wanted {entry.sha256}: mend the mirror")
    return target


def _programs(parts: list[Part]) -> Iterator[tuple[str, Path]]:
    """What runs on the operator's machine: Pulumi with its plugins, cosign, crane, kubectl."""
    for part in parts:
        versions = {f"{PLUGIN}{name}": version for name, version in part.plugins.items()}
        for file in sorted((part.output / "bin").glob("*")):
            folder = f"plugins/v{versions[file.name]}" if file.name in versions else "bin"
            yield f"{folder}/{file.name}", file


def _named_files(stack: str, sites: list[Settings]) -> Iterator[Path]:
    """Files besides artifacts that the sites' settings or the stack's policies name."""
    for service in (service for settings in sites for service in settings.services):
        if service.image_file:
            yield REPO / service.image_file
    trust = load_policy("signed-images", SignatureSettings, stack)
    for path in (*(key.file for key in trust.keys), *trust.layouts, trust.trustedRoot):
        if path:
            yield REPO / path


def _project(named: list[Path]) -> Iterator[tuple[str, Path]]:
    """Those of the named files that a checkout of the project does not bring."""
    tracked = set(source_files(REPO))
    for path in named:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file not in tracked:
                if not file.is_relative_to(REPO):
                    raise BundleError(f"{file} lies outside the project: move it into the project's folder")
                yield f"project/{file.relative_to(REPO)}", file
