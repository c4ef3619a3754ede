from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from builders import NDArray, constant, model_of, node, proto, ramp, stored, value
from onnx import TensorProto, helper
from onnxprune_passes.storage import from_proto, load
from onnxprune_passes.weights import find_weights
from weighing import axes_of, only_weight

# which inputs of which operators


@pytest.mark.parametrize(
    ("user", "shape", "kind", "out_axis", "in_axis"),
    [
        (node("Conv", "x", "w"), (8, 3, 3, 3), "conv", 0, 1),
        (node("Conv", "x", "w", group=4), (8, 1, 5), "conv", 0, 1),
        (node("FusedConv", "x", "w", domain="com.microsoft"), (8, 3, 3), "conv", 0, 1),
        (node("ConvTranspose", "x", "w"), (3, 8, 3, 3), "conv", 1, 0),
        (node("Gemm", "x", "w"), (5, 7), "fc", 1, 0),
        (node("Gemm", "x", "w", transB=1), (5, 7), "fc", 0, 1),
        (node("Gemm", "w", "x"), (5, 7), "fc", 0, 1),
        (node("Gemm", "w", "x", transA=1), (5, 7), "fc", 1, 0),
        (node("FusedGemm", "x", "w", transB=1, domain="com.microsoft"), (5, 7), "fc", 0, 1),
        (node("MatMul", "x", "w"), (5, 7), "fc", 1, 0),
        (node("MatMul", "w", "x"), (5, 7), "fc", 0, 1),
        (node("MatMul", "x", "w"), (2, 5, 7), "fc", 2, 1),
        (node("MatMul", "x", "w"), (5,), "fc", 0, None),  # a vector: its one axis is summed over
        (node("FusedMatMul", "x", "w", transB=1, domain="com.microsoft"), (5, 7), "fc", 0, 1),
        (node("LSTM", "x", "w", "r"), (1, 8, 3), "rnn", 1, 2),
        (node("GRU", "x", "w", "r"), (2, 6, 3), "rnn", 1, 2),
        (node("RNN", "x", "w", "r"), (1, 2, 3), "rnn", 1, 2),
    ],
)
def test_operators_say_which_axis_counts_neurons(
    user: onnx.NodeProto, shape: tuple[int, ...], kind: str, out_axis: int, in_axis: int
) -> None:
    weight = only_weight(model_of(user, w=ramp(*shape)))
    assert (weight.key, weight.shape, weight.kind, weight.quantised) == ("w", shape, kind, False)
    if len(shape) > 1:
        assert axes_of(weight) == [(out_axis, in_axis)]
    use = weight.uses[0]
    assert (use.node, use.op_type, user.input[use.input_index]) == ("y", user.op_type, "w")


@pytest.mark.parametrize(
    "user",
    [
        node("Conv", "x", "k", "w"),  # a bias
        node("Gemm", "x", "x", "w"),
        node("LSTM", "x", "k", "k", "w"),
        node("LSTM", "x", "k", "k", "", "", "w"),  # an initial state
        node("Add", "x", "w"),
        node("Mul", "x", "w"),
        node("BatchNormalization", "x", "w", "w", "w", "w"),
        node("LayerNormalization", "x", "w"),
        node("PRelu", "x", "w"),
        node("Conv", "x", "w", domain="org.example"),
        node("Gather", "x", "w"),
        node("Conv", "x"),
        node("Gemm", "x", ""),
    ],
)
def test_nothing_else_is_a_weight(user: onnx.NodeProto) -> None:
    assert find_weights(model_of(user, w=ramp(8)), embeddings=True) == ()


def test_both_operands_of_a_product_of_constants_are_weights() -> None:
    found = find_weights(model_of(node("MatMul", "a", "b"), a=ramp(3, 4), b=ramp(4, 5)))
    assert [(weight.key, axes_of(weight)) for weight in found] == [("a", [(0, 1)]), ("b", [(1, 0)])]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_weights_are_floats(dtype: Any) -> None:
    assert only_weight(model_of(node("MatMul", "x", "w"), w=ramp(3, 4, dtype=dtype))).dtype == dtype


