from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnxprune_passes.arrays import Array, NDArray
from onnxprune_passes.encode import (
    CODINGS,
    SCHEMES,
    VALUE_SCHEMES,
    Bitmask,
    Coding,
    Counts,
    Gaps,
    Patterns,
    Plan,
    Values,
    choose,
    count,
    domain_import,
    protos,
)
from onnxprune_passes.encode.scheme import Decodable

OPSET = 17
PLAIN = (Coding(Bitmask()), Coding(Gaps(4)), Coding(Gaps(8)))
"""Three codings between which it is plain which is best at what density."""


def sparse(shape: tuple[int, ...], density: float, seed: int = 0, dtype: object = np.float32) -> NDArray:
    rng = np.random.default_rng(seed)
    values: NDArray = np.where(rng.random(shape) < density, rng.integers(1, 100, shape), 0)
    return values.astype(np.dtype(dtype))  # type: ignore[call-overload]


def counts_of(arrays: Mapping[str, NDArray]) -> dict[str, Counts]:
    return {name: count(Array(array)) for name, array in arrays.items()}


def chosen(plan: Plan) -> dict[str, str]:
    return {choice.name: choice.coding.name if choice.coding else "dense" for choice in plan.choices}


def graph_nbytes(nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]) -> int:
    return int(
        helper.make_graph(nodes, "g", [], [], tensors).ByteSize() - helper.make_graph([], "g", [], []).ByteSize()
    )


SHAPES: list[tuple[int, ...]] = [(1,), (5,), (127,), (128, 1), (300, 100), (64, 3, 11, 11), (16385,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int8, np.uint8])
def test_predicted_bytes_are_the_serialized_ones(shape: tuple[int, ...], density: float, dtype: object) -> None:
    array = sparse(shape, density, dtype=dtype)
    counts = count(Array(array))
    for name in ("w", "a weight with a long name" * 10):
        dense = graph_nbytes([], [protos.tensor_proto(name, array)])
        assert protos.tensor_nbytes(name, array.shape, array.dtype) == dense
        for coding in CODINGS:
            if coding.supports(counts, OPSET):
                tensors = list(coding.initializers("7", coding.encode(Array(array), counts)))
                assert coding.nbytes("7", name, counts) == graph_nbytes(list(coding.nodes("7", name)), tensors)


def test_a_dense_tensor_is_what_numpy_helper_makes() -> None:
    array = sparse((7, 9), 0.5)
    assert protos.tensor_proto("w", array) == onnx.numpy_helper.from_array(array, "w")


@pytest.mark.parametrize("opset", [11, 17, 26])
@pytest.mark.parametrize("one", [*SCHEMES, *VALUE_SCHEMES], ids=lambda one: one.name)
def test_once_bytes_are_the_serialized_ones(one: Decodable, opset: int) -> None:
    model = onnx.ModelProto()
    function = one.function(opset)
    model.functions.append(function)
    assert model.ByteSize() == protos.function_nbytes(function)
    model.opset_import.append(domain_import())
    assert model.ByteSize() == protos.function_nbytes(function) + protos.import_nbytes()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16383, 16384, 2**31, 2**63 - 1])
def test_varint(value: int) -> None:
    entry = onnx.StringStringEntryProto()
    entry.key = "x" * min(value, 20000)
    expected = protos.framed_nbytes(min(value, 20000), 1)
    assert entry.ByteSize() == expected
    assert protos.varint_nbytes(value) == onnx.OperatorSetIdProto(version=value).ByteSize() - 1


