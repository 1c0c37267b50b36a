"""Vendors' own releases of parts: fetched over https, compared with a pinned sha256, unpacked into the cache.

A sum that `releases.lock` does not hold yet is taken from the list that the vendor publishes beside the file,
and written there: from then on another file of that name is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field

LOCK = Path(__file__).parent / "releases.lock"
TIMEOUT_S = 15
_CHUNK = 1 << 20


class Unavailable(Exception):
    """The vendor's server gives nothing to use; the message names the address and what was wrong."""


class Refused(Exception):
    """The vendor's file is not the one that is pinned; the message names address and sums."""


class Release(BaseModel):
    """One file of a vendor's release."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str = Field(pattern=r"^https://", description="The file.")
    sums: str = Field(pattern=r"^https://", description="The vendor's list of sha256 sums that names it.")
    files: dict[str, str] = Field(
        description="Member of the archive to path in the part's folder; member '.': the file itself."
    )

    def fetch(self, folder: Path, progress: Callable[[str], None]) -> None:
        """Puts the wanted files into a part's folder.

        Args:
            folder: the part's folder.
            progress: is told what is being done.

        Raises:
            Unavailable: the server or file is not there, no sum of it, or a wanted member is missing in it.
            Refused: the file's sum is another one.
        """
        wanted = self.pin()
        file = folder / ".download"
        found = download(self.url, file, progress)
        if found != wanted:
            file.unlink()
            raise Refused(
                f"{self.url}: sha256 found {found}, wanted {wanted}: do not use it; if the vendor says that "
                f"the file was replaced, remove its line from {LOCK}"
            )
        self._keep(file, folder)
        file.unlink()

    def pin(self) -> str:
        """The file's sha256: from releases.lock, or else from the vendor's list, and then locked."""
        locked: dict[str, str] = json.loads(LOCK.read_text()) if LOCK.is_file() else {}
        if self.url not in locked:
            locked[self.url] = self._published()
            LOCK.write_text(json.dumps(locked, indent=2, sort_keys=True) + "\n")
        return locked[self.url]

    def _published(self) -> str:
        name = urllib.parse.unquote(self.url.rsplit("/", 1)[1])
        with _open(self.sums) as answer:
            text = answer.read(_CHUNK).decode(errors="replace")
        for line in text.splitlines():
            # A list has "sum  name" lines; a file with one sum alone belongs to the file it lies beside.
            match = re.fullmatch(r"([0-9a-f]{64})(?:\s+\*?(?:\./)?(\S+))?\s*", line)
            if match and match[2] in (None, name):
                return match[1]
        raise Unavailable(f"{self.sums}: has no sha256 of {name}: correct `sums` in toolchain/manifest.toml")

    def _keep(self, download: Path, folder: Path) -> None:
        if "." in self.files:
            _install(download.open("rb"), folder / self.files["."])
            return
        with tarfile.open(download) as archive:
            for member, path in self.files.items():
                try:
                    source = archive.extractfile(member)
                except KeyError:
                    source = None
                if source is None:
                    raise Unavailable(
                        f"{self.url}: has no file {member}: correct it in toolchain/manifest.toml"
                    )
                _install(source, folder / path)


def _install(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as out:
        shutil.copyfileobj(source, out)
    target.chmod(0o755)


@contextmanager
def _open(url: str) -> Iterator[IO[bytes]]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 (https by the model)
            yield answer
    except (urllib.error.URLError, OSError) as error:
        raise Unavailable(f"{url}: {getattr(error, 'reason', error)}") from None


def download(url: str, target: Path, progress: Callable[[str], None]) -> str:
    """Writes what an https address gives to a file, and returns its sha256.

    Raises:
        Unavailable: the server or file is not there.
    """
    digest = hashlib.sha256()
    with _open(url) as answer, target.open("wb") as out:
        total = int(getattr(answer, "headers", {}).get("Content-Length") or 0)
        while chunk := answer.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
            progress(f"{out.tell() >> 20} of {total >> 20} MiB of {url}")
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()
