"""The artifact manifest: name → version, source and sha256 of every file that hosts install."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SETTING = "edge-inference:artifacts.manifest"


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


class Manifest(BaseModel):
    """The file's content."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    artifacts: dict[str, Entry]


def load_manifest(path: str, wanted: set[str], *, preview: bool) -> tuple[dict[str, Entry], list[str]]:
    """Reads the manifest and compares local files with their sums.

    Args:
        path: the manifest, relative to the project.
        wanted: names the stack uses; others are not looked at.
        preview: sums that are not known yet are let through.

    Returns:
        The wanted entries with local sources as paths from the project, and one line per problem.
    """
    file = Path(path)
    if not file.is_file():
        return {}, [f"{SETTING}: no file {path}: build or fetch the artifacts, or name another manifest"]
    try:
        entries = Manifest.model_validate(json.loads(file.read_text())).artifacts
    except (ValidationError, json.JSONDecodeError) as error:
        return {}, [f"{SETTING}: {path} is not a manifest: {error}"]
    problems = [
        f"{SETTING}: {path} has no artifact {name}: add it" for name in sorted(wanted - entries.keys())
    ]
    found: dict[str, Entry] = {}
    for name in sorted(wanted & entries.keys()):
        entry = entries[name]
        if not entry.source.startswith("https://"):
            entry = entry.model_copy(update={"source": str(file.parent / entry.source)})
        problem = _problem(entry, preview=preview)
        if problem:
            problems.append(f"{SETTING}: {path}: artifact {name}: {problem}")
        # A preview needs some sum to name the file by; `up` never gets here without the real one.
        found[name] = entry if entry.sha256 else entry.model_copy(update={"sha256": "0" * 64})
    return found, problems


def _problem(entry: Entry, *, preview: bool) -> str | None:
    if entry.sha256 is None:
        return None if preview else "its sha256 is null: write the sum of the file on your mirror"
    if entry.source.startswith("https://"):
        return None
    file = Path(entry.source)
    if not file.is_file():
        return f"no file {entry.source}: build or fetch the artifacts again"
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != entry.sha256:
        return f"{entry.source} has sha256 {found}, wanted {entry.sha256}: build or fetch it again"
    return None
