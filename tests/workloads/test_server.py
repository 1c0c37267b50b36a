"""The server's answers: health, metadata, metrics, inference, and what it refuses."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.workloads.world import ask, connect, tensor
from workloads.local import Server

ONE = np.full((1, 64), 3, np.float32)
MODEL = "/v2/models/digits"


def address(server: Server) -> tuple[str, int]:
    parts = urlsplit(server.url)
    return str(parts.hostname), int(parts.port or 0)


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/healthz", {"status": "ok"}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/health/ready/?probe=1", {"ready": True}),
        (f"{MODEL}/ready", {"name": "digits", "ready": True}),
        ("/v2", {"name": "edge-inference-server", "version": "0.1.0", "extensions": []}),
    ],
)
def test_health_and_metadata(server: Server, path: str, answer: object) -> None:
    assert ask(server, "GET", path) == (200, answer)


def test_model_metadata(server: Server) -> None:
    status, answer = ask(server, "GET", MODEL)
    assert status == 200
    assert answer["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]
    assert answer["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]


def test_inference_keeps_batch_and_id(server: Server) -> None:
    batch = np.vstack([ONE, 2 * ONE])
    request = {**json.loads(tensor(batch)), "id": "a-7", "outputs": [{"name": "probabilities"}]}
    status, answer = ask(server, "POST", f"{MODEL}/infer", json.dumps(request))
    assert status == 200
    assert answer["id"] == "a-7"
    assert answer["outputs"][0]["shape"] == [2, 10]
    rows = np.array(answer["outputs"][0]["data"]).reshape(2, 10)
    assert rows.sum(1) == pytest.approx([1, 1], abs=1e-5)
    nested = tensor(batch, data=batch.tolist())
    assert ask(server, "POST", "/infer", nested)[1]["outputs"] == answer["outputs"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "no inference request: EOF"),
        ("{]", "no inference request: key must be a string"),
        ("[" * 100_000, "no inference request"),
        ("{}", "missing field `inputs`"),
        ('{"inputs": []}', 'input "pixels" must be there once'),
        (tensor(ONE, "image"), 'the model has no input "image"; it has ["pixels"]'),
        (tensor(ONE, datatype="INT8"), 'datatype "INT8"; the model wants FP32'),
        (tensor(ONE[:, :63]), "shape [1, 63]; the model wants [-1, 64]"),
        (tensor(ONE, shape=[64]), "shape [64]; the model wants [-1, 64]"),
        (tensor(ONE, shape=[0, 64], data=[]), "shape [0, 64]; the model wants [-1, 64]"),
        (tensor(ONE, shape=[2, 64]), "has 64 numbers; its shape [2, 64] needs others"),
        (tensor(ONE, shape=[2**62, 64]), "has 64 numbers"),
        (tensor(ONE, shape=[-1, 64]), "shape [-1, 64]; the model wants"),
        (tensor(ONE, data=["a"] * 64), "a number or a list of numbers"),
        (tensor(ONE, data=[1e39] * 64), "1e39 does not fit FP32"),
        (tensor(ONE, data=[float("nan")] * 64), "no inference request"),
        (tensor(ONE)[:-1] + ', "outputs": [{"name": "y"}]}', 'the model has no output "y"'),
    ],
)
def test_bad_bodies_are_named(server: Server, body: str, message: str) -> None:
    status, answer = ask(server, "POST", "/infer", body)
    assert status == 400
    assert message in answer["error"]
    assert len(answer["error"]) < 300


def test_wrong_paths_and_methods(server: Server) -> None:
    assert ask(server, "GET", "/v2/models/cats/ready") == (
        404,
        {"error": 'there is no model "cats"; this server has "digits"'},
    )
    assert ask(server, "GET", "/admin")[0] == 404
    assert ask(server, "GET", f"{MODEL}/versions")[0] == 404
    assert ask(server, "GET", "/infer") == (405, {"error": "/infer takes POST, not GET"})
    connection = connect(server)
    connection.request("DELETE", MODEL)
    response = connection.getresponse()
    assert (response.status, response.headers["Allow"]) == (405, "GET")
    connection.close()


def test_oversized_bodies_are_refused_and_the_client_reads_why(server: Server) -> None:
    status, answer = ask(server, "POST", "/infer", b" " * (5 * 2**20))
    assert status == 413
    assert "over 4194304 bytes" in answer["error"]
    assert ask(server, "GET", "/healthz", Cookie="x" * 9000)[0] == 431


def test_not_http(server: Server) -> None:
    with socket.create_connection(address(server), 10) as stream:
        stream.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        answer = stream.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close" in answer


def test_one_connection_answers_many_requests(server: Server) -> None:
    connection = connect(server)
    for _ in range(50):
        connection.request("POST", "/infer", tensor(ONE))
        assert connection.getresponse().read().startswith(b'{"model_name":"digits"')
    connection.request("GET", "/nothing")
    assert connection.getresponse().read()
    stream = connection.sock
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b'{"status":"ok"}'
    assert connection.sock is stream
    connection.close()


def test_pipelined_requests_and_close(server: Server) -> None:
    with socket.create_connection(address(server), 10) as stream:
        stream.sendall(
            b"GET /healthz HTTP/1.1\r\n\r\n" * 3 + b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n"
        )
        answer = stream.makefile("rb").read()
    assert answer.count(b"HTTP/1.1 200 OK") == 4


def test_expect_continue(server: Server) -> None:
    body = tensor(ONE).encode()
    with socket.create_connection(address(server), 10) as stream:
        stream.sendall(
            f"POST /infer HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        assert stream.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        stream.sendall(body)
        assert stream.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_slow_clients_hold_nobody_up(server: Server) -> None:
    half = socket.create_connection(address(server), 10)
    half.sendall(b"POST /infer HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{")
    deaf = socket.create_connection(address(server), 10)
    body = tensor(np.zeros((12_000, 64), np.float32), data=[0] * (12_000 * 64)).replace(" ", "").encode()
    deaf.sendall(f"POST /infer HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    time.sleep(0.5)  # its answer fills the socket's buffers meanwhile
    start = time.monotonic()
    assert ask(server, "GET", "/healthz")[0] == 200
    assert time.monotonic() - start < 0.5
    answer = b""
    while not answer.endswith(b"]}]}"):
        answer += deaf.recv(2**20)
    assert len(json.loads(answer.split(b"\r\n\r\n")[1])["outputs"][0]["data"]) == 120_000
    half.close()
    deaf.close()


def test_many_connections_at_once(server: Server) -> None:
    wanted = ask(server, "POST", "/infer", tensor(ONE))[1]
    failures: list[object] = []

    def client() -> None:
        connection = connect(server)
        for _ in range(30):
            connection.request("POST", "/infer", tensor(ONE))
            answer = json.loads(connection.getresponse().read())
            if answer != wanted:
                failures.append(answer)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_more_connections_than_the_limit_wait_their_turn(server: Server) -> None:
    idle = [socket.create_connection(address(server), 10) for _ in range(300)]
    late = socket.create_connection(address(server), 10)
    late.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
    for stream in idle:
        stream.close()
    assert late.recv(100).startswith(b"HTTP/1.1 200 OK")
    late.close()


def test_metrics_count(server: Server) -> None:
    def metrics() -> dict[str, float]:
        connection = connect(server)
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = response.read().decode()
        connection.close()
        return {
            name: float(value) for name, value in re.findall(r"^([a-z][^ ]*) ([^ ]+)$", text, re.MULTILINE)
        }

    before = metrics()
    assert ask(server, "POST", "/infer", tensor(ONE))[0] == 200
    assert ask(server, "POST", "/infer", "")[0] == 400
    after = metrics()
    changes = {name: after[name] - before.get(name, 0) for name in after}
    assert changes['http_requests_total{code="200"}'] == 2
    assert changes['http_requests_total{code="400"}'] == 1
    assert changes["inference_duration_seconds_count"] == 1
    assert changes['inference_duration_seconds_bucket{le="+Inf"}'] == 1
    assert 0 < changes["inference_duration_seconds_sum"] < 0.1
    assert 0 < after['model_load_milliseconds{model="digits"}'] < 1000
    assert after["wasm_memory_bytes"] % 65536 == 0
