"""The compiled module runs as native code: WasmEdge falls back to its interpreter in silence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from tests.workloads.world import Built, own_folder
from toolchain.build import inside
from toolchain.manifest import CACHE, load
from workloads.client import Client
from workloads.local import Server, running

BATCH = np.ones((400, 64), np.float32)


def seconds(module: Path, built: Built, log: Path) -> float:
    """Mean time in the model for a large batch, as the server itself counts it."""
    with running(module, built.model, log) as server:
        with Client(server.url) as client:
            for _ in range(5):
                client.infer(BATCH)
        return total(server) / 5


def total(server: Server) -> float:
    text = subprocess.run(
        ["curl", "-sf", f"{server.url}/metrics"], check=True, capture_output=True, text=True
    ).stdout
    return next(
        float(line.split()[1])
        for line in text.splitlines()
        if line.startswith("inference_duration_seconds_sum")
    )


def test_native_code_runs(built: Built, tmp_path: Path) -> None:
    native = seconds(built.module, built, tmp_path / "native")
    interpreted = seconds(built.server / "portable.wasm", built, tmp_path / "portable")
    assert "interpreter" not in (tmp_path / "native").read_text()
    assert interpreted > 5 * native


def test_code_that_would_be_interpreted_is_refused() -> None:
    with own_folder("aot") as folder:
        (folder / "max.rs").write_text(
            '#[no_mangle] pub extern "C" fn larger(a: f32, b: f32) -> f32 { a.max(b) }\n'
        )
        place = f"/cache/{folder.relative_to(CACHE)}"
        compiled = in_root(
            *("rustc", "--target=wasm32-wasip1", "-Clinker=wasm-ld", "-O", "-Cstrip=symbols"),
            *("--crate-type=cdylib", f"{place}/max.rs", "-o", f"{place}/max.wasm"),
        )
        assert compiled.returncode == 0, compiled.stderr
        refused = in_root("./aot.sh", f"{place}/max.wasm", f"{place}/out.wasm")
        assert refused.returncode == 1
        assert " U fmaxf" in refused.stdout
        assert "error: WasmEdge would interpret this module" in refused.stderr
        assert not (folder / "out.wasm").exists()


def in_root(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the build root, in the folder workloads."""
    return subprocess.run(
        [*inside(load()[0], "workloads"), *command], capture_output=True, text=True, check=False
    )


def test_the_servers_own_tests() -> None:
    manifest = "--manifest-path=server/Cargo.toml"
    result = in_root("cargo", "test", manifest, "--locked", "--lib", "--quiet")
    assert result.returncode == 0, result.stdout + result.stderr
