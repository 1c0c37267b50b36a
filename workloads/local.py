"""Runs the server here, under the build root's WasmEdge: for measurements and tests without a cluster."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolchain.build import inside
from toolchain.manifest import CACHE, load

START_SECONDS = 15


class ServerError(Exception):
    """The server did not start; the message ends with what it printed."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Args:
        url: where it answers.
        pid: its process.
        log: what it prints.
        start_seconds: from the start of the process to the first accepted connection.
    """

    url: str
    pid: int
    log: Path
    start_seconds: float

    @property
    def peak_mib(self) -> float:
        """The largest resident memory so far, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


def command(module: Path, model: Path, port: int) -> list[str]:
    """The command line; module and model must lie in the cache, which the build root sees."""
    return [
        *inside(load()[0], "."),
        "wasmedge",
        "--dir",
        f"/models:{_within(model.parent)}",
        "--env",
        f"MODEL_PATH=/models/{model.name}",
        "--env",
        "MODEL_NAME=digits",
        "--env",
        f"PORT={port}",
        _within(module),
    ]


@contextmanager
def running(module: Path, model: Path, log: Path) -> Iterator[Server]:
    """A server on a free loopback port, stopped at the end.

    Args:
        module: the server as wasm, in the cache.
        model: an ONNX file in the cache.
        log: file for what the server prints.

    Raises:
        ServerError: it ended, or did not listen in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    start = time.monotonic()
    with (
        log.open("wb") as out,
        subprocess.Popen(command(module, model, port), stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            while not _listens(port):
                if process.poll() is not None or time.monotonic() - start > START_SECONDS:
                    raise ServerError(f"the server does not listen on {port}: {log.read_text().strip()}")
                time.sleep(0.002)
            yield Server(f"http://127.0.0.1:{port}", process.pid, log, time.monotonic() - start)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _within(path: Path) -> str:
    return f"/cache/{path.resolve().relative_to(CACHE.resolve())}"
