"""The decoder functions in onnxruntime, the checker and the reference evaluator."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxprune_passes.arrays import Array, NDArray, bits_of
from onnxprune_passes.encode import (
    CODINGS,
    MIN_IR_VERSION,
    SCHEMES,
    VALUE_SCHEMES,
    Bitmask,
    Coding,
    Full,
    Narrow,
    Scheme,
    ValueScheme,
    count,
    domain_import,
    protos,
)
from onnxprune_passes.encode.limits import DTYPES
from onnxprune_passes.errors import EncodeError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)


def session(model: onnx.ModelProto, level: Any, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 2
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def newest_opset() -> int:
    """The newest ai.onnx opset that both onnx and onnxruntime know."""
    identity = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([identity], "g", values[:1], values[1:])
    for opset in range(onnx.defs.onnx_opset_version(), 21, -1):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=MIN_IR_VERSION)
        try:
            session(model, LEVELS[0])
        except ort.capi.onnxruntime_pybind11_state.Fail:
            continue
        return opset
    return 21


OPSETS = (11, 12, 13, 17, 18, 21, newest_opset())


def build(weights: Sequence[tuple[Coding, NDArray]], opset: int) -> onnx.ModelProto:
    """A model whose outputs w0, w1, … are the weights, each decoded by its scheme."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    outputs: list[onnx.ValueInfoProto] = []
    for number, (coding, array) in enumerate(weights):
        name = f"w{number}"
        nodes.extend(coding.nodes(str(number), name))
        tensors.extend(coding.initializers(str(number), coding.encode(Array(array))))
        outputs.append(helper.make_tensor_value_info(name, DTYPES[array.dtype], array.shape))
    return assembled(helper.make_graph(nodes, "g", [], outputs, tensors), {coding for coding, _ in weights}, opset)


def assembled(graph: onnx.GraphProto, codings: set[Coding], opset: int) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset), domain_import()]
    functions = {name: function for coding in codings for name, function in coding.functions(opset).items()}
    ordered = sorted(functions.values(), key=lambda function: function.name != "ReadBits")
    return helper.make_model(graph, opset_imports=imports, functions=ordered, ir_version=MIN_IR_VERSION)


def bytes_of(value: ort.OrtValue) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes of an output; numpy() has no bfloat16."""
    shape = tuple(value.shape())
    if "bfloat16" not in value.data_type():
        return shape, value.numpy().tobytes()
    return shape, ctypes.string_at(value.data_ptr(), 2 * int(np.prod(shape, dtype=np.int64)))


def assert_decoded(weights: Sequence[tuple[Coding, NDArray]], opset: int) -> None:
    model = build(weights, opset)
    onnx.checker.check_model(model, full_check=True)
    for level in LEVELS:
        found = session(model, level).run_with_ort_values(None, {})
        for (coding, array), value in zip(weights, found, strict=True):
            assert bytes_of(value) == (array.shape, array.tobytes()), (coding.name, array.dtype, array.shape, level)


def with_bits(bits: Sequence[int] | NDArray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray:
    """An array from bit patterns, cut to the width of `dtype`."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return (
        (np.array(bits, np.uint64) & np.uint64(2 ** (8 * dtype.itemsize) - 1))
        .astype(unsigned)
        .view(dtype)
        .reshape(shape)
    )


def odd_bits(dtype: np.dtype[Any]) -> list[int]:
    """-0.0, smallest denormals, the largest number, infinities and NaN payloads; of an integer dtype its extremes."""
    if dtype.kind in "iu":
        return [1, 127, 128, 255]
    sign = 1 << (8 * dtype.itemsize - 1)
    infinity = int(bits_of(np.array([np.inf], dtype))[0])
    return [
        sign,
        1,
        sign | 1,
        infinity - 1,
        infinity,
        sign | infinity,
        infinity | 1,
        sign | infinity | 3,
        sign - 1,
        2 * sign - 1,
    ]


def edge_cases(dtype: np.dtype[Any]) -> list[NDArray]:
    odd = odd_bits(dtype)
    bits: list[tuple[Sequence[int] | NDArray, tuple[int, ...]]] = [
        ([0], (1,)),
        ([odd[1]], (1, 1)),
        (odd, (len(odd),)),
        ([*odd, 1], (1, len(odd) + 1, 1)),
        (np.arange(1, 4), (3,)),
        (np.arange(1, 9), (2, 4)),
        (np.zeros(40), (5, 8)),
        ([0] * 14 + [1], (15,)),
        ([0] * 15 + [1], (16,)),
        ([0] * 29 + [1], (5, 6)),
        ([1] + [0] * 30 + [odd[0]], (2, 2, 8)),
        ([0] * 254 + [1], (5, 51)),
        ([0] * 255 + [odd[0]], (256,)),
        ([1] + [0] * 700, (701,)),
        ([0] * 700 + [1], (701,)),
        ([odd[0]] + [0] * 520 + [odd[1], 2], (523,)),
    ]
    return [with_bits(pattern, dtype, shape) for pattern, shape in bits]


