"""Writes a bundle: files, their manifest, its signature; the same contents give the same bytes."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from bundle.contents import BundleError, Contents
from stacks.manifest import SIGNATURE
from workloads.signing import sign_file

MANIFEST = "manifest.json"


def make(contents: Contents, output: Path, progress: Callable[[str], None]) -> None:
    """Writes the bundle to a tar, where the output's name ends in .tar, or else to a folder.

    What is there is replaced when the new one is whole.

    Raises:
        BundleError: the folder is there and holds something else.
        BuildError: it could not be signed.
    """
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise BundleError(f"--output {output}: holds something that is not a bundle: name another folder")
    progress("sums")
    manifest = contents.manifest().model_dump(exclude_none=True)
    signed = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MANIFEST
        file.write_bytes(signed)
        signature = sign_file(file)
    # The manifest comes first, so that a reader of the tar has the sums before the files.
    texts = {MANIFEST: signed, MANIFEST + SIGNATURE: signature}
    partial = output.with_name(f"{output.name}.partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".tar":
        _write_tar(texts, contents.files, partial, progress)
    else:
        shutil.rmtree(partial, ignore_errors=True)
        _write_folder(texts, contents.files, partial, progress)
        shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)


def _mode(path: str) -> int:
    return 0o755 if path.startswith(("bin/", "plugins/")) else 0o644


def _write_folder(
    texts: dict[str, bytes], files: dict[str, Path], folder: Path, progress: Callable[[str], None]
) -> None:
    folder.mkdir()
    for path, content in texts.items():
        (folder / path).write_bytes(content)
    for path, file in sorted(files.items()):
        progress(path)
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(_mode(path))


def _write_tar(
    texts: dict[str, bytes], files: dict[str, Path], target: Path, progress: Callable[[str], None]
) -> None:
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in texts.items():
            archive.addfile(_member(path, len(content)), io.BytesIO(content))
        for path, file in sorted(files.items()):
            progress(path)
            with file.open("rb") as opened:
                archive.addfile(_member(path, file.stat().st_size), opened)


def _member(path: str, size: int) -> tarfile.TarInfo:
    """Owner, group and time are 0, as tarfile has them where nothing else is said."""
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, _mode(path)
    return member