@pytest.mark.parametrize("array", [np.array(3, np.float32), ramp(3, 4, dtype=np.int32), ramp(3, 4, dtype=np.uint8)])
def test_scalars_and_plain_integers_are_none(array: NDArray) -> None:
    assert find_weights(model_of(node("MatMul", "x", "w"), w=array)) == ()


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_every_gate_matrix_is_a_block_of_its_own(op_type: str, gates: int, directions: int) -> None:
    user = node(op_type, "x", "w", "r")
    found = find_weights(model_of(user, w=ramp(directions, gates * 2, 3), r=ramp(directions, gates * 2, 2)))
    assert [(weight.key, weight.blocks) for weight in found] == [("w", directions * gates), ("r", directions * gates)]


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_gate_matrices_are_blocks_only_where_they_lie_one_after_the_other(op_type: str, gates: int) -> None:
    flat = (node("Unsqueeze", "w", "zero", out="u"), node(op_type, "x", "u", "u"))
    weight = only_weight(model_of(*flat, w=ramp(gates * 2, 3), zero=np.array([0], np.int64)))
    assert (weight.blocks, axes_of(weight)) == (gates, [(0, 1), (0, 1)])
    turned = (node("Transpose", "w", perm=[0, 2, 1], out="t"), node(op_type, "x", "t", "t"))
    weight = only_weight(model_of(*turned, w=ramp(1, 3, gates * 2)))
    assert (weight.blocks, axes_of(weight)) == (1, [(2, 1), (2, 1)])


# the way back to what is stored


PLACES: dict[str, Any] = {
    "a": np.array([2, 0], np.int64),
    "to": np.array([15, 2], np.int64),
    "last": np.array([-1], np.int64),
}


@pytest.mark.parametrize(
    ("way", "shape", "axes"),
    [
        ([("Identity", {})], (5, 7), (1, 0)),
        ([("Cast", {"to": TensorProto.FLOAT})], (5, 7), (1, 0)),
        ([("Transpose", {})], (5, 7), (0, 1)),
        ([("Transpose", {"perm": [1, 0]})], (5, 7), (0, 1)),
        ([("Transpose", {"perm": [0, 1]})], (5, 7), (1, 0)),
        ([("Transpose", {"perm": [2, 0, 1]})], (5, 7, 3), (1, 0)),
        ([("Transpose", {}), ("Identity", {}), ("Transpose", {})], (5, 7), (1, 0)),
        ([("Reshape to", {})], (5, 6), (None, None)),
        ([("Unsqueeze a", {})], (5, 7), (1, None)),
        ([("Unsqueeze last", {})], (5, 7), (None, 1)),
        ([("Unsqueeze", {"axes": [0]})], (5, 7), (1, 0)),  # the form before opset 13
        ([("Squeeze last", {})], (5, 7, 1), (1, 0)),
        ([("Squeeze", {"axes": [1]})], (5, 1, 7), (2, 0)),
        ([("Transpose", {"perm": [1, 0, 2]}), ("Squeeze a", {})], (1, 1, 7, 5)[1:], (None, None)),
    ],
)
def test_axes_are_followed_back(
    way: list[tuple[str, dict[str, Any]]], shape: tuple[int, ...], axes: tuple[int | None, int | None]
) -> None:
    nodes, name = [], "w"
    for step, (what, attributes) in enumerate(way):
        op_type, *argument = what.split()
        nodes.append(node(op_type, name, *argument, out=f"s{step}", **attributes))
        name = f"s{step}"
    weight = only_weight(model_of(*nodes, node("MatMul", "x", name), w=ramp(*shape), **PLACES))
    assert weight.key == "w"
    if len(way) < 2 or axes != (None, None):
        assert axes_of(weight) == [axes]


@pytest.mark.parametrize("op_type", ["Add", "Relu", "Slice", "Concat", "Gather", "Expand"])
def test_what_computes_ends_the_way(op_type: str) -> None:
    assert find_weights(model_of(node(op_type, "w", "w", out="c"), node("MatMul", "x", "c"), w=ramp(5, 7))) == ()


def test_what_is_computed_at_run_time_is_no_weight() -> None:
    assert find_weights(model_of(node("MatMul", "x", "x"), w=ramp(5, 7))) == ()
    assert find_weights(model_of(node("Relu", "x", out="h"), node("MatMul", "h", "h"))) == ()