EACH_SCHEME = [coding for coding in CODINGS if coding.values is None or coding.index == Full()]
"""Every scheme once; what a value scheme decodes to does not depend on the index scheme."""


def supported(array: NDArray, opset: int, codings: Sequence[Coding] = EACH_SCHEME) -> list[tuple[Coding, NDArray]]:
    counts = count(Array(array))
    return [(coding, array) for coding in codings if coding.supports(counts, opset)]


@st.composite
def random_tensors(draw: st.DrawFn) -> NDArray:
    dtype = draw(st.sampled_from(list(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))) + draw(
        st.sampled_from([(), (31,), (400,)])
    )
    size = int(np.prod(shape, dtype=np.int64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.004, 0.03, 0.1, 0.3, 0.7, 1.0]))
    bits = rng.integers(0, 2**64, size, dtype=np.uint64)
    bits[rng.random(size) < 0.2] = draw(st.sampled_from(odd_bits(dtype)))
    bits[rng.random(size) >= density] = 0
    if draw(st.booleans()):
        bits[-1] = 1
    return with_bits(bits, dtype, shape)


@given(arrays=st.lists(random_tensors(), min_size=10, max_size=20))
@settings(max_examples=8, deadline=None)
def test_numpy_gives_every_byte_back(arrays: list[NDArray]) -> None:
    for array in arrays:
        counts = count(Array(array))
        for coding in CODINGS:
            if not coding.supports(counts, 13):
                continue
            found = coding.decode(coding.encode(Array(array), counts).inputs)
            assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize("opset", OPSETS)
def test_onnxruntime_gives_every_byte_of_the_edge_cases_back(opset: int) -> None:
    dtypes = DTYPES if opset == 17 else (np.dtype(np.float32),)
    arrays = [array for dtype in dtypes for array in edge_cases(dtype)[:: 1 if dtype == np.float32 else 3]]
    weights = [pair for array in arrays for pair in supported(array, opset)]
    assert len(weights) > 100
    for start in range(0, len(weights), 100):
        assert_decoded(weights[start : start + 100], opset)


def test_onnxruntime_gives_every_byte_of_every_coding_back() -> None:
    array = edge_cases(np.dtype(np.float32))[-1]
    weights = supported(array, 17, CODINGS)
    assert len(weights) > 40
    assert_decoded(weights, 17)


