"""Tensors without their wholly zero rows or columns; onnxruntime's side of every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnxprune_passes.arrays import Array, Masked, NDArray
from onnxprune_passes.encode import (
    Coding,
    EncodedModel,
    Rice,
    count,
    decoders,
    densify,
    encode_model,
)
from onnxprune_passes.encode.compact import compacted, live_slices, spread, worth_it
from onnxprune_passes.encode.limits import DTYPES
from onnxprune_passes.encode.live import SPREADS, live_coding
from onnxprune_passes.encode.registry import LIVE
from onnxprune_passes.encode.stored import stored_tensors
from onnxprune_passes.errors import EncodeError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, load, save, to_proto

Build = Callable[..., Model]
Exact = Callable[[Model, EncodedModel, dict[str, NDArray]], None]
Run = Callable[[Model, dict[str, NDArray], Any], list[tuple[tuple[int, ...], bytes]]]
F32, U8, I64 = np.float32, np.uint8, np.int64
ROWS, COLUMNS = SPREADS
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
MATMUL = "g (float[N,32] x) => (float[N,1280] y) { y = MatMul(x, w) }"
GEMM = "g (float[N,32] x) => (float[N,1280] y) { y = Gemm<transB = 1>(x, w) }"


def half_dead(*shape: int, axis: int, density: float = 0.3, dtype: Any = F32) -> NDArray:
    """Whole numbers, half of the slices along `axis` all zero, the first one too."""
    rng = np.random.default_rng([*shape, axis])
    weight = np.where(rng.random(shape) < density, rng.integers(1, 5000, shape), 0).astype(dtype)
    dead = rng.permutation(np.arange(1, shape[axis]))[: shape[axis] // 2]
    np.moveaxis(weight, axis, 0)[[0, *dead]] = 0
    return weight


@pytest.fixture
def low_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor with a dead slice is worth it."""
    monkeypatch.setattr("onnxprune_passes.encode.counts.worth_it", lambda _, live: 0 < live.sum() < live.size)


def test_the_compact_form_of_rows_is_computed_by_hand() -> None:
    weight = np.array([[0, 0, 0], [1, 0, 2], [0, 0, 0], [0, 3, 0]], F32)
    live = live_slices(Array(weight), 0)
    assert live.tolist() == [False, True, False, True]
    found = compacted(Array(weight), live, 0)
    assert found.tolist() == [[0, 0, 0], [1, 0, 2], [0, 3, 0]]
    assert spread(found, live, 0).tolist() == weight.tolist()


def test_the_compact_form_of_columns_is_computed_by_hand() -> None:
    weight = np.array([[1, 0, 0, 4], [2, 0, 0, 0]], F32)
    live = live_slices(Array(weight), 1)
    assert live.tolist() == [True, False, False, True]
    found = compacted(Array(weight), live, 1)
    assert found.tolist() == [[0, 0], [1, 2], [4, 0]]
    assert spread(found, live, 1).tolist() == weight.tolist()


