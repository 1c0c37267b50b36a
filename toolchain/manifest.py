"""The manifest of parts, and where the cache keeps them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

REPO = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("EDGE_CACHE") or Path.home() / ".cache" / "edge-inference")
ARTIFACTS = REPO / ".artifacts"
STATE = REPO / ".state"


class BuildRoot(BaseModel):
    """The Debian system that parts are compiled in, so that the machine needs only debootstrap."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    suite: str = Field(description="Debian release.")
    packages: list[str] = Field(description="Debian packages installed in it.")

    @property
    def key(self) -> str:
        """Changes when the root must be brought up to date."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Where the root lies."""
        return CACHE / "roots" / f"{self.suite}-build"


class Part(BaseModel):
    """One built part: a folder beside this file with a `build.sh`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    source: str = Field(description="Where its code comes from, for people.")
    lock: str = Field(description="The file in its folder that pins the source by hash.")
    programs: list[str] = Field(default=[], description="Programs in bin/ that the operator runs.")
    plugins: dict[str, str] = Field(
        default={}, description="Pulumi resource plugins in bin/: name to version."
    )
    artifacts: dict[str, str] = Field(
        default={}, description="Files that hosts install: artifact name to file."
    )

    @property
    def folder(self) -> Path:
        """Its sources."""
        return REPO / "toolchain" / self.name

    @property
    def key(self) -> str:
        """Version and a hash of the part's files: the cache key."""
        digest = hashlib.sha256()
        for file in source_files(self.folder):
            digest.update(str(file.relative_to(self.folder)).encode() + b"\0" + file.read_bytes() + b"\0")
        return f"{self.version}-{digest.hexdigest()[:12]}"

    @property
    def output(self) -> Path:
        """Where its build lies in the cache, or will lie."""
        return CACHE / "parts" / self.name / self.key

    @property
    def built(self) -> bool:
        """Whether this very version of the part is in the cache."""
        return self.output.is_dir()


def source_files(folder: Path) -> list[Path]:
    """The files of a folder that git tracks or would track, sorted; build leftovers do not count."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted(file for name in listed.split("\0") if name and (file := folder / name).is_file())


def load() -> tuple[BuildRoot, list[Part]]:
    """Reads manifest.toml.

    Returns:
        The build root and the parts in the order they are built.
    """
    data = tomllib.loads((REPO / "toolchain" / "manifest.toml").read_text())
    return BuildRoot(**data["build-root"]), [Part(**part) for part in data["part"]]
