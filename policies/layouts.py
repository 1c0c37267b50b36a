"""OCI layouts on disk, and the signatures in them."""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUNDLE = "application/vnd.dev.sigstore.bundle"
"""How the type of a Sigstore bundle begins; its version follows."""
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
# What `cosign save` calls the image; cosign takes the first index, else the first image.
_SAVED = ("dev.cosignproject.cosign/imageIndex", "dev.cosignproject.cosign/image")
_DEEPEST = 4
_LARGEST = 4 << 20


class LayoutError(ValueError):
    """A layout that cannot be read; it says why."""


@dataclass(frozen=True)
class Layout:
    """What a layout holds.

    Args:
        folder: where it is.
        saved: digest of the image that `cosign save` wrote, or None.
        bundles: digest of an image → files of the Sigstore bundles about it.
    """

    folder: Path
    saved: str | None
    bundles: Mapping[str, tuple[Path, ...]]


def read(folder: Path) -> Layout | None:
    """Return what a layout holds, or None where there is none.

    Raises:
        LayoutError: it cannot be read, or is no layout.
    """
    index = folder / "index.json"
    try:
        stamp = index.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LayoutError(f"{index.name}: {error.strerror}") from None
    return _read(folder, stamp.st_mtime_ns, stamp.st_size)


@functools.lru_cache(maxsize=64)
def _read(folder: Path, changed: int, size: int) -> Layout:
    try:
        entries = _entries(_json(folder / "index.json"))
        bundles: dict[str, list[Path]] = {}
        for entry in entries:
            for subject, file in _bundles(folder, entry, 0):
                bundles.setdefault(subject, []).append(file)
        return Layout(folder, _saved(entries), {key: tuple(files) for key, files in bundles.items()})
    except OSError as error:
        raise LayoutError(f"{Path(error.filename or folder).name}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LayoutError(f"it is no OCI layout: {error!r}"[:200]) from None


def _entries(index: Any) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = index["manifests"]
    for entry in entries:
        _blob(Path(), entry)
    return entries


def _saved(entries: list[dict[str, Any]]) -> str | None:
    for kind in _SAVED:
        for entry in entries:
            if (entry.get("annotations") or {}).get("kind") == kind:
                return str(entry["digest"])
    return None


def _bundles(folder: Path, entry: dict[str, Any], depth: int) -> Iterator[tuple[str, Path]]:
    """Yield subject and bundle of what an index's entry leads to; indexes may lie in indexes."""
    file = _blob(folder, entry)
    # A layout may hold an index without all that it lists, as a copy for one platform does.
    if depth > _DEEPEST or not file.is_file():
        return
    manifest = _json(file)
    if entry.get("mediaType") in _INDEXES:
        for inner in _entries(manifest):
            yield from _bundles(folder, inner, depth + 1)
        return
    subject, layers = manifest.get("subject"), manifest.get("layers") or []
    if subject and len(layers) == 1 and str(layers[0].get("mediaType")).startswith(BUNDLE):
        yield str(subject["digest"]), _blob(folder, layers[0])


def _blob(folder: Path, entry: dict[str, Any]) -> Path:
    match = _DIGEST.fullmatch(entry["digest"])
    if match is None:
        raise ValueError(f"{entry['digest']!r} is no sha256 digest")
    return folder / "blobs" / "sha256" / match[1]


def _json(file: Path) -> Any:
    with file.open("rb") as opened:
        return json.loads(opened.read(_LARGEST))
