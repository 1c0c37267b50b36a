"""`python -m workloads` against a running server, and what it says when something is missing."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.workloads.world import Built, model_of, serving
from toolchain.manifest import REPO
from workloads.client import Client, ClientError, Digits, reference
from workloads.local import Server


def cli(*arguments: str) -> tuple[int, str]:
    """Runs the command line; exit code and output."""
    result = subprocess.run(
        [sys.executable, "-m", "workloads", *arguments], cwd=REPO, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout + result.stderr


def test_query(server: Server) -> None:
    for url in (server.url, f"{server.url}/"):
        code, output = cli("query", url)
        assert code == 0
        assert re.search(r"digit: (\d) \(probability 0\.\d+\), expected: \1, \d+\.\d\d ms", output), output


def test_evaluate_equals_onnxruntime(server: Server) -> None:
    code, output = cli("evaluate", server.url)
    assert code == 0, output
    served, wanted = re.findall(r"accuracy \w+: (0\.\d+) on 450 digits", output)
    assert served == wanted
    assert float(served) > 0.97
    assert "labels that differ: 0" in output
    largest = re.search(r"largest difference of a probability: (\S+)", output)
    assert largest
    assert float(largest[1]) < 1e-5


def test_the_whole_test_set_in_one_request(server: Server, built: Built) -> None:
    digits = Digits.read(built.digits)
    with Client(server.url) as client:
        served = client.infer(digits.pixels)
    np.testing.assert_allclose(served, reference(digits), atol=1e-5)


def test_evaluate_fails_when_labels_differ(built: Built) -> None:
    import onnx

    model = onnx.load(built.model)
    bias = next(entry for entry in model.graph.initializer if entry.name == "bias3")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 20
    bias.CopyFrom(onnx.numpy_helper.from_array(values, "bias3"))
    with serving(built, model.SerializeToString(), "wrong") as server:
        code, output = cli("evaluate", server.url)
    assert code == 1
    assert re.search(r"labels that differ: [1-9]", output), output


def test_bench(server: Server) -> None:
    code, output = cli("bench", server.url, "--requests", "50", "--warmup", "5")
    assert code == 0, output
    figures = [float(text) for text in re.findall(r"\d+\.\d{3}", output)]
    assert len(figures) == 4
    assert figures == sorted(figures)
    assert cli("bench", server.url, "--requests", "0")[0] == 2


class NotInference(http.server.BaseHTTPRequestHandler):
    """Answers every POST with a web page."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: object) -> None:
        """Stays quiet."""


def test_wrong_urls_are_named(built: Built) -> None:
    code, output = cli("query", "10.0.0.1:8080")
    assert (code, "10.0.0.1:8080 is not http://HOST:PORT" in output) == (1, True)
    code, output = cli("bench", "http://127.0.0.1:1")
    assert code == 1
    assert "http://127.0.0.1:1 does not answer" in output
    with http.server.HTTPServer(("127.0.0.1", 0), NotInference) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        code, output = cli("evaluate", f"http://127.0.0.1:{other.server_port}")
        other.shutdown()
        thread.join()
    assert code == 1
    assert "is no inference server" in output


def test_another_model_is_named(built: Built) -> None:
    from onnx.helper import make_node

    model = model_of([make_node("Relu", ["x"], ["y"])], ["N", 4]).SerializeToString()
    with (
        serving(built, model, "other") as server,
        Client(server.url) as client,
        pytest.raises(ClientError, match='answered 400: the model has no input "pixels"'),
    ):
        client.infer(np.ones((1, 64), np.float32))


def test_without_a_build_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"test\.npz is missing: run `python -m workloads build`"):
        Digits.read(tmp_path)
