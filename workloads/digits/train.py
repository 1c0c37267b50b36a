"""Trains the sample model on scikit-learn's digits (1797 real scans of 8 x 8 pixels) and exports it as ONNX.

Everything random has a fixed seed, so the same packages give the same model.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 7
BRIGHTEST = 16.0
"""The data set's pixels are 0 to 16; the model scales them itself."""


def export(classifier: MLPClassifier) -> onnx.ModelProto:
    """The classifier as a graph: input `pixels` FP32 [N, 64], as scanned; output `probabilities`."""
    nodes = [helper.make_node("Div", ["pixels", "brightest"], ["scaled"], name="scale")]
    weights = [numpy_helper.from_array(np.array(BRIGHTEST, np.float32), "brightest")]
    previous = "scaled"
    layers = list(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    for number, (matrix, bias) in enumerate(layers, 1):
        weights.append(numpy_helper.from_array(matrix.astype(np.float32), f"weights{number}"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"bias{number}"))
        inputs = [previous, f"weights{number}", f"bias{number}"]
        nodes.append(helper.make_node("Gemm", inputs, [f"sum{number}"], name=f"layer{number}"))
        previous = f"sum{number}"
        if number < len(layers):
            nodes.append(helper.make_node("Relu", [previous], [f"active{number}"], name=f"relu{number}"))
            previous = f"active{number}"
    nodes.append(helper.make_node("Softmax", [previous], ["probabilities"], name="softmax", axis=-1))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def train(folder: Path) -> float:
    """Writes model.onnx, test.npz (`pixels`, `labels`: the quarter not trained on) and accuracy.json.

    Args:
        folder: where to; made if it is missing.

    Returns:
        Accuracy on the test set, from 0 to 1.
    """
    pixels, labels = load_digits(return_X_y=True)
    seen, unseen, seen_labels, unseen_labels = train_test_split(
        pixels, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    classifier = MLPClassifier((128, 64), max_iter=60, random_state=SEED, early_stopping=False, tol=0)
    classifier.fit(seen / BRIGHTEST, seen_labels)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(export(classifier).SerializeToString(deterministic=True))
    np.savez(folder / "test.npz", pixels=unseen.astype(np.float32), labels=unseen_labels.astype(np.int64))
    accuracy = float(classifier.score(unseen / BRIGHTEST, unseen_labels))
    (folder / "accuracy.json").write_text(json.dumps({"accuracy": accuracy, "test": len(unseen)}) + "\n")
    return accuracy


def main() -> None:
    """Command line: `python -m workloads.digits.train FOLDER`."""
    parser = argparse.ArgumentParser(description=train.__doc__)
    parser.add_argument("folder", type=Path, help="where model.onnx and test.npz go")
    folder = parser.parse_args().folder
    print(f"accuracy on the test set: {train(folder):.4f}")


if __name__ == "__main__":
    main()
