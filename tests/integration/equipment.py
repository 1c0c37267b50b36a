"""Test equipment for GPUs that are not there: a plugin with made-up devices, and a witness."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from toolchain.build import cache_lock, inside, prepare_root, run_step
from toolchain.manifest import CACHE, load, source_files
from workloads.image import archive, image, layer

SOURCES = Path(__file__).parent / "deviceplugin"
PLUGIN = "usr/bin/nvidia-device-plugin"
"""Where NVIDIA's image has its program."""


@dataclass(frozen=True)
class Image:
    """An image in an archive.

    Args:
        reference: its name by digest.
        archive: what containerd imports.
    """

    reference: str
    archive: Path

    @property
    def sha256(self) -> str:
        """The archive's sum."""
        return hashlib.sha256(self.archive.read_bytes()).hexdigest()


def images(folder: Path) -> dict[str, Image]:
    """The plugin, and the witness as a Linux program and as a WebAssembly module."""
    built = _programs()
    return {
        "plugin": _image("plugin", {PLUGIN: built / "plugin"}, "linux/amd64", folder),
        "see": _image("see", {"see": built / "see"}, "linux/amd64", folder),
        "see-wasm": _image("see-wasm", {"see.wasm": built / "see.wasm"}, "wasip1/wasm", folder),
    }


def _image(name: str, files: dict[str, Path], platform: str, folder: Path) -> Image:
    content = layer({path: file.read_bytes() for path, file in files.items()}, mode=0o755)
    digest, blobs = image([content], [f"/{next(iter(files))}"], {"PATH": "/usr/bin"}, platform)
    target = folder / f"{name}.tar"
    repository = f"edge.local/tests/{name}"
    archive(f"{repository}:v1", digest, blobs, target)
    return Image(f"{repository}@{digest}", target)


def _programs() -> Path:
    """The folder in the cache with the built programs."""
    root, _ = load()
    sources = b"".join(file.name.encode() + b"\0" + file.read_bytes() for file in source_files(SOURCES))
    key = hashlib.sha256(root.key.encode() + sources).hexdigest()[:16]
    final = CACHE / "tests" / f"deviceplugin-{key}"
    with cache_lock():
        if not final.is_dir():
            partial = final.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            prepare_root(root)
            run_step(
                "test equipment: device plugin",
                [*inside(root, "tests/integration/deviceplugin"), "./build.sh"],
                "deviceplugin",
                {"OUT": f"/cache/{partial.relative_to(CACHE)}"},
            )
            partial.rename(final)
    return final
