"""Writes OCI image archives whose bytes depend on their content only."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
NAME = "io.containerd.image.name"


def layer(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    """A layer as an uncompressed tar: the files and their folders, owned by root, without times.

    Args:
        files: path in the image, without a leading slash, to content.
        mode: permissions of the files.
    """
    folders = {str(parent) for path in files for parent in Path(path).parents if str(parent) != "."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted({*folders, *files}):
            entry = tarfile.TarInfo(path)
            if path in files:
                entry.size, entry.mode = len(files[path]), mode
                tar.addfile(entry, io.BytesIO(files[path]))
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
    return buffer.getvalue()


def image(
    layers: list[bytes], entrypoint: list[str], env: dict[str, str], platform: str = "wasip1/wasm"
) -> tuple[str, dict[str, bytes]]:
    """An image for one platform.

    Args:
        layers: tars, the lowest first.
        entrypoint: program and arguments.
        env: the container's environment.
        platform: operating system and architecture, as containerd writes them.

    Returns:
        The manifest's digest, and every blob by its digest.
    """
    blobs: dict[str, bytes] = {}

    def add(content: bytes, media_type: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    described = [add(content, LAYER) for content in layers]
    system, _, architecture = platform.partition("/")
    config = {
        "architecture": architecture,
        "os": system,
        "config": {"Entrypoint": entrypoint, "Env": [f"{key}={value}" for key, value in sorted(env.items())]},
        "rootfs": {"type": "layers", "diff_ids": [entry["digest"] for entry in described]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(_json(config), CONFIG),
        "layers": described,
    }
    return add(_json(manifest), MANIFEST)["digest"], blobs


def archive(name: str, digest: str, blobs: dict[str, bytes], target: Path) -> None:
    """Writes an OCI layout as a tar that containerd imports under two names: the tag's and the digest's.

    Without the second name the kubelet, told a digest, would ask a registry.

    Args:
        name: image with tag, such as `edge.local/models/digits:v1`.
        digest: of the manifest.
        blobs: every blob by its digest.
        target: the archive; replaced only by a whole one, and only when it differs.
    """
    repository = name.rpartition(":")[0]
    files = _layout(digest, blobs, [{NAME: name}, {NAME: f"{repository}@{digest}"}])
    content = layer(files)
    if target.is_file() and target.read_bytes() == content:
        return
    partial = target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(target)


def write_layout(digest: str, blobs: dict[str, bytes], folder: Path) -> None:
    """Writes an OCI layout of one image as a folder."""
    for path, content in _layout(digest, blobs, [{}]).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def _layout(digest: str, blobs: dict[str, bytes], annotations: list[dict[str, str]]) -> dict[str, bytes]:
    """The files of a layout whose index lists the manifest once for each set of annotations."""
    entry = {"mediaType": MANIFEST, "digest": digest, "size": len(blobs[digest])}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**entry, "annotations": each} for each in annotations],
    }
    return {
        **{f"blobs/{digest.replace(':', '/')}": content for digest, content in blobs.items()},
        "index.json": _json(index),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
