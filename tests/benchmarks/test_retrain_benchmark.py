"""What the benchmark of retraining counts, on files made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
import retrain

TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }'


def written(path: Path, weight: npt.NDArray[np.float32]) -> Path:
    """A network of one weight [4, 3]."""
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, path)
    return path


@pytest.fixture
def weight() -> npt.NDArray[np.float32]:
    found = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    found[1] = 0
    return found


def test_revived_weights_and_density_are_counted(tmp_path: Path, weight: npt.NDArray[np.float32]) -> None:
    pruned = written(tmp_path / "pruned.onnx", weight)
    assert retrain.revived(pruned, written(tmp_path / "same.onnx", weight * 2)) == 0
    back = weight.copy()
    back[1, :2] = 1e-3
    assert retrain.revived(pruned, written(tmp_path / "back.onnx", back)) == 2
    assert retrain.density_of(pruned, written(tmp_path / "dense.onnx", weight + 1)) == 9 / 12


def test_accuracy_is_that_of_the_first_output(tmp_path: Path, weight: npt.NDArray[np.float32]) -> None:
    x = np.eye(4, dtype=np.float32)[[0, 2, 3]]
    np.savez(tmp_path / "data.npz", x=x, labels=np.array([2, 2, 0]))
    assert retrain.accuracy(written(tmp_path / "net.onnx", weight), tmp_path / "data.npz") == 2 / 3
