"""From sources to what a site installs: server as wasm, model, image archive, signature."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from toolchain.artifacts import record
from toolchain.build import BuildError, cache_lock, console, inside, prepare_root, run_step
from toolchain.manifest import ARTIFACTS, CACHE, REPO, load, source_files
from workloads.client import Client, Digits
from workloads.image import archive, image, layer
from workloads.local import ServerError, running
from workloads.signing import sign

NAME = "edge.local/models/digits:v1"
FOLDER = REPO / "workloads"
STORE = CACHE / "workloads"
TRAINING_PACKAGES = ("scikit-learn", "numpy", "onnx")
MEMORY_STEP = 16
HEADROOM = 1.25
"""What a measured peak is multiplied by before it is declared: requests larger than the measured ones."""


def build() -> None:
    """Builds what is missing and records it in .artifacts; a second call changes nothing.

    Raises:
        BuildError: a step failed; the message names it and its log.
    """
    ARTIFACTS.mkdir(exist_ok=True)
    with cache_lock():
        server, model = server_folder(), model_folder()
        memory = memory_need(server, model)
    shutil.copytree(model, ARTIFACTS / "digits", dirs_exist_ok=True)
    layers = [
        layer({"server.wasm": (server / "server.wasm").read_bytes()}),
        layer({"models/digits/model.onnx": (model / "model.onnx").read_bytes()}),
    ]
    env = {"MODEL_PATH": "/models/digits/model.onnx", "MODEL_NAME": "digits"}
    digest, blobs = image(layers, ["/server.wasm"], env)
    target = ARTIFACTS / "digits.oci.tar"
    archive(NAME, digest, blobs, target)
    record("digits", "v1", target)
    described = {"image": f"{NAME}@{digest}", "memory": memory}
    (ARTIFACTS / "digits.json").write_text(json.dumps(described, indent=2) + "\n")
    signed = sign(NAME, digest, blobs, ARTIFACTS / "digits-signed")
    accuracy = json.loads((model / "accuracy.json").read_text())
    console.print(f"model: accuracy {accuracy['accuracy']:.4f} on {accuracy['test']} unseen digits")
    size = target.stat().st_size / 1e6
    console.print(f"image: {NAME}@{digest}, {size:.2f} MB, needs {memory}", soft_wrap=True)
    console.print(
        f"signature: {'signed now' if signed else 'unchanged'}, verifies with .artifacts/cosign.pub"
    )


def server_folder() -> Path:
    """The folder in the cache with server.wasm and portable.wasm."""
    root, parts = load()
    wasmedge = next(part.version for part in parts if part.name == "wasmedge")
    sources = b"".join(
        str(file.relative_to(FOLDER)).encode() + b"\0" + file.read_bytes()
        for file in [*source_files(FOLDER / "server"), FOLDER / "build-server.sh", FOLDER / "aot.sh"]
    )

    def compile_server(out: Path) -> None:
        if os.geteuid() != 0:
            raise BuildError("building needs root (chroot and mounts): run it by sudo")
        prepare_root(root)
        run_step(
            "inference server: compiling to wasm, then ahead of time",
            [*inside(root, "workloads/server"), "../build-server.sh"],
            "server",
            {"OUT": f"/cache/{out.relative_to(CACHE)}"},
        )

    return _cached("server", [sources, root.key, wasmedge, platform.machine()], compile_server)


def model_folder() -> Path:
    """The folder in the cache with model.onnx, test.npz and accuracy.json."""
    script = FOLDER / "digits" / "train.py"
    versions = [importlib.metadata.version(package) for package in TRAINING_PACKAGES]

    def train(out: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "workloads.digits.train", str(out)]
        run_step("model digits: training", command, "digits", {"PYTHONPATH": str(REPO)})

    return _cached("digits", [script.read_bytes(), *versions], train)


def memory_need(server: Path, model: Path) -> str:
    """The memory of a pod as a Kubernetes quantity: the measured peak, with headroom.

    Measured on this machine by asking a running server the whole test set, one by one and at once.
    """

    def measure(out: Path) -> None:
        digits = Digits.read(model)
        try:
            with running(server / "server.wasm", model / "model.onnx", out / "log") as found:
                with Client(found.url) as client:
                    client.infer(digits.pixels)
                    for row in digits.pixels:
                        client.infer(row[None])
                (out / "peak").write_text(f"{found.peak_mib:.1f}\n")
        except ServerError as error:
            raise BuildError(str(error)) from None

    folder = _cached("memory", [server.name, model.name], measure)
    peak = float((folder / "peak").read_text())
    return f"{math.ceil(peak * HEADROOM / MEMORY_STEP) * MEMORY_STEP}Mi"


def _cached(kind: str, inputs: list[str | bytes], make: Callable[[Path], None]) -> Path:
    """A folder in the cache, made once for the same inputs; stopped in between, nothing is left of it."""
    key = hashlib.sha256(
        b"\0".join(each.encode() if isinstance(each, str) else each for each in inputs)
    ).hexdigest()[:16]
    folder = STORE / f"{kind}-{key}"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        make(partial)
        partial.rename(folder)
    return folder
