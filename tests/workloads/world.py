"""Requests to a running server, and small models for it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from toolchain.manifest import CACHE
from workloads.local import Server, running

Array = NDArray[Any]


@dataclass(frozen=True)
class Built:
    """Folders in the cache.

    Args:
        server: holds server.wasm and portable.wasm.
        digits: holds model.onnx and test.npz.
    """

    server: Path
    digits: Path

    @property
    def module(self) -> Path:
        """The server with AOT code."""
        return self.server / "server.wasm"

    @property
    def model(self) -> Path:
        """The digits model."""
        return self.digits / "model.onnx"


def connect(server: Server) -> http.client.HTTPConnection:
    """A connection that stays open."""
    parts = urlsplit(server.url)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)


def ask(
    server: Server, method: str, path: str, body: bytes | str | None = None, **headers: str
) -> tuple[int, Any]:
    """One request on a connection of its own; status, and the answer read as JSON."""
    connection = connect(server)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def tensor(values: Array, name: str = "pixels", **changes: Any) -> str:
    """The body of an inference request with one input."""
    content = {"name": name, "shape": list(values.shape), "datatype": "FP32", "data": values.ravel().tolist()}
    return json.dumps({"inputs": [{**content, **changes}]})


def model_of(
    nodes: list[onnx.NodeProto],
    shape: list[int | str],
    constants: dict[str, Array] | None = None,
    output: int = TensorProto.FLOAT,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with input `x` and output `y`."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@contextmanager
def own_folder(name: str) -> Iterator[Path]:
    """A folder of the test's own in the cache, which the build root sees; removed at the end."""
    folder = CACHE / "workloads" / f"test-{name}-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def serving(built: Built, model: bytes, name: str) -> Iterator[Server]:
    """A server with a model of the test's own."""
    with own_folder(name) as folder:
        (folder / "model.onnx").write_bytes(model)
        with running(built.module, folder / "model.onnx", folder / "log") as server:
            yield server


def infer(server: Server, values: Array) -> Array:
    """Output `y` of such a model for an input `x`."""
    status, answer = ask(server, "POST", "/infer", tensor(values.astype(np.float32), "x"))
    assert status == 200, answer
    output = answer["outputs"][0]
    return np.array(output["data"]).reshape(output["shape"])
