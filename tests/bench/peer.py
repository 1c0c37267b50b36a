"""The peer of the benchmark: onnxruntime behind Python's HTTP server, speaking the same protocol."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime


def main() -> None:
    """Serves the model argv[1] on loopback, port argv[2]; one thread computes, as in the wasm server."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            given = content["inputs"][0]
            pixels = np.array(given["data"], np.float32).reshape(given["shape"])
            found = session.run(None, {"pixels": pixels})[0]
            output = {"name": "probabilities", "shape": found.shape, "datatype": "FP32"}
            body = json.dumps({"outputs": [output | {"data": found.ravel().tolist()}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()


if __name__ == "__main__":
    main()
