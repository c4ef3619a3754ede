"""`densify`: what it gives back, what it leaves alone, and files that are damaged or made by others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxprune_passes.encode import DOMAIN, decoders, densify, encode_model, standalone_decoders
from onnxprune_passes.errors import EncodeError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, to_proto

NDArray = npt.NDArray[Any]
Build = Callable[..., Model]
Sparse = Callable[..., NDArray]

ONE = "g (float[N,32] x) => (float[N,32] y) { y = MatMul(x, w) }"
TWO = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"


@pytest.fixture
def encoded(build: Build, sparse: Sparse) -> onnx.ModelProto:
    """One weight in gaps of 8 bits, to be changed by a test."""
    proto = to_proto(encode_model(build(ONE, {"w": sparse(32, 32, density=0.02)}), "gaps").model)
    assert [tensor.name for tensor in proto.graph.initializer] == ["0a", "0b", "0c", "0d"]
    return proto


def test_a_dense_model_is_the_same_object(build: Build, sparse: Sparse) -> None:
    model = build(TWO, {"w": sparse(32, 32), "v": sparse(32, 32)})
    assert densify(model) is model
    assert list(decoders(model)) == []


@pytest.mark.parametrize("encoding", ["auto", "gaps", "bitmask", "coo"])
def test_twice_is_once(build: Build, sparse: Sparse, encoding: Any) -> None:
    model = encode_model(build(ONE, {"w": sparse(32, 32)}), encoding).model
    before = to_proto(model).SerializeToString()
    dense = densify(model)
    assert densify(dense) is dense
    assert to_proto(model).SerializeToString() == before


def test_every_bit_pattern_comes_back(build: Build) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 4096, np.uint64).astype(np.uint32) * (rng.random(4096) < 0.1)
    bits[[5, 77, 4095]] = 0x80000000, 0x7FC00001, 1
    array = bits.astype(np.uint32).view(np.float32).reshape(64, 64)
    model = build("g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", {"w": array})
    for encoding in ("gaps", "bitmask", "coo"):
        stored = encode_model(model, encoding)
        assert len(stored.tensors) == 1
        assert densify(stored.model).initializers["w"].tobytes() == array.tobytes()


def assert_damaged(proto: onnx.ModelProto, *words: str) -> None:
    """`densify` refuses it in one line that says where."""
    model = from_proto(proto)
    with pytest.raises(EncodeError) as caught:
        densify(model)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def replaced(proto: onnx.ModelProto, index: int, array: NDArray) -> onnx.ModelProto:
    tensor = proto.graph.initializer[index]
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def test_parts_that_do_not_fit(encoded: onnx.ModelProto) -> None:
    gaps, powers, values, shape = (numpy_helper.to_array(tensor) for tensor in encoded.graph.initializer)
    wrong: list[tuple[int, NDArray]] = [
        (0, gaps[:, :-1]),
        (0, gaps.astype(np.int8)),
        (0, np.zeros_like(gaps) + 254),
        (1, powers[:-1]),
        (1, powers[::-1]),
        (2, values[:-8]),
        (2, np.append(values, [values[-1]] * 8)),
        (2, values.reshape(1, -1)),
        (2, values.astype(np.int64)),
        (3, shape[:1]),
        (3, shape * 0),
        (3, -shape),
        (3, shape.astype(np.int32)),
        (3, np.array([2**40, 2**40])),
    ]
    for index, array in wrong:
        copy = onnx.ModelProto()
        copy.CopyFrom(encoded)
        assert_damaged(replaced(copy, index, array), "tensor 'w': DecodeGaps")


def test_a_part_that_is_missing(encoded: onnx.ModelProto) -> None:
    del encoded.graph.initializer[1]
    assert_damaged(encoded, "DecodeGaps", "'w'", "'0b'", "is not stored")
    with pytest.raises(EncodeError, match="0b"):
        dict(standalone_decoders(from_proto(encoded)))


def test_a_node_of_no_known_scheme(encoded: onnx.ModelProto) -> None:
    encoded.graph.node[0].op_type = "DecodeRanges"
    assert_damaged(encoded, "DecodeRanges", "DecodeGaps", "another version of onnxprune")
    with pytest.raises(EncodeError, match="DecodeRanges"):
        encode_model(from_proto(encoded))


def test_a_newer_version_of_the_domain(encoded: onnx.ModelProto) -> None:
    encoded.opset_import[1].version = 2
    assert_damaged(encoded, "version 2", "reads 1", "install a newer one")


@pytest.mark.parametrize("outputs", [[], [""], ["w", "v"]])
def test_a_node_with_other_outputs(encoded: onnx.ModelProto, outputs: list[str]) -> None:
    node = encoded.graph.node[0]
    del node.output[:]
    node.output.extend(outputs)
    assert_damaged(encoded, "DecodeGaps has outputs", "expected 1")


def test_a_node_with_too_few_inputs(encoded: onnx.ModelProto) -> None:
    del encoded.graph.node[0].input[2]
    assert_damaged(encoded, "tensor 'w'", "found 3 inputs, expected 4")


def test_functions_that_nothing_calls_are_left(encoded: onnx.ModelProto, sparse: Sparse) -> None:
    """As another tool leaves them that has folded the decoder nodes away."""
    del encoded.graph.node[0]
    del encoded.graph.initializer[:]
    encoded.graph.initializer.append(numpy_helper.from_array(sparse(32, 32), "w"))
    model = from_proto(encoded)
    assert densify(model) is model


def test_a_part_that_others_read_stays(encoded: onnx.ModelProto) -> None:
    encoded.graph.node.append(helper.make_node("Cast", ["0a"], ["z"], to=1))
    encoded.graph.output.append(helper.make_tensor_value_info("z", 1, None))
    encoded.graph.output.append(helper.make_tensor_value_info("0c", 7, [2]))
    dense = densify(from_proto(encoded))
    assert sorted(dense.initializers) == ["0a", "0c", "w"]


def test_a_part_that_a_body_reads_stays(encoded: onnx.ModelProto) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,32] x, bool c) => (float[k] z) {
      z = If (c) <then_branch = t () => (float[k] o1) { o1 = Cast<to = 1>(gaps) },
                  else_branch = e () => (float[k] o2) { o2 = Neg(x) }> }"""
    node = onnx.parser.parse_model(text).graph.node[0]
    then = next(each.g for each in node.attribute if each.name == "then_branch")
    then.node[0].input[0] = "0a"
    encoded.graph.node.append(node)
    assert sorted(densify(from_proto(encoded)).initializers) == ["0a", "w"]


