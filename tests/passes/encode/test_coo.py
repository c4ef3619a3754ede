"""Standard sparse tensors: what is written, what others write, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.arrays import Array
from onnxprune_passes.encode import EncodedModel, coo, count, densify, encode_model, sparse_tensors
from onnxprune_passes.errors import EncodeError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, to_proto

NDArray = npt.NDArray[Any]
Feeds = Mapping[str, NDArray]
Build = Callable[..., Model]
Sparse = Callable[..., NDArray]
Exact = Callable[[Model, EncodedModel, Feeds], None]

SHAPES: list[tuple[int, ...]] = [(100,), (40, 30), (5, 6, 7), (3, 2, 5, 4)]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, np.uint8])
@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back(sparse: Sparse, shape: tuple[int, ...], dtype: Any) -> None:
    for density in (0.0, 0.1, 1.0):
        array = sparse(*shape, density=density, dtype=dtype)
        stored = coo.sparse_tensor("w", Array(array))
        assert list(numpy_helper.to_array(stored.indices)) == list(np.flatnonzero(array))
        found = coo.dense_array("w", stored)
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize("shape", [*SHAPES, (300, 300)])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.5])
def test_the_size_is_known(sparse: Sparse, shape: tuple[int, ...], density: float) -> None:
    source = Array(sparse(*shape, density=density))
    graph = onnx.GraphProto()
    graph.sparse_initializer.append(coo.sparse_tensor("a_name", source))
    assert abs(coo.nbytes("a_name", count(source)) - graph.ByteSize()) <= 4


def test_a_tensor_longer_than_a_chunk(sparse: Sparse) -> None:
    array = sparse(5, 70_000, density=0.001)
    stored = coo.sparse_tensor("w", Array(array))
    assert coo.dense_array("w", stored).tobytes() == array.tobytes()


def test_minus_zero_and_nan_are_kept() -> None:
    array = np.array([0, -0.0, np.nan, 0, 1], np.float32)
    stored = coo.sparse_tensor("w", Array(array))
    assert list(numpy_helper.to_array(stored.indices)) == [1, 2, 4]
    assert coo.dense_array("w", stored).tobytes() == array.tobytes()


def made(values: NDArray, positions: NDArray, shape: tuple[int, ...]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, "w"), numpy_helper.from_array(positions, "w_positions"), shape
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_positions_by_coordinate(sparse: Sparse, shape: tuple[int, ...]) -> None:
    array = sparse(*shape)
    stored = made(array[np.nonzero(array)], np.argwhere(array), shape)
    assert np.array_equal(coo.dense_array("w", stored), array)


FULL = np.arange(1, 4, dtype=np.float32)
DAMAGED: dict[str, tuple[NDArray, NDArray, tuple[int, ...]]] = {
    "past the end": (FULL, np.array([0, 1, 6]), (2, 3)),
    "negative": (FULL, np.array([-1, 1, 5]), (2, 3)),
    "too few": (FULL, np.array([0, 1]), (2, 3)),
    "too many": (FULL, np.array([0, 1, 2, 3]), (2, 3)),
    "a coordinate past its axis": (FULL, np.array([[0, 0], [0, 1], [0, 3]]), (2, 3)),
    "a negative coordinate": (FULL, np.array([[0, 0], [0, 1], [1, -1]]), (2, 3)),
    "coordinates of another rank": (FULL, np.array([[0, 0, 0], [0, 1, 0], [0, 2, 0]]), (2, 3)),
    "values of rank 2": (FULL.reshape(1, 3), np.array([[0], [1], [2]]), (6,)),
    "no room": (FULL, np.array([0, 1, 2]), (0, 3)),
    "negative dims": (FULL, np.array([0, 1, 2]), (-2, -3)),
    "int32 positions": (FULL, np.array([0, 1, 2], np.int32), (2, 3)),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_tensor(case: str) -> None:
    values, positions, shape = DAMAGED[case]
    with pytest.raises(EncodeError, match=r"^sparse tensor 'a/w': positions .* the file is damaged$"):
        coo.dense_array("a/w", made(values, positions, shape))


def test_numbers_that_cannot_be_read() -> None:
    cut = made(FULL, np.array([0, 1, 2]), (2, 3))
    cut.values.raw_data = cut.values.raw_data[:-1]
    with pytest.raises(EncodeError, match="what is stored does not fit dims"):
        coo.dense_array("w", cut)
    words = made(FULL, np.array([0, 1, 2]), (2, 3))
    words.values.data_type = TensorProto.STRING
    with pytest.raises(EncodeError, match="of type 8"):
        coo.dense_array("w", words)
    elsewhere = made(FULL, np.array([0, 1, 2]), (2, 3))
    elsewhere.indices.data_location = TensorProto.EXTERNAL
    with pytest.raises(EncodeError, match="in another file"):
        coo.dense_array("w", elsewhere)


FOREIGN = """
<ir_version: 9, opset_import: ["": 17, "l": 1]>
g (float[N,32] x, bool c) => (float[N,32] y) {
  h = MatMul(x, a)
  i = MatMul(h, b)
  j = l.F(i)
  y = If (c) <then_branch = t () => (float[N,32] o1) { o1 = MatMul(j, d) },
              else_branch = e () => (float[N,32] o2) { o2 = Identity(j) }>
}
<domain: "l", opset_import: ["": 17]> F (p) => (q) { k = Constant <value = float[1] {0}> ()
  q = MatMul(p, k) }"""


@pytest.mark.parametrize("by_coordinate", [False, True])
def test_files_that_others_wrote(sparse: Sparse, by_coordinate: bool) -> None:
    """sparse_initializer in a graph and a body, Constant(sparse_value) in a graph and a function."""
    arrays = {key: sparse(32, 32, density=0.01 * n) for n, key in enumerate(("a", "b", "l::F/k", "y.then_branch/d"), 1)}

    def stored(key: str) -> onnx.SparseTensorProto:
        array = arrays[key]
        found = made(array[np.nonzero(array)], np.argwhere(array) if by_coordinate else np.flatnonzero(array), (32, 32))
        found.values.name = key.rpartition("/")[2]
        return found

    proto = onnx.parser.parse_model(FOREIGN)
    proto.graph.sparse_initializer.append(stored("a"))
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["b"], sparse_value=stored("b")))
    then = next(each.g for each in proto.graph.node[-1].attribute if each.name == "then_branch")
    then.sparse_initializer.append(stored("y.then_branch/d"))
    proto.functions[0].node[0].CopyFrom(helper.make_node("Constant", [], ["k"], sparse_value=stored("l::F/k")))
    model = from_proto(proto)
    assert set(sparse_tensors(model)) == set(arrays)
    dense = densify(model)
    assert {key: array.tobytes() for key, array in dense.initializers.items()} == {
        key: array.tobytes() for key, array in arrays.items()
    }
    assert sparse_tensors(dense) == {}
    onnx.checker.check_model(to_proto(dense), full_check=True)
    assert [node.op_type for node in dense.graph.node] == ["MatMul", "MatMul", "F", "If"]
    assert [node.op_type for node in dense.skeleton.functions[0].node] == ["Constant", "MatMul"]


def test_a_damaged_tensor_is_named_by_its_key(build: Build, sparse: Sparse) -> None:
    model = encode_model(
        build("g (float[N,32] x) => (float[N,32] y) { y = MatMul(x, w) }", {"w": sparse(32, 32)}), "coo"
    )
    proto = to_proto(model.model)
    proto.graph.sparse_initializer[0].dims[0] = 2
    with pytest.raises(EncodeError, match="sparse tensor 'w'"):
        densify(from_proto(proto))


def test_it_pays_above_two_thirds(build: Build, sparse: Sparse, feed: Feeds, exact: Exact) -> None:
    text = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"
    model = build(text, {"w": sparse(32, 32, density=0.38), "v": sparse(32, 32, density=0.28)})
    encoded = encode_model(model, "coo")
    assert [(tensor.key, tensor.scheme) for tensor in encoded.tensors] == [("v", "coo")]
    assert encoded.model.skeleton.functions == []
    exact(model, encoded, feed)


def test_a_tensor_of_zeros_alone(build: Build, sparse: Sparse, feed: Feeds, exact: Exact) -> None:
    model = build("g (float[N,32] x) => (float[N,32] y) { y = MatMul(x, w) }", {"w": sparse(32, 32, density=0.0)})
    exact(model, encode_model(model, "coo"), feed)
