"""The manifest of parts, and where the cache keeps them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from toolchain.release import Release

REPO = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("EDGE_CACHE") or Path.home() / ".cache" / "edge-inference")
ARTIFACTS = REPO / ".artifacts"
STATE = REPO / ".state"
MODE = os.environ.get("EDGE_PARTS") or "auto"
"""auto: a vendor's release where there is one and it can be reached, else a build; vendor; build."""


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
    """One part: a folder beside this file with a `build.sh`, and the vendor's releases that can stand in."""

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
    on_demand: bool = Field(
        default=False, description="Fetched or built only when it is named, as a test that needs it does."
    )
    release: list[Release] = Field(default=[], description="The vendor's files that make up the same part.")

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
    def release_key(self) -> str:
        """Version and a hash of where the vendor's files come from."""
        text = "".join(release.model_dump_json() for release in self.release)
        return f"{self.version}-vendor-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def place(self, key: str) -> Path:
        """Where the part of this key lies in the cache, or will lie."""
        return CACHE / "parts" / self.name / key

    @property
    def found(self) -> str | None:
        """The key of this very version in the cache, the vendor's or built, as EDGE_PARTS allows."""
        keys = [self.release_key] if self.release and MODE != "build" else []
        keys += [self.key] if MODE != "vendor" or not self.release else []
        return next((key for key in keys if self.place(key).is_dir()), None)

    @property
    def output(self) -> Path:
        """The folder of the part that was found.

        Raises:
            FileNotFoundError: it is not in the cache.
        """
        if self.found is None:
            raise FileNotFoundError(f"part {self.name} {self.version} is missing: run `make setup`")
        return self.place(self.found)


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
