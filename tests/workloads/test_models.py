"""The executor's operators compared with onnxruntime's, and models that it cannot run."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.helper import make_node, make_opsetid

from tests.workloads.world import Array, Built, infer, model_of, serving
from workloads.local import ServerError

RANDOM = np.random.default_rng(7)


def floats(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


INT = TensorProto.INT64
CHAIN = [
    make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.array(0.5, np.float32))),
    make_node("Reshape", ["x", "s"], ["r"]),
    make_node("MatMul", ["r", "w"], ["m"]),
    make_node("Mul", ["m", "k"], ["h"]),
    make_node("Tanh", ["h"], ["t"]),
    make_node("Flatten", ["t"], ["f"]),
    make_node("Identity", ["f"], ["y"]),
]
MODELS: dict[str, tuple[onnx.ModelProto, Array]] = {
    "gemm": (
        model_of(
            [make_node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0, transB=1)],
            ["N", 5],
            {"w": floats(7, 5), "b": floats(7)},
        ),
        floats(3, 5),
    ),
    "gemm-turned": (model_of([make_node("Gemm", ["x", "x"], ["y"], transA=1)], [4, 4]), floats(4, 4)),
    "arithmetic": (
        model_of(
            [
                make_node("Sub", ["x", "a"], ["s"]),
                make_node("Div", ["s", "b"], ["d"]),
                make_node("Add", ["c", "d"], ["y"]),
            ],
            ["N", 3, 4],
            {"a": floats(3, 1), "b": floats(1, 1, 4), "c": floats(2, 1, 1)},
        ),
        floats(2, 3, 4),
    ),
    "relu-sigmoid": (
        model_of([make_node("Relu", ["x"], ["r"]), make_node("Sigmoid", ["r"], ["y"])], ["N", 8]),
        10 * floats(4, 8),
    ),
    "sigmoid-extremes": (
        model_of([make_node("Sigmoid", ["x"], ["y"])], ["N", 3]),
        np.array([[-200, 0, 200]], np.float32),
    ),
    "chain": (
        model_of(CHAIN, ["N", 12], {"s": np.array([0, 3, -1], np.int64), "w": floats(4, 6)}),
        floats(5, 12),
    ),
    "softmax": (model_of([make_node("Softmax", ["x"], ["y"], axis=1)], ["N", 3, 5]), 100 * floats(2, 3, 5)),
    "argmax": (model_of([make_node("ArgMax", ["x"], ["y"], axis=-1)], ["N", 9], output=INT), floats(6, 9)),
    "argmax-cast": (
        model_of(
            [make_node("ArgMax", ["x"], ["a"], axis=1, keepdims=0), make_node("Cast", ["a"], ["y"], to=1)],
            ["N", 4, 3],
        ),
        floats(2, 4, 3),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_operators_as_onnxruntime(built: Built, name: str) -> None:
    model, values = MODELS[name]
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run(None, {"x": values})[0])
    with serving(built, content, name) as server:
        found = infer(server, values)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def refusal(built: Built, content: bytes) -> str:
    with pytest.raises(ServerError) as caught, serving(built, content, "refused"):
        pass
    return str(caught.value)


def test_an_unsupported_operator_is_named_at_start(built: Built) -> None:
    model = model_of([make_node("Relu", ["x"], ["r"]), make_node("Erf", ["r"], ["y"], name="gelu")], ["N", 4])
    message = refusal(built, model.SerializeToString())
    assert (
        'error: model /models/model.onnx: operator Erf (node "gelu") is not supported; this server has'
        in message
    )
    foreign = model_of([make_node("Relu", ["x"], ["y"], domain="com.example")], ["N", 4])
    foreign.opset_import.append(make_opsetid("com.example", 1))
    assert 'operator Relu of domain "com.example" is not supported' in refusal(
        built, foreign.SerializeToString()
    )
    old = model_of([make_node("Softmax", ["x"], ["y"])], ["N", 4], opset=11)
    assert "operator Softmax of opset 11 is not supported" in refusal(built, old.SerializeToString())


def test_shapes_that_do_not_fit_show_at_start(built: Built) -> None:
    model = model_of([make_node("MatMul", ["x", "w"], ["y"], name="head")], ["N", 4], {"w": floats(5, 2)})
    assert 'MatMul (node "head"): shapes [1, 4] and [5, 2] do not fit' in refusal(
        built, model.SerializeToString()
    )


def test_damaged_files_are_errors(built: Built) -> None:
    content = built.model.read_bytes()
    assert "not a usable ONNX file" in refusal(built, content[: len(content) // 2])
    assert "not a usable ONNX file" in refusal(built, b"PK\x03\x04 not a model")
    assert "not a usable ONNX file: no graph in it" in refusal(built, b"")