def model_nbytes(arrays: Mapping[str, NDArray], plan: Plan) -> int:
    """Bytes of a whole model stored as planned."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    for choice in plan.choices:
        array = arrays[choice.name]
        if choice.coding is None:
            tensors.append(protos.tensor_proto(choice.name, array))
        else:
            nodes.extend(choice.coding.nodes("00", choice.name))
            tensors.extend(choice.coding.initializers("00", choice.coding.encode(Array(array), choice.counts)))
    imports = [helper.make_opsetid("", OPSET)] + ([domain_import()] if plan.functions else [])
    graph = helper.make_graph(nodes, "g", [], [], tensors)
    model = helper.make_model(graph, opset_imports=imports, functions=plan.functions)
    length_of_graph = protos.varint_nbytes(graph.ByteSize())
    return int(model.ByteSize() - length_of_graph)


def functions_of(codings: Iterable[Coding]) -> dict[str, onnx.FunctionProto]:
    """Name → each function that `codings` need."""
    return {name: function for coding in codings for name, function in coding.functions(OPSET).items()}


def test_plan_bytes_are_what_the_file_gains() -> None:
    arrays = {
        "half": sparse((200, 300), 0.5),
        "tenth": sparse((500, 400), 0.1),
        "hundredth": sparse((500, 400), 0.01),
        "all": sparse((30, 40), 1.0),
        "few": sparse((3, 4), 0.1),
        "double": sparse((99, 77), 0.4, dtype=np.float64),
    }
    plan = choose(counts_of(arrays), OPSET, PLAIN)
    assert chosen(plan) == {
        "half": "bitmask",
        "tenth": "gaps4",
        "hundredth": "gaps8",
        "all": "dense",
        "few": "dense",
        "double": "bitmask",
    }
    assert [function.name for function in plan.functions] == ["ReadBits", "DecodeBitmask", "DecodeGaps"]
    empty = model_nbytes({}, choose({}, OPSET))
    assert model_nbytes(arrays, plan) - empty == plan.nbytes
    dense = choose(counts_of(arrays), OPSET, ())
    assert model_nbytes(arrays, dense) - empty == plan.dense_nbytes == dense.nbytes


def test_a_function_must_pay_for_itself() -> None:
    arrays = {"big": sparse((400, 500), 0.1), "small": sparse((30, 30), 0.5)}
    counts = counts_of(arrays)
    plan = choose(counts, OPSET, PLAIN)
    small = plan.choices[1]
    assert small.nbytes_by_coding["bitmask"] < small.nbytes_by_coding["gaps4"] < small.dense_nbytes
    assert chosen(plan) == {"big": "gaps4", "small": "gaps4"}
    many = counts | {f"small{number}": counts["small"] for number in range(40)}
    assert chosen(choose(many, OPSET, PLAIN))["small"] == "bitmask"


def test_a_tensor_that_does_not_cover_the_function_stays_dense() -> None:
    counts = counts_of({"w": sparse((14, 14), 0.1)})
    plan = choose(counts, OPSET, PLAIN)
    assert plan.choices[0].nbytes_by_coding["gaps4"] < plan.dense_nbytes
    assert (chosen(plan), plan.functions, plan.once_nbytes) == ({"w": "dense"}, (), 0)
    assert plan.nbytes == plan.dense_nbytes
    together = choose({f"w{number}": counts["w"] for number in range(100)}, OPSET, PLAIN)
    assert set(chosen(together).values()) == {"bitmask"}


@given(
    weights=st.lists(
        st.tuples(st.integers(20, 20000), st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0])), max_size=4
    ),
    codings=st.sets(st.sampled_from(CODINGS), max_size=5),
)
@settings(max_examples=50, deadline=None)
def test_no_assignment_is_smaller(weights: list[tuple[int, float]], codings: set[Coding]) -> None:
    counts = {}
    for number, (size, density) in enumerate(weights):
        escapes = {bits: size // (5 << bits) for bits in (2, 3, 4, 6, 8)}
        values = Values(tuple(range(1, 4 ** (number + 1))))
        quotients = {bits: size >> bits for bits in range(9)}
        kept, patterns = int(size * density), Patterns(size // 9, {length: size // length for length in (4, 8, 16, 32)})
        counts[f"w{number}"] = Counts((size,), np.dtype(np.float32), kept, escapes, values, quotients, patterns)
    plan = choose(counts, OPSET, tuple(codings))
    options = [[None, *(one for one in codings if one.supports(each, OPSET))] for each in counts.values()]
    totals = []
    for assignment in product(*options):
        used = functions_of(coding for coding in assignment if coding)
        total = protos.import_nbytes() * bool(used) + sum(map(protos.function_nbytes, used.values()))
        for (name, each), coding in zip(counts.items(), assignment, strict=True):
            dense = protos.tensor_nbytes(name, each.shape, each.dtype)
            total += coding.nbytes("00", name, each) if coding else dense
        totals.append(total)
    assert plan.nbytes == min(totals)
    used = functions_of(choice.coding for choice in plan.choices if choice.coding)
    assert list(used.values()) == sorted(plan.functions, key=list(used.values()).index)


def test_what_cannot_be_stored_is_refused_with_a_reason() -> None:
    counts = counts_of(
        {"none": np.zeros((0, 9), np.float32), "bf16": sparse((200, 300), 0.1, dtype=ml_dtypes.bfloat16)}
    )
    plan = choose(counts, OPSET, PLAIN)
    assert chosen(plan) == {"none": "dense", "bf16": "bitmask"}
    assert set(plan.choices[0].refused) == {"bitmask", "gaps4", "gaps8"}
    assert set(plan.choices[1].refused) == {"gaps4", "gaps8"}
    old = choose(counts_of({"w": sparse((200, 300), 0.1)}), 9, PLAIN)
    assert chosen(old) == {"w": "dense"}
    assert all("opset is 9" in reason for reason in old.choices[0].refused.values())


def test_only_the_schemes_asked_for() -> None:
    counts = counts_of({"w": sparse((300, 300), 0.1)})
    assert chosen(choose(counts, OPSET, PLAIN[:1])) == {"w": "bitmask"}
    assert chosen(choose(counts, OPSET, PLAIN[2:])) == {"w": "gaps8"}
    assert chosen(choose(counts, OPSET, ())) == {"w": "dense"}


def test_with_many_schemes_nothing_is_left_to_gain_by_one() -> None:
    """Every set is too many then; what is found has to be better than with any scheme more or less."""
    arrays = {f"w{number}": sparse((90 * number, 100), 0.9**number, seed=number) for number in range(1, 16)}
    arrays["few"] = np.sign(sparse((300, 300), 0.3))
    counts = counts_of(arrays)
    plan = choose(counts, OPSET)
    used = {function.name for function in plan.functions}
    assert used
    for gone in used:
        left = [one for one in CODINGS if set(one.functions(OPSET)) <= used - {gone}]
        assert choose(counts, OPSET, left).nbytes > plan.nbytes
    for coding in CODINGS:
        more = [one for one in CODINGS if set(one.functions(OPSET)) <= used | set(coding.functions(OPSET))]
        assert choose(counts, OPSET, more).nbytes == plan.nbytes


def test_nothing_to_choose() -> None:
    plan = choose({}, OPSET)
    assert (plan.choices, plan.functions, plan.nbytes, plan.dense_nbytes) == ((), (), 0, 0)


@pytest.mark.parametrize(("density", "measured"), [(0.2, 0.2264), (0.1, 0.1151), (0.05, 0.0618), (0.02, 0.0295)])
def test_gap_bytes_of_a_large_weight(density: float, measured: float) -> None:
    array = sparse((2048, 2048), 1.0)
    drop = np.random.default_rng(3).permutation(array.size)[round(array.size * density) :]
    array.reshape(-1)[drop] = 0
    counts = count(Array(array))
    share = Coding(Gaps(4)).nbytes("00", "w", counts) / protos.tensor_nbytes("w", array.shape, array.dtype)
    assert share == pytest.approx(measured, abs=0.0008)