def test_a_weight_in_a_constant_node_is_one() -> None:
    weight = only_weight(model_of(constant("w", ramp(8, 9)), node("Transpose", "w", out="t"), node("MatMul", "x", "t")))
    assert (weight.key, axes_of(weight)) == ("w", [(0, 1)])


def test_a_sparse_constant_is_none() -> None:
    sparse = helper.make_sparse_tensor(stored("s", ramp(2)), stored("", np.array([3, 60], np.int64)), [8, 10])
    made = helper.make_node("Constant", [], ["w"], sparse_value=sparse)
    assert find_weights(model_of(made, node("MatMul", "x", "w"))) == ()


@pytest.mark.parametrize("place", ["input", "output"])
def test_an_initializer_that_is_input_or_output_too_is_a_weight(place: str) -> None:
    model = proto([node("MatMul", "x", "w")], [stored("w", ramp(8, 9))], inputs=[value("x", None)])
    getattr(model.graph, place).append(value("w", [8, 9]))
    assert only_weight(from_proto(model)).key == "w"


@pytest.mark.parametrize("perm", [[5, 0], [0, -3]])
def test_a_damaged_transpose_does_not_end_in_an_exception(perm: list[int]) -> None:
    nodes = (node("Transpose", "w", out="t", perm=perm), node("MatMul", "x", "t"))
    assert only_weight(model_of(*nodes, w=ramp(5, 7))).key == "w"
    nodes = (node("Unsqueeze", "w", out="t", axes=[0, 0]), node("MatMul", "x", "t"))
    assert only_weight(model_of(*nodes, w=ramp(5, 7))).key == "w"


# several uses


def test_a_shared_weight_is_there_once_with_all_its_uses() -> None:
    nodes = (node("MatMul", "x", "w", out="a", name="one"), node("Gemm", "a", "w", name="two", transB=1))
    weight = only_weight(model_of(*nodes, w=ramp(5, 5)))
    assert [(use.node, use.out_axis, use.in_axis) for use in weight.uses] == [("one", 1, 0), ("two", 0, 1)]


def test_embeddings_are_there_only_when_asked_for() -> None:
    model = model_of(node("Gather", "table", "x"), table=ramp(20, 4))
    assert find_weights(model) == ()
    weight = only_weight(model, embeddings=True)
    assert (weight.kind, axes_of(weight)) == ("embedding", [(1, None)])
    assert find_weights(model_of(node("Gather", "table", "x", axis=1), table=ramp(20, 4)), embeddings=True) == ()


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_tied_embedding_is_a_weight(*, embeddings: bool) -> None:
    nodes = (
        node("Gather", "table", "x", out="e"),
        node("Transpose", "table", out="t"),
        node("MatMul", "e", "t"),
    )
    weight = only_weight(model_of(*nodes, table=ramp(20, 4)), embeddings=embeddings)
    assert (weight.kind, axes_of(weight)) == ("fc", [(1, None), (0, 1)])


def test_the_order_is_that_of_the_first_uses() -> None:
    nodes = [node("MatMul", "x", name, out=f"y{name}") for name in ("c", "a", "b", "a")]
    assert [weight.key for weight in find_weights(model_of(*nodes, a=ramp(2, 2), b=ramp(2, 2), c=ramp(2, 2)))] == [
        "c",
        "a",
        "b",
    ]


# real models


def prunable_counts(data_dir: Path) -> dict[str, int]:
    """File name → the column "prunable weights" of the table in the data's README.md."""
    counts = {}
    for line in (data_dir / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 5 and cells[1].endswith(".onnx"):
            counts[cells[1]] = int(cells[4].replace(",", ""))
    assert len(counts) == 23
    return counts


@pytest.mark.corpus
def test_the_corpus_has_the_known_numbers_of_weights(data_dir: Path, corpus_path: Path) -> None:
    expected = prunable_counts(data_dir)[str(corpus_path.relative_to(data_dir / "models"))]
    if corpus_path.stem == "mnist_cntk_8":
        expected = 5960  # with the [16, 4, 4, 10] weight that a Reshape brings to its MatMul
    assert sum(weight.size for weight in find_weights(load(corpus_path))) == expected
