"""The artifact manifest: version, source and sha256 of every file that hosts install; and its signature."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from policies.cosign import verify_blob
from stacks.model import Architecture
from stacks.settings import ArtifactSettings, HostSettings, Settings, SettingsError

SETTING = "edge-inference:artifacts"
SIGNATURE = ".sigstore.json"
"""A manifest's signature lies beside it, under its name with this behind."""
SIGNED_STACKS = ("staging", "prod")
"""Stacks that take no unsigned manifest."""
INSTALLED = ("k3s", "k3s-install", "k3s-images", "wasmedge-runtime")
"""Artifacts every host gets."""
NOT_KNOWN = "0" * 64
"""A preview needs some sum to name a file by; `up` never gets there without the real one."""
_VERIFY_SECONDS = 30
_MACHINES = {62: "amd64", 183: "arm64"}


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
    architecture: Architecture | None = Field(
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


def wanted_artifacts(settings: Settings) -> dict[str, set[str]]:
    """Names of the artifacts that a site uses, by its hosts' architecture."""
    wanted: dict[str, set[str]] = {}
    for host in settings.hosts:
        wanted.setdefault(settings.architecture(host), set()).update(host_artifacts(settings, host))
    return wanted


def manifest_setting(settings: ArtifactSettings, architecture: str, setting: str = SETTING) -> str:
    """What messages call the setting that names an architecture's manifest."""
    return (
        f"{setting}.manifest"
        if architecture == settings.architecture
        else f"{setting}.manifests.{architecture}"
    )


def check_signature(
    settings: ArtifactSettings, stack: str, setting: str = SETTING, architecture: str | None = None
) -> None:
    """Compares a manifest with its signature, where the settings or the stack's name ask for it.

    Args:
        settings: manifest and key.
        stack: the stack's name.
        setting: what messages call these settings.
        architecture: whose manifest; None: the settings' own.

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
    architecture = architecture or settings.architecture
    verify_manifest(
        Path(settings.by_architecture[architecture]),
        Path(settings.public_key).expanduser(),
        f"{setting}.publicKey",
        manifest_setting(settings, architecture, setting),
    )


def verify_manifest(
    manifest: Path,
    key: Path,
    key_setting: str = f"{SETTING}.publicKey",
    setting: str = f"{SETTING}.manifest",
) -> None:
    """Compares a manifest with its signature by cosign, with no network.

    Args:
        manifest: the manifest.
        key: who must have signed it.
        key_setting: what messages call the setting that names the key.
        setting: what they call the one that names the manifest.

    Raises:
        UnsignedError, SettingsError: as check_signature().
    """
    signature = manifest.with_name(manifest.name + SIGNATURE)
    if not key.is_file():
        raise UnsignedError(f"{key_setting}: no file {key}: put the public key of who makes bundles there")
    if not signature.is_file():
        raise UnsignedError(
            f"{setting}: no signature {signature}: carry it along with the manifest, or make the bundle again"
        )
    answer = verify_blob(manifest, signature, key, _VERIFY_SECONDS)
    if answer.verdict == "broken":
        raise SettingsError(
            f"{setting}: the signature {signature} could not be compared ({answer.reason}): "
            "carry the bundle again; the program cosign must be on PATH, a bundle has it in bin"
        )
    if answer.verdict != "good":
        raise SettingsError(
            f"{setting}: {manifest} is not what the owner of {key} signed ({answer.reason}): "
            f"carry the bundle again, or mend {key_setting} if another key signed it"
        )


def load_manifest(
    path: str,
    wanted: set[str],
    *,
    preview: bool,
    architecture: str | None = None,
    setting: str = f"{SETTING}.manifest",
) -> tuple[dict[str, Entry], list[str]]:
    """Reads the manifest and compares local files with their sums.

    Args:
        path: the manifest, relative to the project.
        wanted: names the stack uses; others are not looked at.
        preview: sums that are not known yet are let through.
        architecture: processors of the hosts; a manifest or a program for others is refused. None: any.
        setting: what messages call the setting that names the manifest.

    Returns:
        The wanted entries with local sources as paths from the project, and one line per problem.
    """
    file = Path(path)
    if not file.is_file():
        return {}, [f"{setting}: no file {path}: build or fetch the artifacts, or name another manifest"]
    try:
        manifest = Manifest.model_validate(json.loads(file.read_text()))
    except (ValidationError, ValueError) as error:
        return {}, [f"{setting}: {path} is not a manifest: {error}"]
    entries = manifest.artifacts
    problems = [
        f"{setting}: {path} has no artifact {name}: add it" for name in sorted(wanted - entries.keys())
    ]
    if architecture and manifest.architecture not in (None, architecture):
        problems.append(
            f"{setting}: {path} is for {manifest.architecture}, the hosts are {architecture}: "
            "carry the bundle for these, or mend artifacts.architecture or hosts[].architecture"
        )
    found: dict[str, Entry] = {}
    for name in sorted(wanted & entries.keys()):
        entry = entries[name]
        if not entry.source.startswith("https://"):
            entry = entry.model_copy(update={"source": str(file.parent / entry.source)})
        problem = _problem(entry, architecture, preview=preview)
        if problem:
            problems.append(f"{setting}: {path}: artifact {name}: {problem}")
        found[name] = entry if entry.sha256 else entry.model_copy(update={"sha256": NOT_KNOWN})
    return found, problems


def _problem(entry: Entry, architecture: str | None, *, preview: bool) -> str | None:
    if entry.sha256 is None:
        return None if preview else "its sha256 is null: write the sum of the file on your mirror"
    if entry.source.startswith("https://"):
        return None
    file = Path(entry.source)
    if found := file_problem(file, entry.sha256, entry.size):
        return f"{found}: build or fetch it again"
    made_for = _made_for(file)
    if architecture and made_for not in (None, architecture):
        return (
            f"{file} is a program for {made_for}, the hosts are {architecture}: put theirs into the manifest"
        )
    return None


def _made_for(file: Path) -> str | None:
    """The processor of an ELF program (elf(5): e_machine, as elf.h has it); None: it is something else."""
    with file.open("rb") as opened:
        header = opened.read(20)
    if not header.startswith(b"\x7fELF"):
        return None
    return _MACHINES.get(int.from_bytes(header[18:20], "little"), "another processor")


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
