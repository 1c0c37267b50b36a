"""Assembles .artifacts: the files that hosts install, with their sums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from toolchain.manifest import ARTIFACTS, Part


def sha256(file: Path) -> str:
    """A file's sum, as lower-case hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def record(name: str, version: str, file: Path) -> None:
    """Puts a file of .artifacts into its manifest.json.

    Args:
        name: the artifact's name in settings.
        version: its version, as its maker writes it.
        file: a file inside .artifacts.
    """
    path = ARTIFACTS / "manifest.json"
    data = json.loads(path.read_text()) if path.is_file() else {"artifacts": {}}
    data["artifacts"][name] = {"version": version, "source": file.name, "sha256": sha256(file)}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n")
    partial.rename(path)


def assemble(parts: list[Part]) -> None:
    """Links (or copies) every built part's artifacts into .artifacts and records them."""
    ARTIFACTS.mkdir(exist_ok=True)
    for part in parts:
        for name, file_name in part.artifacts.items() if part.found else []:
            target = ARTIFACTS / file_name
            target.unlink(missing_ok=True)
            try:
                os.link(part.output / file_name, target)
            except OSError:  # the cache lies on another file system
                shutil.copy2(part.output / file_name, target)
            record(name, part.version, target)
