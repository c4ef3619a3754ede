"""Which tensors are encoded, which stay dense, and what is said of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.encode import EncodedModel, decoders, encode_model, limits
from onnxprune_passes.errors import EncodeError
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip
from onnxprune_passes.storage import from_proto, to_proto

NDArray = npt.NDArray[Any]
Feeds = Mapping[str, NDArray]
Exact = Callable[[Model, EncodedModel, Feeds], None]
Build = Callable[..., Model]
Sparse = Callable[..., NDArray]

ENCODINGS = ("auto", "gaps", "bitmask", "coo")
ONE = "g (float[N,32] x) => (float[N,32] y) { y = MatMul(x, w) }"
TWO = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"


def keys_of(encoded: EncodedModel) -> list[str]:
    return [tensor.key for tensor in encoded.tensors]


DTYPES = [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int8, np.uint8]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_dtypes(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any, dtype: Any) -> None:
    text = "g (float[N,32] x) => (float[N,64] y) { f = Cast<to = 1>(w)\n y = MatMul(x, f) }"
    model = build(text, {"w": sparse(32, 64, density=0.03, dtype=dtype)})
    encoded = encode_model(model, encoding)
    if encoding == "gaps" and dtype is ml_dtypes.bfloat16:
        assert encoded.model is model
        (skip,) = encoded.log
        assert isinstance(skip, Skip)
        assert (skip.name, "bfloat16" in skip.reason) == ("w", True)
        return
    assert keys_of(encoded) == ["w"]
    exact(model, encoded, feed)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_quantised_weight(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any) -> None:
    text = "g (float[N,32] x) => (float[N,64] y) { f = DequantizeLinear<axis = 1>(w, s, z)\n y = MatMul(x, f) }"
    tensors = {
        "w": sparse(32, 64, density=0.04, dtype=np.int8),
        "s": np.full(64, 0.5, np.float32),
        "z": np.zeros(64, np.int8),
    }
    model = build(text, tensors)
    encoded = encode_model(model, encoding)
    assert keys_of(encoded) == ["w"]
    exact(model, encoded, feed)


@pytest.mark.parametrize("dtype", [np.int16, np.uint32])
@pytest.mark.parametrize(("density", "said"), [(0.1, True), (0.95, False)])
def test_another_dtype_is_left_alone(build: Build, sparse: Sparse, dtype: Any, density: float, said: bool) -> None:
    text = "g (float[N,32] x) => (float[N,32] y) { f = Cast<to = 1>(w)\n y = MatMul(x, f) }"
    model = build(text, {"w": abs(sparse(32, 32, density=density, dtype=np.int16)).astype(dtype)})
    encoded = encode_model(model)
    assert encoded.model is model
    assert [entry.name for entry in encoded.log if isinstance(entry, Skip)] == (["w"] if said else [])


def test_tables_of_indices_are_not_mentioned(build: Build) -> None:
    text = "g (float[N,32] x) => (float[N,512] y) { y = Gather<axis = 1>(x, i) }"
    model = build(text, {"i": np.zeros(512, np.int64)})
    encoded = encode_model(model)
    assert (encoded.model, encoded.tensors, encoded.log) == (model, (), ())


@pytest.mark.parametrize("encoding", ["auto", "dense", "coo", "gaps", "bitmask"])
def test_nothing_to_gain_gives_the_same_object(build: Build, sparse: Sparse, encoding: Any) -> None:
    for density, shape in ((1.0, (32, 32)), (0.97, (32, 32)), (0.0, (8, 8)), (0.0, (9, 9))):
        model = build(
            "g (float[N,M] x) => (float[N,K] y) { y = MatMul(x, w) }",
            {"w": sparse(*shape, density=density, below=100_000)},
        )
        if shape == (9, 9) and encoding == "coo":
            continue  # 324 bytes of zeros are 40 there
        encoded = encode_model(model, encoding)
        assert (encoded.model, encoded.tensors, encoded.log) == (model, (), ())


def test_dense_is_the_same_object(build: Build, sparse: Sparse) -> None:
    model = build(ONE, {"w": sparse(32, 32)})
    assert encode_model(model, "dense").model is model


def test_an_unknown_encoding_is_refused(build: Build, sparse: Sparse) -> None:
    unknown: Any = "zip"
    with pytest.raises(EncodeError, match="'zip' is unknown: choose one of auto, dense, coo, gaps, bitmask, rice"):
        encode_model(build(ONE, {"w": sparse(32, 32)}), unknown)


def test_parts_get_names_that_nothing_has(build: Build, sparse: Sparse, feed: Feeds, exact: Exact) -> None:
    """Values, inputs and sparse initializers of graphs, names in bodies and in functions: each would hide a part, or be
    hidden by it.
    """
    text = """<ir_version: 9, opset_import: ["": 17, "l": 1]>
    g (float[N,32] x, bool c) => (float[N,32] y) {
      h = MatMul(x, w)
      i = If (c) <then_branch = t () => (float[N,32] o1) { k = Constant <value = float[1] {0}> ()
                                                           o1 = MatMul(h, k) },
                  else_branch = e () => (float[N,32] o2) { o2 = Neg(h) }>
      y = l.F(i) }
    <domain: "l", opset_import: ["": 17]> F (p) => (q) { q = Neg(p) }"""
    proto = to_proto(build(text, {"w": sparse(32, 32), "i.then_branch/k": sparse(32, 32)}))
    proto.graph.node[0].output[0] = "0a"
    for attribute in proto.graph.node[1].attribute:
        attribute.g.node[-1].input[0] = "0a"
    proto.graph.input[1].name = proto.graph.node[1].input[0] = "1c"
    body = next(each.g for each in proto.graph.node[1].attribute if each.name == "else_branch")
    body.node[0].output[0] = body.output[0].name = "2b"
    proto.functions[0].input[0] = proto.functions[0].node[0].input[0] = "4v"
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "5e"))
    model = from_proto(proto)
    encoded = encode_model(model)
    assert sorted(keys_of(encoded)) == ["i.then_branch/k", "w"]
    parts = {key.rpartition("/")[2] for decoder in decoders(encoded.model) for key in decoder.inputs}
    assert {part[0] for part in parts} == {"3", "6"}
    exact(model, encoded, {**feed, "1c": np.array(True)})


def test_equal_shapes_and_powers_are_stored_once(build: Build, sparse: Sparse, feed: Feeds, exact: Exact) -> None:
    weights = {"w": sparse(32, 32), "v": np.ascontiguousarray(sparse(32, 32).T)}
    model = build(TWO, weights)
    encoded = encode_model(model, "gaps")
    parts = [tensor.name for tensor in encoded.model.graph.initializer if tensor.name not in weights]
    assert sorted(part for part in parts if encoded.model.initializers[part].dtype == np.int64) == ["0c"]
    exact(model, encoded, feed)


def test_what_training_sets_stays_an_initializer(build: Build, sparse: Sparse) -> None:
    proto = to_proto(build(TWO, {"w": sparse(32, 32), "v": sparse(32, 32)}))
    info = proto.training_info.add()
    info.algorithm.CopyFrom(helper.make_graph([helper.make_node("Neg", ["w"], ["w_new"])], "a", [], []))
    info.algorithm.output.append(helper.make_tensor_value_info("w_new", TensorProto.FLOAT, [32, 32]))
    info.update_binding.add(key="w", value="w_new")
    encoded = encode_model(from_proto(proto))
    assert keys_of(encoded) == ["v"]
    assert [entry.name for entry in encoded.log if isinstance(entry, Skip)] == ["w"]
    assert encoded.model.skeleton.training_info == proto.training_info


def test_encoding_what_is_encoded_encodes_only_what_is_dense(
    build: Build, sparse: Sparse, feed: Feeds, exact: Exact
) -> None:
    model = build(TWO, {"w": sparse(32, 32), "v": sparse(32, 32, density=1.0, below=100_000)})
    first = encode_model(model, "gaps").model
    assert [each.key for each in decoders(first)] == ["w"]
    for encoding in ("auto", "gaps", "bitmask", "coo"):
        assert encode_model(first, encoding).model is first

    thinned = sparse(32, 32, density=0.02)
    second = encode_model(first.with_initializers({"v": thinned}), "gaps")
    assert keys_of(second) == ["v"]
    assert sorted(each.key for each in decoders(second.model)) == ["v", "w"]
    names = [function.name for function in second.model.skeleton.functions]
    assert len(names) == len(set(names))
    both = EncodedModel(second.model, (*encode_model(model, "gaps").tensors, *second.tensors))
    exact(model.with_initializers({"v": thinned}), both, feed)


def test_parts_are_not_encoded_in_turn(build: Build, sparse: Sparse) -> None:
    """A mask of a very sparse tensor is itself mostly zeros."""
    text = "g (float[N,256] x) => (float[N,256] y) { y = MatMul(x, w) }"
    first = encode_model(build(text, {"w": sparse(256, 256, density=0.001)}), "bitmask").model
    assert encode_model(first).model is first


def test_a_dense_tensor_that_no_scheme_can_store_is_not_mentioned(build: Build, sparse: Sparse) -> None:
    text = "g (float[N,32] x) => (float[N,32] y) { f = Cast<to = 1>(w)\n y = MatMul(x, f) }"
    model = build(text, {"w": sparse(32, 32, density=1.0, dtype=ml_dtypes.bfloat16)})
    assert encode_model(model, "gaps").log == ()


def test_sizes_are_those_of_the_name_in_its_graph(build: Build, sparse: Sparse) -> None:
    text = """g (float[N,32] x, bool c) => (float[N,32] a_long_name_for_an_output) {
      a_long_name_for_an_output = If (c) <then_branch = t () => (float[N,32] o1) { o1 = MatMul(x, w) },
                                          else_branch = e () => (float[N,32] o2) { o2 = Identity(x) }>
    }"""
    array = sparse(32, 32, density=0.05)
    inside = encode_model(build(text, {"a_long_name_for_an_output.then_branch/w": array}))
    outside = encode_model(build(ONE, {"w": array}))
    assert inside.tensors == (replace(outside.tensors[0], key="a_long_name_for_an_output.then_branch/w"),)


def test_more_entries_than_decoders_can_count(build: Build, sparse: Sparse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SIZE", 1023)
    encoded = encode_model(build(TWO, {"w": sparse(32, 32), "v": sparse(32, 31)}))
    assert keys_of(encoded) == ["v"]
    (skip,) = encoded.log
    assert isinstance(skip, Skip)
    assert (skip.name, "1024 entries" in skip.reason) == ("w", True)


def written(model: Model) -> int:
    return len(to_proto(model).SerializeToString())


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [8, 30, 100])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.05, 0.2, 0.5, 0.9, 1.0])
def test_a_file_never_grows_and_its_size_is_known(
    build: Build, sparse: Sparse, encoding: Any, size: int, density: float
) -> None:
    text = "g (float[N,M] x) => (float[N,K] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"
    model = build(text, {"w": sparse(size, size, density=density), "v": sparse(size, size + 1, density=0.3)})
    encoded = encode_model(model, encoding)
    before, after = written(model), written(encoded.model)
    assert (after < before) if encoded.tensors else (after == before)
    once = encoded.model.skeleton.functions, encoded.model.skeleton.opset_import[1:]
    shared = sum(each.ByteSize() + 3 for group in once for each in group)
    saved = sum(tensor.dense_nbytes - tensor.nbytes for tensor in encoded.tensors)
    assert -8 <= before - saved + shared - after <= 60  # labels, equal shapes and powers that are stored once


def test_auto_is_the_smallest(build: Build, sparse: Sparse) -> None:
    for density in (0.01, 0.03, 0.1, 0.3, 0.6, 0.95):
        model = build(TWO, {"w": sparse(64, 64, density=density), "v": sparse(64, 64, density=density / 3)})
        sizes = {encoding: written(encode_model(model, encoding).model) for encoding in ("gaps", "bitmask", "auto")}
        assert sizes["auto"] == min(written(model), *sizes.values()), density


@pytest.mark.parametrize("encoding", ["auto", "gaps", "bitmask"])
def test_functions_and_long_names_are_paid_for(build: Build, sparse: Sparse, encoding: Any) -> None:
    """The decoder's own bytes, and parts that are Constant nodes, can cost more than a small tensor saves."""
    for size in range(9, 40, 2):
        name = "a_long_name_" * 20
        text = f"""<ir_version: 9, opset_import: ["": 17, "l": 1]>
        g (float[N,K] x) => (float[N,K] y) {{ y = l.F(x) }}
        <domain: "l", opset_import: ["": 17]> F (a) => (b) {{ {name} = Constant <value = float[1] {{0}}> ()
          b = MatMul(a, {name}) }}"""
        model = build(text, {f"l::F/{name}": sparse(size, size, density=0.1)})
        encoded = encode_model(model, encoding)
        assert written(encoded.model) < written(model) or encoded.model is model, size
