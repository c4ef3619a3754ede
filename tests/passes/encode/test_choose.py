from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnxprune_passes.arrays import Array, NDArray
from onnxprune_passes.encode import (
    SCHEMES,
    Bitmask,
    Counts,
    Gaps,
    Plan,
    Scheme,
    choose,
    count,
    decoder_node,
    domain_import,
    initializers,
    protos,
)
from onnxprune_passes.errors import EncodeError

OPSET = 17


def sparse(shape: tuple[int, ...], density: float, seed: int = 0, dtype: object = np.float32) -> NDArray:
    rng = np.random.default_rng(seed)
    values: NDArray = np.where(rng.random(shape) < density, rng.integers(1, 100, shape), 0)
    return values.astype(np.dtype(dtype))  # type: ignore[call-overload]


def counts_of(arrays: Mapping[str, NDArray]) -> dict[str, Counts]:
    return {name: count(Array(array)) for name, array in arrays.items()}


def chosen(plan: Plan) -> dict[str, str]:
    return {choice.name: choice.scheme.name if choice.scheme else "dense" for choice in plan.choices}


def graph_nbytes(nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]) -> int:
    return int(
        helper.make_graph(nodes, "g", [], [], tensors).ByteSize() - helper.make_graph([], "g", [], []).ByteSize()
    )


SHAPES: list[tuple[int, ...]] = [(), (1,), (5,), (127,), (128, 1), (300, 100), (64, 3, 11, 11), (16385,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int8, np.uint8])
def test_predicted_bytes_are_the_serialized_ones(shape: tuple[int, ...], density: float, dtype: object) -> None:
    array = sparse(shape, density, dtype=dtype)
    counts = count(Array(array))
    for name in ("w", "a weight with a long name" * 10):
        dense = graph_nbytes([], [protos.tensor_proto(name, array)])
        assert protos.tensor_nbytes(name, array.shape, array.dtype) == dense
        for scheme in SCHEMES:
            tensors = list(initializers(name, scheme, scheme.encode(Array(array), counts)))
            found = graph_nbytes([decoder_node(name, scheme)], tensors)
            assert protos.encoded_nbytes(name, scheme, counts) == found


def test_a_dense_tensor_is_what_numpy_helper_makes() -> None:
    array = sparse((7, 9), 0.5)
    assert protos.tensor_proto("w", array) == onnx.numpy_helper.from_array(array, "w")


@pytest.mark.parametrize("opset", [11, 17, 26])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
def test_once_bytes_are_the_serialized_ones(scheme: Scheme, opset: int) -> None:
    model = onnx.ModelProto()
    model.functions.append(scheme.function(opset))
    assert model.ByteSize() == protos.function_nbytes(scheme, opset)
    model.opset_import.append(domain_import())
    assert model.ByteSize() == protos.function_nbytes(scheme, opset) + protos.import_nbytes()


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
        if choice.scheme is None:
            tensors.append(protos.tensor_proto(choice.name, array))
        else:
            nodes.append(decoder_node(choice.name, choice.scheme))
            tensors.extend(initializers(choice.name, choice.scheme, choice.scheme.encode(Array(array), choice.counts)))
    imports = [helper.make_opsetid("", OPSET)] + ([domain_import()] if plan.schemes else [])
    graph = helper.make_graph(nodes, "g", [], [], tensors)
    model = helper.make_model(graph, opset_imports=imports, functions=[s.function(OPSET) for s in plan.schemes])
    length_of_graph = protos.varint_nbytes(graph.ByteSize())
    return int(model.ByteSize() - length_of_graph)


def test_plan_bytes_are_what_the_file_gains() -> None:
    arrays = {
        "half": sparse((200, 300), 0.5),
        "tenth": sparse((500, 400), 0.1),
        "hundredth": sparse((500, 400), 0.01),
        "all": sparse((30, 40), 1.0),
        "few": sparse((3, 4), 0.1),
        "double": sparse((99, 77), 0.4, dtype=np.float64),
    }
    plan = choose(counts_of(arrays), OPSET)
    assert chosen(plan) == {
        "half": "bitmask",
        "tenth": "gaps4",
        "hundredth": "gaps8",
        "all": "dense",
        "few": "dense",
        "double": "bitmask",
    }
    assert [scheme.name for scheme in plan.schemes] == ["bitmask", "gaps4", "gaps8"]
    empty = model_nbytes({}, choose({}, OPSET))
    assert model_nbytes(arrays, plan) - empty == plan.nbytes
    dense = choose(counts_of(arrays), OPSET, ())
    assert model_nbytes(arrays, dense) - empty == plan.dense_nbytes == dense.nbytes


