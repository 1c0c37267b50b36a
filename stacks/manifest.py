"""The artifact manifest: version, source and sha256 of every file that hosts install; and its signature."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.cosign import verify_blob
from stacks.settings import ArtifactSettings, HostSettings, Settings, SettingsError

SETTING = "edge-inference:artifacts"
SIGNATURE = ".sigstore.json"
"""A manifest's signature lies beside it, under its name with this behind."""
SIGNED_STACKS = ("staging", "prod")
"""Stacks that take no unsigned manifest."""
INSTALLED = ("k3s", "k3s-install", "k3s-images", "wasmedge-runtime")
"""Artifacts every host gets."""
_VERIFY_SECONDS = 30


class Entry(BaseModel):
    """One artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: str = Field(description="The artifact's version, as its maker writes it.")
    source: str = Field(
        description="A path relative to the manifest, or an https URL that the hosts fetch from."
    )
    sha256: str | None = Field(
        pattern=r"^[0-9a-f]{64}$",
        description="The file's sum; null: not known yet, which previews but is refused by `pulumi up`.",
    )
    size: int | None = Field(default=None, ge=0, description="Its size in bytes; null: not known.")


class FileSum(BaseModel):
    """What a file must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Its sum.")
    size: int = Field(ge=0, description="Its size in bytes.")


class Manifest(BaseModel):
    """The file's content."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    artifacts: dict[str, Entry]
    architecture: Literal["amd64", "arm64"] | None = Field(
        default=None, description="The processors that its files are for, as Kubernetes names them."
    )
    files: dict[str, FileSum] = Field(
        default={}, description="A bundle's further files, by path from the manifest: for the operator."
    )


class UnsignedError(SettingsError):
    """The manifest's signature, or the key that it is compared with, is not there."""


def host_artifacts(settings: Settings, host: HostSettings) -> list[str]:
    """Names of the artifacts that a host gets."""
    archives = {service.archive: None for service in settings.services if service.archive}
    return [*INSTALLED, *archives, *(settings.nvidia.packages if host.gpu else ())]


def wanted_artifacts(settings: Settings) -> set[str]:
    """Names of the artifacts that a stack uses."""
    return {name for host in settings.hosts for name in host_artifacts(settings, host)}


def check_signature(settings: ArtifactSettings, stack: str, setting: str = SETTING) -> None:
    """Compares the manifest with its signature, where the settings or the stack's name ask for it.

    Args:
        settings: manifest and key.
        stack: the stack's name.
        setting: what messages call these settings.

    Raises:
        UnsignedError: key or signature is not there.
        SettingsError: the manifest is not what the key's owner signed.
    """
    if settings.public_key is None:
        if stack in SIGNED_STACKS:
            raise UnsignedError(
                f"{setting}.publicKey: missing: stack {stack} takes signed manifests only: "
                "name the public key of who makes its bundles"
            )
        return
    verify_manifest(Path(settings.manifest), Path(settings.public_key).expanduser(), setting)


def verify_manifest(manifest: Path, key: Path, setting: str = SETTING) -> None:
    """Compares a manifest with its signature by cosign, with no network.

    Raises:
        UnsignedError, SettingsError: as check_signature().
    """
    signature = manifest.with_name(manifest.name + SIGNATURE)
    if not key.is_file():
        raise UnsignedError(
            f"{setting}.publicKey: no file {key}: put the public key of who makes bundles there"
        )
    if not signature.is_file():
        raise UnsignedError(
            f"{setting}.manifest: no signature {signature}: carry it along with the manifest, or make the "
            "bundle again"
        )
    answer = verify_blob(manifest, signature, key, _VERIFY_SECONDS)
    if answer.verdict == "broken":
        raise SettingsError(
            f"{setting}.manifest: the signature {signature} could not be compared ({answer.reason}): "
            "carry the bundle again; the program cosign must be on PATH, a bundle has it in bin"
        )
    if answer.verdict != "good":
        raise SettingsError(
            f"{setting}.manifest: {manifest} is not what the owner of {key} signed ({answer.reason}): "
            f"carry the bundle again, or mend {setting}.publicKey if another key signed it"
        )


def load_manifest(
    path: str,
    wanted: set[str],
    *,
    preview: bool,
    architecture: str | None = None,
    setting: str = SETTING,
) -> tuple[dict[str, Entry], list[str]]:
    """Reads the manifest and compares local files with their sums.

    Args:
        path: the manifest, relative to the project.
        wanted: names the stack uses; others are not looked at.
        preview: sums that are not known yet are let through.
        architecture: processors of the hosts; a manifest that says another is refused. None: any.
        setting: what messages call the settings of artifacts.

    Returns:
        The wanted entries with local sources as paths from the project, and one line per problem.
    """
    file = Path(path)
    if not file.is_file():
        return {}, [
            f"{setting}.manifest: no file {path}: build or fetch the artifacts, or name another manifest"
        ]
    try:
        manifest = Manifest.model_validate(json.loads(file.read_text()))
    except (ValidationError, ValueError) as error:
        return {}, [f"{setting}.manifest: {path} is not a manifest: {error}"]
    entries = manifest.artifacts
    problems = [
        f"{setting}.manifest: {path} has no artifact {name}: add it"
        for name in sorted(wanted - entries.keys())
    ]
    if architecture and manifest.architecture not in (None, architecture):
        problems.append(
            f"{setting}.manifest: {path} is for {manifest.architecture}, the hosts are {architecture}: "
            f"carry the bundle for these, or mend {setting}.architecture"
        )
    found: dict[str, Entry] = {}
    for name in sorted(wanted & entries.keys()):
        entry = entries[name]
        if not entry.source.startswith("https://"):
            entry = entry.model_copy(update={"source": str(file.parent / entry.source)})
        problem = _problem(entry, preview=preview)
        if problem:
            problems.append(f"{setting}.manifest: {path}: artifact {name}: {problem}")
        # A preview needs some sum to name the file by; `up` never gets here without the real one.
        found[name] = entry if entry.sha256 else entry.model_copy(update={"sha256": "0" * 64})
    return found, problems


def _problem(entry: Entry, *, preview: bool) -> str | None:
    if entry.sha256 is None:
        return None if preview else "its sha256 is null: write the sum of the file on your mirror"
    if entry.source.startswith("https://"):
        return None
    found = file_problem(Path(entry.source), entry.sha256, entry.size)
    return found and f"{found}: build or fetch it again"


def file_problem(file: Path, sha256: str, size: int | None) -> str | None:
    """What is wrong with a file that has a sum; None: nothing."""
    if not file.is_file():
        return f"no file {file}"
    found_size = file.stat().st_size
    if size not in (None, found_size):
        return f"{file} has {found_size} bytes, wanted {size}"
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != sha256:
        return f"{file} has sha256 {found}, wanted {sha256}"
    return None