def test_parts_that_two_decoders_share(encoded: onnx.ModelProto) -> None:
    """As a tool leaves them that merges equal initializers."""
    for name in ("a", "b"):
        encoded.graph.node.add(op_type="DecodeGaps", domain=DOMAIN, input=encoded.graph.node[0].input, output=[name])
        encoded.graph.output.append(helper.make_tensor_value_info(name, 1, [32, 32]))
    dense = densify(from_proto(encoded))
    assert sorted(dense.initializers) == ["a", "b", "w"]
    assert dense.initializers["a"].tobytes() == dense.initializers["w"].tobytes()


def test_parts_in_constant_nodes(encoded: onnx.ModelProto, sparse: Sparse) -> None:
    for tensor in reversed(encoded.graph.initializer):
        encoded.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del encoded.graph.initializer[:]
    dense = densify(from_proto(encoded))
    assert [node.op_type for node in dense.graph.node] == ["MatMul"]
    assert np.array_equal(dense.initializers["w"], sparse(32, 32, density=0.02))


def test_parts_in_the_graph_around_it_are_refused(encoded: onnx.ModelProto) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,32] x, bool c) => (float[N,32] z) {
      z = If (c) <then_branch = t () => (float[N,32] o1) { o1 = MatMul(x, u) },
                  else_branch = e () => (float[N,32] o2) { o2 = Identity(x) }> }"""
    node = onnx.parser.parse_model(text).graph.node[0]
    then = next(each.g for each in node.attribute if each.name == "then_branch")
    then.node.insert(0, encoded.graph.node[0])
    then.node[0].output[0] = "u"
    encoded.graph.node.append(node)
    assert_damaged(encoded, "'z.then_branch/u'", "not stored in the same graph")


def test_what_a_foreign_pruning_leaves_in_the_parts_is_decoded(encoded: onnx.ModelProto) -> None:
    """A filler that is not zero, such as a zero point, fills."""
    values = numpy_helper.to_array(encoded.graph.initializer[2]).copy()
    values[0] = 7
    dense = densify(from_proto(replaced(encoded, 2, values))).initializers["w"]
    assert np.count_nonzero(dense == 7) >= dense.size - values.size


def test_codes_as_earlier_versions_packed_them_are_said_to_be_of_another_version(encoded: onnx.ModelProto) -> None:
    gaps = numpy_helper.to_array(encoded.graph.initializer[0])
    assert_damaged(replaced(encoded, 0, gaps[:, :, 0].copy()), "expected uint8", "another version of onnxprune")
