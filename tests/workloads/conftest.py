"""What the workload tests share: the built server, running under the build root's WasmEdge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workloads.world import Built
from toolchain.build import cache_lock
from workloads.build import model_folder, server_folder
from workloads.local import Server, running


@pytest.fixture(scope="session")
def built() -> Built:
    """Server and model, built when they are missing."""
    with cache_lock():
        return Built(server_folder(), model_folder())


@pytest.fixture(scope="session")
def server(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with the digits model on a loopback port."""
    log: Path = tmp_path_factory.mktemp("server") / "log"
    with running(built.module, built.model, log) as found:
        yield found