def test_a_function_must_pay_for_itself() -> None:
    arrays = {"big": sparse((400, 500), 0.1), "small": sparse((60, 60), 0.5)}
    counts = counts_of(arrays)
    plan = choose(counts, OPSET)
    small = plan.choices[1]
    assert small.scheme_nbytes["bitmask"] < small.scheme_nbytes["gaps4"] < small.dense_nbytes
    assert chosen(plan) == {"big": "gaps4", "small": "gaps4"}
    many = counts | {f"small{number}": counts["small"] for number in range(40)}
    assert chosen(choose(many, OPSET))["small"] == "bitmask"


def test_a_tensor_that_does_not_cover_the_function_stays_dense() -> None:
    counts = counts_of({"w": sparse((20, 20), 0.1)})
    plan = choose(counts, OPSET)
    assert plan.choices[0].scheme_nbytes["gaps4"] < plan.dense_nbytes
    assert (chosen(plan), plan.schemes, plan.once_nbytes) == ({"w": "dense"}, (), 0)
    assert plan.nbytes == plan.dense_nbytes
    together = choose({f"w{number}": counts["w"] for number in range(100)}, OPSET)
    assert set(chosen(together).values()) == {"gaps4"}


@given(
    weights=st.lists(
        st.tuples(st.integers(20, 20000), st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0])), max_size=4
    ),
    schemes=st.sets(st.sampled_from(SCHEMES)),
)
def test_no_assignment_is_smaller(weights: list[tuple[int, float]], schemes: set[Scheme]) -> None:
    counts = {}
    for number, (size, density) in enumerate(weights):
        escapes = {4: size // 20, 8: size // 300} if density < 0.2 else {4: 0, 8: 0}
        counts[f"w{number}"] = Counts((size,), np.dtype(np.float32), int(size * density), escapes)
    plan = choose(counts, OPSET, tuple(schemes))
    options: list[list[Scheme | None]] = [[None, *schemes] for _ in counts]
    totals = []
    for assignment in product(*options):
        used = {scheme for scheme in assignment if scheme}
        total = protos.import_nbytes() * bool(used) + sum(protos.function_nbytes(scheme, OPSET) for scheme in used)
        for (name, count_), scheme in zip(counts.items(), assignment, strict=True):
            if scheme is None:
                total += protos.tensor_nbytes(name, count_.shape, count_.dtype)
            else:
                total += protos.encoded_nbytes(name, scheme, count_)
        totals.append(total)
    assert plan.nbytes == min(totals)
    assert {choice.scheme for choice in plan.choices if choice.scheme} == set(plan.schemes) <= schemes


def test_what_cannot_be_stored_is_refused_with_a_reason() -> None:
    counts = counts_of(
        {"none": np.zeros((0, 9), np.float32), "bf16": sparse((200, 300), 0.1, dtype=ml_dtypes.bfloat16)}
    )
    plan = choose(counts, OPSET)
    assert chosen(plan) == {"none": "dense", "bf16": "bitmask"}
    assert set(plan.choices[0].refused) == {"bitmask", "gaps4", "gaps8"}
    assert set(plan.choices[1].refused) == {"gaps4", "gaps8"}
    old = choose(counts_of({"w": sparse((200, 300), 0.1)}), 9)
    assert chosen(old) == {"w": "dense"}
    assert all("opset is 9" in reason for reason in old.choices[0].refused.values())


def test_only_the_schemes_asked_for() -> None:
    counts = counts_of({"w": sparse((300, 300), 0.1)})
    assert chosen(choose(counts, OPSET, (Bitmask(),))) == {"w": "bitmask"}
    assert chosen(choose(counts, OPSET, (Gaps(8),))) == {"w": "gaps8"}
    assert chosen(choose(counts, OPSET, ())) == {"w": "dense"}
    with pytest.raises(EncodeError, match="11 schemes"):
        choose(counts, OPSET, (Bitmask(),) * 11)


def test_nothing_to_choose() -> None:
    plan = choose({}, OPSET)
    assert (plan.choices, plan.schemes, plan.nbytes, plan.dense_nbytes) == ((), (), 0, 0)


@pytest.mark.parametrize(("density", "measured"), [(0.2, 0.2264), (0.1, 0.1151), (0.05, 0.0618), (0.02, 0.0295)])
def test_gap_bytes_of_a_large_weight(density: float, measured: float) -> None:
    array = sparse((2048, 2048), 1.0)
    drop = np.random.default_rng(3).permutation(array.size)[round(array.size * density) :]
    array.reshape(-1)[drop] = 0
    counts = count(Array(array))
    share = protos.encoded_nbytes("w", Gaps(4), counts) / protos.tensor_nbytes("w", array.shape, array.dtype)
    assert share == pytest.approx(measured, abs=0.0008)