def round_trips(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What makes a test of `number` random tensors, 100 to a session."""
    slow = [HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large]
    every = settings(max_examples=number // 100, deadline=None, suppress_health_check=slow)

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        return every(given(arrays=st.lists(random_tensors(), min_size=100, max_size=100))(test))

    return decorated


def one_coding_each(arrays: list[NDArray], opset: int) -> list[tuple[Coding, NDArray]]:
    """Every array with one coding that can store it; which, goes round."""
    found = []
    for number, array in enumerate(arrays):
        able = supported(array, opset, CODINGS)
        if able:
            found.append(able[number % len(able)])
    return found


@pytest.mark.parametrize("opset", [11, 18])
@round_trips(100)
def test_onnxruntime_gives_every_byte_back(opset: int, arrays: list[NDArray]) -> None:
    assert_decoded(one_coding_each(arrays, opset), opset)


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
@round_trips(1500)
def test_onnxruntime_gives_every_byte_of_10000_tensors_back(opset: int, arrays: list[NDArray]) -> None:
    assert_decoded(one_coding_each(arrays, opset), opset)


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_the_reference_evaluator_agrees(opset: int) -> None:
    weights = [pair for array in edge_cases(np.dtype(np.float32))[::3] for pair in supported(array, opset)]
    found = ReferenceEvaluator(build(weights, opset)).run(None, {})
    for (coding, array), value in zip(weights, found, strict=True):
        assert (np.shape(value), np.asarray(value).tobytes()) == (array.shape, array.tobytes()), coding


def sparse(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray:
    rng = np.random.default_rng(5)
    array: NDArray = np.where(rng.random(shape) < 0.2, rng.integers(-9, 10, shape), 0)
    return array.astype(dtype)


CONSUMERS: dict[str, tuple[tuple[int, ...], list[str | int], list[str | int]]] = {
    "MatMul": ((12, 8), ["b", 12], ["b", 8]),
    "Conv": ((8, 4, 3, 3), ["b", 4, 8, 8], ["b", 8, 6, 6]),
}


@pytest.mark.parametrize(("op_type", "opset"), [("Conv", 17), *(("MatMul", opset) for opset in OPSETS)])
@pytest.mark.parametrize("coding", EACH_SCHEME, ids=lambda coding: coding.name)
def test_decoders_are_folded_away(coding: Coding, op_type: str, opset: int, tmp_path: Path) -> None:
    if coding.values == Narrow("bf16") and opset < 13:
        pytest.skip("bfloat16 came to Cast with opset 13")
    shape, x_dims, y_dims = CONSUMERS[op_type]
    weight = sparse(shape) if coding.values is None else np.sign(sparse(shape)) ** 2
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, x_dims)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, y_dims)
    consumer = helper.make_node(op_type, ["x", "w"], ["y"])
    tensors = coding.initializers("0", coding.encode(Array(weight)))
    model = assembled(helper.make_graph([*coding.nodes("0", "w"), consumer], "g", [x], [y], tensors), {coding}, opset)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    dims = {entry.name: [dim.dim_value for dim in entry.type.tensor_type.shape.dim] for entry in inferred}
    assert dims["w"] == list(shape)

    optimized = tmp_path / "optimized.onnx"
    decoded = session(model, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, optimized)
    graph = onnx.load(optimized).graph
    assert [node.op_type for node in graph.node] == [op_type]
    (initializer,) = graph.initializer
    assert onnx.numpy_helper.to_array(initializer).tobytes() == weight.tobytes()

    graph = helper.make_graph([consumer], "g", [x], [y], [protos.tensor_proto("w", weight)])
    dense = session(assembled(graph, set(), opset), ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    feed = {"x": np.ones([2, *(dim for dim in x_dims if isinstance(dim, int))], np.float32)}
    assert np.array_equal(decoded.run(None, feed)[0], dense.run(None, feed)[0])


def test_a_bfloat16_weight_is_folded_through_its_cast(tmp_path: Path) -> None:
    coding = Coding(Bitmask())
    weight = sparse((12, 7), BFLOAT16)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 12])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 7])
    nodes = [
        *coding.nodes("0", "w"),
        helper.make_node("Cast", ["w"], ["w32"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w32"], ["y"]),
    ]
    tensors = coding.initializers("0", coding.encode(Array(weight)))
    model = assembled(helper.make_graph(nodes, "g", [x], [y], tensors), {coding}, 17)
    optimized = tmp_path / "optimized.onnx"
    session(model, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, optimized)
    graph = onnx.load(optimized).graph
    assert [node.op_type for node in graph.node] == ["MatMul"]
    (initializer,) = graph.initializer
    assert np.array_equal(onnx.numpy_helper.to_array(initializer), weight.astype(np.float32))


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != BFLOAT16], ids=str)
def test_the_filler_is_the_first_of_values(dtype: np.dtype[Any]) -> None:
    """Encoders write 0 there; decoders take whatever it is, so that a zero point can come to stand there."""
    weight = np.array([0, 0, 3, 0, 4, 0], dtype)
    codings = [Coding(scheme) for scheme in SCHEMES if not scheme.stores_zeros]
    model = build([(coding, weight) for coding in codings], 17)
    values = {coding.part_names(str(turn))[coding.suffixes.index("values")] for turn, coding in enumerate(codings)}
    for tensor in model.graph.initializer:
        if tensor.name in values:
            stored = onnx.numpy_helper.to_array(tensor).copy()
            stored[0] = 5
            tensor.CopyFrom(protos.tensor_proto(tensor.name, stored))
    for found in session(model, LEVELS[1]).run(None, {}):
        assert found.tolist() == [5, 5, 3, 5, 4, 5]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("scheme", [*SCHEMES, *VALUE_SCHEMES], ids=lambda scheme: scheme.name)
def test_a_function_is_made_for_the_models_opset(scheme: Scheme | ValueScheme, opset: int) -> None:
    function = scheme.function(opset)
    assert (function.domain, function.name) == ("onnxprune", scheme.op_type)
    own = [("onnxprune", 1)] * any(node.op_type == "ReadBits" for node in function.node)
    assert [(entry.domain, entry.version) for entry in function.opset_import] == [("", opset), *own]
    letters = dict(zip(scheme.suffixes, function.input, strict=True))
    words = function.doc_string.replace("[0]", "").replace("{", " ")
    said = {word.strip("(),;:.") for word in words.split()}
    assert {letter for suffix, letter in letters.items() if suffix != "shape"} | {"filler", "Version"} <= said


@pytest.mark.parametrize("opset", [1, 9, 10])
@pytest.mark.parametrize("scheme", [*SCHEMES, *VALUE_SCHEMES], ids=lambda scheme: scheme.name)
def test_an_old_opset_is_refused(scheme: Scheme | ValueScheme, opset: int) -> None:
    with pytest.raises(EncodeError, match=rf"{scheme.op_type}.*opset {opset}.*11"):
        scheme.function(opset)
