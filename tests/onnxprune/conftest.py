"""Small models for the tests of the command and of what is behind it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

DEAD = (3, 5, 8)
"""Neurons of the first layer of `dead_path` whose incoming weights are all zero; 11 and 12 have zero outgoing ones."""


def mlp(path: Path, arrays: dict[str, Array], *, opset: int = 17) -> Path:
    """Gemm - Relu - Gemm - Relu - Gemm on x [N, in], weights [out, in]; `arrays` holds fc1.weight, fc1.bias, …"""
    nodes, previous = [], "x"
    for index in (1, 2, 3):
        out = "y" if index == 3 else f"h{index}"
        inputs = [previous, f"fc{index}.weight", f"fc{index}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [out], f"fc{index}", transB=1))
        if index < 3:
            nodes.append(helper.make_node("Relu", [out], [f"a{index}"], f"relu{index}"))
        previous = f"a{index}"
    size_in, size_out = arrays["fc1.weight"].shape[1], arrays["fc3.weight"].shape[0]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", size_in])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", size_out])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def mlp_arrays(sizes: tuple[int, int, int, int] = (64, 96, 32, 10)) -> dict[str, Array]:
    """Normal float32 weights and biases, seeded."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for index, (size_in, size_out) in enumerate(pairwise(sizes), start=1):
        arrays[f"fc{index}.weight"] = (rng.standard_normal((size_out, size_in)) / index).astype(np.float32)
        arrays[f"fc{index}.bias"] = rng.standard_normal(size_out).astype(np.float32)
    return arrays


@pytest.fixture
def arrays() -> dict[str, Array]:
    """The weights and biases of `net`."""
    return mlp_arrays()


@pytest.fixture
def net(tmp_path: Path, arrays: dict[str, Array]) -> Path:
    """A dense three-layer perceptron, x [N, 64] -> y [N, 10], alone in its folder."""
    folder = tmp_path / "net"
    folder.mkdir()
    return mlp(folder / "net.onnx", arrays)


@pytest.fixture
def dead_net(tmp_path: Path) -> Path:
    """The same with five dead neurons in its first layer, and whole numbers for weights."""
    folder = tmp_path / "dead"
    folder.mkdir()
    arrays = {name: np.round(array * 2).astype(np.float32) for name, array in mlp_arrays().items()}
    arrays["fc1.weight"][list(DEAD)] = 0
    arrays["fc2.weight"][:, [11, 12]] = 0
    return mlp(folder / "dead.onnx", arrays)


@pytest.fixture
def labelled(tmp_path: Path, net: Path) -> Path:
    """An .npz of 50 inputs for `net`, with what it answers as labels."""
    import onnxruntime as ort

    x = np.random.default_rng(1).standard_normal((50, 64)).astype(np.float32)
    y = ort.InferenceSession(str(net), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    path = tmp_path / "labelled.npz"
    np.savez(path, x=x, labels=np.argmax(y, axis=1))
    return path