def test_columns_of_a_convolution_are_its_input_channels() -> None:
    weight = half_dead(3, 4, 2, 5, axis=1)
    weight[:, 2] = 1
    weight[:, 3] = 0
    live = live_slices(Array(weight), 1)
    found = compacted(Array(weight), live, 1)
    assert found.shape == (5, 2, 1 + live.sum(), 3)
    assert not found[:, :, 0].any()
    assert np.array_equal(found[:, :, -1], weight[:, 2].transpose(2, 1, 0))


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    axis=st.sampled_from([0, 1]),
    chunk=st.sampled_from([8, 16, 1 << 16]),
)
@settings(max_examples=100, deadline=None)
def test_any_tensor_comes_back(shape: list[int], seed: int, axis: int, chunk: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(0, 2, shape) * (rng.random(shape[axis]) < 0.5).reshape(
        [-1 if one == axis else 1 for one in range(len(shape))]
    )
    weight = weight.astype(F32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxprune_passes.arrays.CHUNK", chunk)
        live = live_slices(Array(weight), axis)
    others = tuple(one for one in range(len(shape)) if one != axis)
    assert live.tolist() == weight.any(axis=others).tolist()
    assert spread(compacted(Array(weight), live, axis), live, axis).tobytes() == weight.tobytes()


def test_minus_zero_is_kept() -> None:
    weight = np.zeros((3, 4), F32)
    weight[1, 2] = -0.0
    assert live_slices(Array(weight), 0).tolist() == [False, True, False]
    assert live_slices(Array(weight), 1).tolist() == [False, False, True, False]


def test_a_masked_tensor_has_the_slices_of_what_is_left() -> None:
    keep = np.zeros((40, 50), U8)
    keep[3, ::2] = 1
    source = Masked(Array(np.ones((40, 50), F32)), np.packbits(keep, bitorder="little"))
    assert np.flatnonzero(live_slices(source, 0)).tolist() == [3]
    assert compacted(source, live_slices(source, 0), 0).tolist() == [[0] * 50, [1, 0] * 25]


def test_what_is_worth_it() -> None:
    live = np.arange(800) % 2 == 0
    assert not worth_it(1312, live)  # a bit each: less than 800 bits and 64 bytes
    assert worth_it(1313, live)
    assert not worth_it(10**9, np.ones(800, np.bool_))
    assert not worth_it(0, np.zeros(800, np.bool_))


def test_tensors_without_dead_slices_are_not_counted_again() -> None:
    dense = half_dead(64, 1280, axis=0)
    dense[:, :] += 1
    for weight in (dense, np.zeros((64, 1280), F32), np.ones((64, 1280), F32), half_dead(64, 1280, axis=0).reshape(-1)):
        counts = count(Array(weight))
        assert counts.live == {}
        assert not any(coding.supports(counts, 17) for coding in LIVE)


@pytest.mark.usefixtures("low_bar")
@pytest.mark.parametrize("seed", range(40))
def test_dead_slices_are_found_wherever_they_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(dim) for dim in rng.integers(2, 7, rng.integers(2, 5)))
    weight = (rng.random(shape) < 0.7).astype(F32)
    for axis in (0, 1):
        np.moveaxis(weight, axis, 0)[rng.random(shape[axis]) < 0.3] = 0
    dead = [not weight.any(axis=tuple(one for one in range(len(shape)) if one != axis)).all() for axis in (0, 1)]
    found = count(Array(weight)).live
    assert list(found) == [axis for axis in (0, 1) if dead[axis] and weight.any()]
    for axis, counts in found.items():
        live = live_slices(Array(weight), axis)
        compact = count(Array(compacted(Array(weight), live, axis)))
        assert counts == replace(compact, live={})


@pytest.mark.parametrize(("axis", "name"), [(0, "rows"), (1, "columns")])
def test_the_layout_is_what_is_built(axis: int, name: str) -> None:
    weight = half_dead(300, 301, axis=axis)
    counts = count(Array(weight))
    assert list(counts.live) == [axis]
    found = [coding for coding in LIVE if coding.supports(counts, 17)]
    assert found
    for coding in found:
        assert coding.name.endswith(f"+{name}")
        encoded = coding.encode(Array(weight), counts)
        assert [(part.dtype, part.shape) for part in coding.layout(counts)] == [
            (part.dtype, part.shape) for part in encoded.inputs
        ]
        assert coding.decode(encoded.inputs).tobytes() == weight.tobytes()


def test_the_bits_are_counted_as_index() -> None:
    weight = half_dead(300, 301, axis=1)
    counts = count(Array(weight))
    inner = Coding(Rice())
    whole = live_coding(inner, COLUMNS)
    assert whole.index_nbytes(counts) == inner.index_nbytes(counts.live[1]) + 38  # 301 bits
    assert whole.value_nbytes(counts) == inner.value_nbytes(counts.live[1])
    assert whole.index_nbytes(counts) < 0.9 * inner.index_nbytes(counts)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21, "newest"])
@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("spread_", SPREADS, ids=lambda one: one.name)
def test_a_model_decodes_it(
    build: Build, exact: Exact, feed: dict[str, NDArray], opset: Any, inline: bool, spread_: Any
) -> None:
    weight = half_dead(32, 1280, axis=0) if spread_ == ROWS else half_dead(1280, 32, axis=1)
    model = build(MATMUL if spread_ == ROWS else GEMM, {"w": weight}, opset=opset)
    encoded = encode_model(model, inline=inline)
    assert encoded.tensors[0].scheme.endswith(f"+{spread_.name}")
    assert [tensor.scheme for tensor in stored_tensors(encoded.model)] == [encoded.tensors[0].scheme]
    exact(model, encoded, feed)


