"""Encoded tensors as small models of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnxprune_passes.encode import OUTPUT, encode_model, standalone_decoders
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load, save, to_proto

NDArray = npt.NDArray[Any]
Build = Callable[..., Model]
Sparse = Callable[..., NDArray]
Run = Callable[[Model, Mapping[str, NDArray], Any], list[tuple[tuple[int, ...], bytes]]]

TEXT = """
<ir_version: 9, opset_import: ["": 17, "l": 1, "com.microsoft": 1]>
g (float[N,32] x, bool c) => (float[N,32] y) {
  h = com.microsoft.FusedMatMul(x, w)
  i = l.F(h)
  y = If (c) <then_branch = t () => (float[N,32] o1) { k = Constant <value = float[1] {0}> ()
                                                       o1 = MatMul(i, k) },
              else_branch = e () => (float[N,32] o2) { o2 = MatMul(i, v) }>
}
<domain: "l", opset_import: ["": 17]> F (p) => (q) { k = Constant <value = float[1] {0}> ()
  q = MatMul(p, k) }"""


@pytest.fixture
def tensors(sparse: Sparse) -> dict[str, NDArray]:
    keys = ("w", "y.then_branch/k", "y.else_branch/v", "l::F/k")
    return {key: sparse(32, 32, density=density) for key, density in zip(keys, (0.02, 0.1, 0.3, 0.5), strict=True)}


@pytest.mark.parametrize("encoding", ["auto", "gaps", "bitmask", "coo"])
def test_a_model_for_each_tensor(build: Build, tensors: dict[str, NDArray], run: Run, encoding: Any) -> None:
    encoded = encode_model(build(TEXT, tensors), encoding)
    found = dict(standalone_decoders(encoded.model))
    assert set(found) == {tensor.key for tensor in encoded.tensors}
    assert len(found) == (3 if encoding == "coo" else 4)
    for key, small in found.items():
        assert ([*small.graph.input], [value.name for value in small.graph.output]) == ([], [OUTPUT])
        assert {entry.domain for entry in small.skeleton.opset_import} <= {"", "onnxprune"}
        callers = (*small.graph.node, *(node for each in small.skeleton.functions for node in each.node))
        made_by = {(node.domain, node.op_type) for node in callers if node.domain}
        assert {(function.domain, function.name) for function in small.skeleton.functions} == made_by
        assert bool(made_by) == (encoding != "coo")
        for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
            assert run(small, {}, level) == [((32, 32), tensors[key].tobytes())]


def test_they_are_valid(build: Build, tensors: dict[str, NDArray]) -> None:
    for _, small in standalone_decoders(encode_model(build(TEXT, tensors)).model):
        proto = to_proto(small)
        proto.graph.output[0].type.tensor_type.shape.SetInParent()
        onnx.checker.check_model(proto, full_check=False)


def test_external_parts_are_taken_in(build: Build, sparse: Sparse, run: Run, tmp_path: Path) -> None:
    array = sparse(200, 200, density=0.2)
    model = build("g (float[N,200] x) => (float[N,200] y) { y = MatMul(x, w) }", {"w": array})
    stored = load(save(encode_model(model).model, tmp_path / "model.onnx", external=True))
    ((key, small),) = standalone_decoders(stored)
    assert key == "w"
    assert all(tensor.data_location != onnx.TensorProto.EXTERNAL for tensor in to_proto(small).graph.initializer)
    assert run(small, {}, ort.GraphOptimizationLevel.ORT_ENABLE_ALL) == [((200, 200), array.tobytes())]
    again = save(small, tmp_path / "small.onnx")
    assert [file.name for file in tmp_path.glob("small*")] == [again.name]


def test_a_dense_model_has_none(build: Build, sparse: Sparse) -> None:
    model = build("g (float[N,32] x) => (float[N,32] y) { y = MatMul(x, w) }", {"w": sparse(32, 32)})
    assert list(standalone_decoders(model)) == []


def test_the_shape_of_a_scalar_and_of_a_vector(build: Build, run: Run) -> None:
    vector = np.zeros(4000, np.float32)
    vector[17] = -0.0
    model = build("g (float[N,4000] x) => (float[N,4000] y) { y = Add(x, b) }", {"b": vector})
    ((_, small),) = standalone_decoders(encode_model(model).model)
    assert run(small, {}, ort.GraphOptimizationLevel.ORT_DISABLE_ALL) == [((4000,), vector.tobytes())]
