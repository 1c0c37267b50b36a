"""Asks a served model: one digit, the whole test set against onnxruntime, and how long answers take."""

from __future__ import annotations

import http.client
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from toolchain.manifest import ARTIFACTS

Floats = NDArray[np.float32]
MODEL = "digits"
TIMEOUT = 10.0


class ClientError(Exception):
    """What was asked for cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Digits:
    """The test set and the model file it belongs to.

    Args:
        pixels: FP32 [N, 64], as scanned (0 to 16).
        labels: INT64 [N].
        model: the ONNX file.
    """

    pixels: Floats
    labels: NDArray[np.int64]
    model: Path

    @staticmethod
    def read(folder: Path = ARTIFACTS / "digits") -> Digits:
        """Reads what `python -m workloads build` left.

        Raises:
            ClientError: it is not there.
        """
        try:
            with np.load(folder / "test.npz") as data:
                return Digits(data["pixels"], data["labels"], folder / "model.onnx")
        except FileNotFoundError as error:
            raise ClientError(f"{error.filename} is missing: run `python -m workloads build`") from None


class Client:
    """A keep-alive connection to a server of the Open Inference Protocol v2.

    Args:
        url: its address, such as http://10.213.0.11:8080, with or without a slash at the end.

    Raises:
        ClientError: the URL is none of this kind.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ClientError(
                f"{url} is not http://HOST:PORT: take the URL that `pulumi stack output` prints"
            )
        self.url = url.rstrip("/")
        self._path = f"{parts.path.rstrip('/')}/v2/models/{MODEL}/infer"
        self._host = parts.netloc
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def infer(self, pixels: Floats) -> Floats:
        """Probabilities FP32 [N, 10] of digits FP32 [N, 64].

        Raises:
            ClientError: no answer, or one that is not a good one.
        """
        try:
            self._connection.request("POST", self._path, body(pixels), {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(self.url, error) from None
        try:
            content: dict[str, Any] = json.loads(answer)
            if response.status != 200:
                raise ClientError(f"{self.url} answered {response.status}: {content.get('error', content)}")
            output = content["outputs"][0]
            return np.array(output["data"], np.float32).reshape(output["shape"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise ClientError(f"{self.url} is no inference server: {answer[:200]!r}") from None

    def latencies(self, pixels: Floats, requests: int, warmup: int) -> list[float]:
        """Seconds from sending a request to its whole answer, one request after the other on one connection.

        Bytes go to the socket as they are: Python's HTTP classes would take longer than the server.
        """
        content = body(pixels)
        head = f"POST {self._path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(content)}\r\n\r\n"
        request, seconds = head.encode() + content, []
        self.infer(pixels)
        address = (self._connection.host, self._connection.port)
        try:
            with socket.create_connection(address, TIMEOUT) as stream:
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(warmup + requests):
                    start = time.perf_counter()
                    stream.sendall(request)
                    _receive(stream)
                    seconds.append(time.perf_counter() - start)
        except OSError as error:
            raise _no_answer(self.url, error) from None
        return seconds[warmup:]


def body(pixels: Floats) -> bytes:
    """An inference request of digits FP32 [N, 64]."""
    tensor = {
        "name": "pixels",
        "shape": list(pixels.shape),
        "datatype": "FP32",
        "data": pixels.ravel().tolist(),
    }
    return json.dumps({"inputs": [tensor]}).encode()


def reference(digits: Digits) -> Floats:
    """Probabilities of the test set by onnxruntime."""
    import onnxruntime  # here: its import takes longer than everything else

    session = onnxruntime.InferenceSession(digits.model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": digits.pixels})[0], np.float32)


def _receive(stream: socket.socket) -> None:
    """Reads one answer; its length is in its head."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        received += _more(stream)
    head = received[:end].lower()
    if not head.startswith(b"http/1.1 200"):
        raise OSError(f"unexpected answer: {head.splitlines()[0].decode(errors='replace')}")
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(received) < end + 4 + length:
        received += _more(stream)


def _more(stream: socket.socket) -> bytes:
    if chunk := stream.recv(65536):
        return chunk
    raise OSError("the connection was closed")


def _no_answer(url: str, error: Exception) -> ClientError:
    return ClientError(
        f"{url} does not answer ({error}): see whether the pods are ready (`kubectl get pods -A`)"
        " and the URL is the Service's"
    )