@pytest.mark.usefixtures("low_bar")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_rank_and_coding(run: Run, dtype: Any) -> None:
    """Byte for byte at both levels, all slices but one dead among them, bit patterns of all kinds."""
    rng = np.random.default_rng(0)
    tensors: list[tuple[Coding, NDArray]] = []
    for shape in ((5, 9), (9, 5), (3, 8, 4), (6, 3, 2, 2)):
        for axis in (0, 1):
            for dead in (1, shape[axis] - 1):
                unsigned = rng.integers(0, 256, (*shape, np.dtype(dtype).itemsize), dtype=U8)
                weight = unsigned.view(dtype).reshape(shape).copy()
                np.moveaxis(weight, axis, 0)[:dead] = np.zeros(1, dtype)
                counts = count(Array(weight))
                able = [coding for coding in LIVE if coding.supports(counts, 13)]
                step = max(1, len(able) // 5)
                tensors += [(coding, weight) for coding in able[len(tensors) % step :: step]]
    assert len(tensors) > 16
    graph = helper.make_graph([], "g", [], [])
    functions: dict[str, onnx.FunctionProto] = {}
    for number, (coding, weight) in enumerate(tensors):
        graph.node.extend(coding.nodes(str(number), f"w{number}"))
        graph.initializer.extend(coding.initializers(str(number), coding.encode(Array(weight))))
        graph.output.append(helper.make_tensor_value_info(f"w{number}", DTYPES[np.dtype(dtype)], weight.shape))
        functions |= coding.functions(13)
    imports = [helper.make_opsetid("", 13), helper.make_opsetid("onnxprune", 1)]
    ordered = sorted(functions.values(), key=lambda function: function.name != "ReadBits")
    model = helper.make_model(graph, opset_imports=imports, functions=ordered, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    for level in LEVELS:
        for (_, weight), found in zip(tensors, run(from_proto(model), {}, level), strict=True):
            assert found == (weight.shape, weight.tobytes())


IN_FUNCTION = """<ir_version: 8, opset_import: ["": 17, "own": 1]>
g (float[N,32] x) => (float[N,1280] y) { y = own.F(x) }
<domain: "own", opset_import: ["": 17]> F (a) => (b) {
  k = Constant <value = float[1] {0}> ()
  b = MatMul(a, k)
}"""


@pytest.mark.parametrize("inline", [False, True])
def test_in_functions(build: Build, exact: Exact, feed: dict[str, NDArray], inline: bool) -> None:
    model = build(IN_FUNCTION, {"own::F/k": half_dead(32, 1280, axis=0)})
    encoded = encode_model(model, inline=inline)
    assert encoded.tensors[0].scheme.endswith("+rows")
    exact(model, encoded, feed)


def test_shared_values_and_gaps(build: Build, exact: Exact, feed: dict[str, NDArray]) -> None:
    weight = np.sign(half_dead(1280, 32, axis=1, density=0.1))
    for encoding in ("auto", "gaps", "bitmask", "rice"):
        encoded = encode_model(build(GEMM, {"w": weight}), encoding)
        assert encoded.tensors[0].scheme.startswith("" if encoding == "auto" else encoding)
        exact(build(GEMM, {"w": weight}), encoded, feed)


def test_external_data(build: Build, tmp_path: Path) -> None:
    model = build("g (float[N,512] x) => (float[N,1280] y) { y = MatMul(x, w) }", {"w": half_dead(512, 1280, axis=0)})
    loaded = load(save(model, tmp_path / "model.onnx", external=True))
    encoded = encode_model(loaded)
    assert encoded.tensors[0].scheme.endswith("+rows")
    save(encoded.model, tmp_path / "encoded.onnx")
    assert len(list(tmp_path.glob("*.data"))) == 2
    dense = densify(load(tmp_path / "encoded.onnx"))
    assert dense.initializers["w"].tobytes() == model.initializers["w"].tobytes()


def test_the_bytes_of_a_tensor_are_those_in_the_file(build: Build) -> None:
    model = build(GEMM, {"w": half_dead(1280, 32, axis=1)})
    (tensor,) = encode_model(model).tensors
    (again,) = stored_tensors(encode_model(model).model)
    assert replace(again, nbytes=tensor.nbytes) == tensor
    assert 0 <= tensor.nbytes - again.nbytes < 30  # which takes labels to be of two digits
    proto = to_proto(encode_model(model).model)
    proto.ClearField("functions")
    grown = len(proto.SerializeToString()) - len(to_proto(model).SerializeToString())
    assert abs(grown - (tensor.nbytes - tensor.dense_nbytes)) < 30  # the import of the domain, lengths of lengths


def test_the_reference_evaluator_agrees(build: Build, feed: dict[str, NDArray]) -> None:
    for text, weight in ((MATMUL, half_dead(32, 1280, axis=0)), (GEMM, half_dead(1280, 32, axis=1))):
        found: Any = ReferenceEvaluator(to_proto(encode_model(build(text, {"w": weight})).model)).run(None, feed)
        assert np.array_equal(found[0], feed["x"] @ (weight if text == MATMUL else weight.T))


def test_the_decoder_is_folded_away(build: Build, tmp_path: Path) -> None:
    for text, weight in ((MATMUL, half_dead(32, 1280, axis=0)), (GEMM, half_dead(1280, 32, axis=1))):
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        encoded = to_proto(encode_model(build(text, {"w": weight})).model)
        ort.InferenceSession(encoded.SerializeToString(), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(tmp_path / "optimized.onnx").graph
        assert [node.op_type for node in graph.node] == ["MatMul" if text == MATMUL else "Gemm"]
        assert onnx.numpy_helper.to_array(graph.initializer[0]).tobytes() == weight.tobytes()


def test_a_node_that_reads_no_decoder_is_an_error(build: Build) -> None:
    encoded = encode_model(build(GEMM, {"w": half_dead(1280, 32, axis=1)})).model
    proto = to_proto(encoded)
    (last,) = [node for node in proto.graph.node if node.op_type == "SpreadColumns"]
    last.input[0] = "elsewhere"
    with pytest.raises(EncodeError, match="no decoder makes its input 'elsewhere'"):
        list(decoders(from_proto(proto)))


PARTS = live_coding(Coding(Rice()), ROWS).encode(Array(half_dead(300, 301, axis=0))).inputs


@pytest.mark.parametrize(
    ("live", "dim"),
    [
        (PARTS[-2][:, :-1], PARTS[-1]),
        (PARTS[-2].astype(np.int8), PARTS[-1]),
        (PARTS[-2] | 1, PARTS[-1]),  # more rows than the part has
        (PARTS[-2] | np.array([0] * 37 + [128], U8)[None, :, None], PARTS[-1]),  # behind the last row
        (PARTS[-2], PARTS[-1] + 8),
        (PARTS[-2], PARTS[-1] - 8),
        (PARTS[-2], PARTS[-1] * 0),
        (PARTS[-2], np.array([30, 10], I64)),
        (PARTS[-2], PARTS[-1].astype(np.int32)),
    ],
)
def test_damaged_parts_are_refused(live: NDArray, dim: NDArray) -> None:
    coding = live_coding(Coding(Rice()), ROWS)
    assert coding.decode(PARTS).shape == (300, 301)
    with pytest.raises(EncodeError, match="SpreadRows"):
        coding.decode([*PARTS[:-2], live, dim])
    with pytest.raises(EncodeError, match="SpreadRows"):
        coding.decode(PARTS[:-1])


def test_columns_of_a_vector_are_refused() -> None:
    coding = live_coding(Coding(Rice()), COLUMNS)
    part = Coding(Rice()).encode(Array(np.ones(9, F32))).inputs
    with pytest.raises(EncodeError, match="SpreadColumns"):
        coding.decode([*part, *PARTS[-2:]])


def test_a_tensor_that_was_not_counted_is_refused() -> None:
    weight = half_dead(300, 301, axis=0)
    coding = live_coding(Coding(Rice()), ROWS)
    with pytest.raises(EncodeError, match="does not hold what was counted"):
        coding.encode(Array(weight), count(Array(np.where(weight == 0, 1, weight).astype(F32))))
    fewer = weight.copy()
    fewer[np.flatnonzero(fewer.any(axis=1))[0]] = 0
    with pytest.raises(EncodeError, match="count"):
        coding.encode(Array(fewer), count(Array(weight)))


def test_no_entry_is_left_out_wrongly_where_everything_is_dead(build: Build, exact: Exact, feed: Any) -> None:
    model = build(GEMM, {"w": np.zeros((1280, 32), F32)})
    exact(model, encode_model(model), feed)


def test_it_can_be_left_out(build: Build) -> None:
    model = build(GEMM, {"w": half_dead(1280, 32, axis=1)})
    with_it, without = encode_model(model), encode_model(model, live=False)
    assert [one.tensors[0].scheme.endswith("+columns") for one in (with_it, without)] == [True, False]
    assert densify(without.model).initializers["w"].tobytes() == model.initializers["w"].tobytes()
