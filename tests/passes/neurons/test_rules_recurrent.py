"""LSTM, GRU and RNN: hidden units with everything that belongs to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx.reference import ReferenceEvaluator
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.neurons import find_groups
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import to_proto

NDArray = npt.NDArray[Any]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def cell(
    op: str,
    features: int,
    units: int,
    *,
    directions: int = 1,
    dead: tuple[int, ...] = (),
    unread: tuple[int, ...] = (),
    scale: float = 0.25,
) -> dict[str, NDArray]:
    """W, R and B: quarters of small integers; units `dead` have a zero candidate gate, `unread` a zero column of R."""
    gates, rng = GATES[op], np.random.default_rng(len(op) + units)
    made = {
        name: (rng.integers(1, 4, shape) * rng.choice([-1, 1], shape) * scale).astype(np.float32)
        for name, shape in (
            ("w", (directions, gates * units, features)),
            ("r", (directions, gates * units, units)),
            ("b", (directions, 2 * gates * units)),
        )
    }
    for unit in dead:
        row = (gates - 1) * units + unit
        made["w"][:, row] = made["r"][:, row] = 0
        made["b"][:, [row, row + gates * units]] = 0
    made["r"][:, :, list(unread)] = 0
    return made


def behind(rows: int, *unread: int) -> NDArray:
    """A weight of two outputs that does not read some of its `rows`."""
    values = np.arange(1, 2 * rows + 1, dtype=np.float32).reshape(rows, 2) / 8
    values[list(unread)] = 0
    return values


SEQUENCE = "g (float[5,N,3] x) => (float[5,N,2] y)"
LAST = "g (float[5,N,3] x) => (float[1,N,2] y)"
OUT = "q = Squeeze(s, one) y = MatMul(q, w2)"
ONE = {"one": [1]}
INEXACT = {"exact": False}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lstm": (
        f"{SEQUENCE} {{ h = MatMul(x, w1) s = LSTM<hidden_size=4>(h, w, r, b) {OUT} }}",
        {
            **cell("LSTM", 4, 4, dead=(2,), unread=(1,)),
            **ONE,
            "w1": ((3, 4), {1: [1]}),
            "w2": behind(4, 1),
        },
        INEXACT,
    ),
    "lstm_without_bias": (
        f"{SEQUENCE} {{ s, h, c = LSTM<hidden_size=3>(x, w, r) {OUT} }}",
        {**{key: value for key, value in cell("LSTM", 3, 3, dead=(0,)).items() if key != "b"}, **ONE, "w2": behind(3)},
        INEXACT,
    ),
    "lstm_both_directions": (
        f"""{SEQUENCE} {{ z = Shape(x) n = Slice(z, one, two) k = Concat<axis=0>(two, n, four)
        zeros = ConstantOfShape(k) s = LSTM<hidden_size=4, direction="bidirectional">(x, w, r, b, , zeros, zeros)
        t = Transpose<perm=[0,2,1,3]>(s) q = Reshape(t, flat) y = MatMul(q, w2) }}""",
        {
            **cell("LSTM", 3, 4, directions=2, dead=(2,), unread=(1,)),
            **ONE,
            "two": [2],
            "four": [4],
            "flat": [0, 0, -1],
            "w2": behind(8, 1, 5),
        },
        INEXACT,
    ),
    "lstm_expanded_zero_states": (
        f"""{SEQUENCE} {{ z = Shape(x) n = Slice(z, one, two) k = Concat<axis=0>(one, n, four)
        h0 = Expand(zeros, k) s = LSTM<hidden_size=4>(x, w, r, b, , h0, h0) {OUT} }}""",
        {
            **cell("LSTM", 3, 4, dead=(2,), unread=(1,)),
            **ONE,
            "two": [2],
            "four": [4],
            "zeros": np.zeros((1, 1, 4), np.float32),
            "w2": behind(4, 1),
        },
        INEXACT,
    ),
    "gru_expanded_state": (
        f"""{SEQUENCE} {{ z = Shape(x) n = Slice(z, one, two) k = Concat<axis=0>(one, n, four)
        h0 = Expand(given, k) s = GRU<hidden_size=4>(x, w, r, b, , h0) {OUT} }}""",
        {
            **cell("GRU", 3, 4, dead=(2,), unread=(1,)),
            **ONE,
            "two": [2],
            "four": [4],
            "given": np.array([[[1, 0, 0, 2]]], np.float32),
            "w2": behind(4, 1),
        },
        INEXACT,
    ),
    "lstm_states": (
        """g (float[5,1,3] x, int32[1] length) => (float[1,1,2] y) {
        s, h, c = LSTM<hidden_size=4>(x, w, r, b, length, h0, c0, p) a = Add(h, c) y = MatMul(a, w2) }""",
        {
            **cell("LSTM", 3, 4, dead=(2, 3), unread=(1,)),
            "h0": np.array([[[1, 2, 0, 3]]], np.float32),
            "c0": np.array([[[1, 2, 0, 0]]], np.float32),
            "p": np.arange(1, 13, dtype=np.float32).reshape(1, 12) / 8,
            "w2": behind(4, 1),
        },
        INEXACT,
    ),
    "lstm_stacked": (
        f"""{SEQUENCE} {{ a = LSTM<hidden_size=4>(x, w, r, b) q = Squeeze(a, one)
        v = LSTM<hidden_size=3>(q, w3, r3) t = Squeeze(v, one) y = MatMul(t, w2) }}""",
        {
            **cell("LSTM", 3, 4, dead=(2,), unread=(1,)),
            **ONE,
            "w3": ((1, 12, 4), {2: [1]}),
            "r3": ((1, 12, 3), {2: [2]}),
            "w2": behind(3, 2),
        },
        INEXACT,
    ),
    "lstm_candidate_is_not_zero": (
        f"""{SEQUENCE} {{ s = LSTM<hidden_size=3, activations=["Sigmoid", "Sigmoid", "Tanh"]>(x, w, r, b) {OUT} }}""",
        {**cell("LSTM", 3, 3, dead=(0,)), **ONE, "w2": behind(3)},
        INEXACT,
    ),
    "lstm_state_is_an_input": (
        f"""{SEQUENCE.replace("x)", "x, float[1,N,3] c0)")} {{
        s = LSTM<hidden_size=3>(x, w, r, b, , , c0) {OUT} }}""",
        {**cell("LSTM", 3, 3, dead=(0,)), **ONE, "w2": behind(3)},
        INEXACT,
    ),
    "lstm_state_is_an_output": (
        f"""{SEQUENCE.replace("y)", "y, float[1,N,3] c)")} {{ s, h, c = LSTM<hidden_size=3>(x, w, r, b) {OUT} }}""",
        {**cell("LSTM", 3, 3, unread=(0,)), **ONE, "w2": behind(3, 0)},
        INEXACT,
    ),
    "lstm_of_constant_feature": (
        f"{SEQUENCE} {{ h = MatMul(x, w1) a = Add(h, b1) s = LSTM<hidden_size=3>(a, w, r, b) {OUT} }}",
        {**cell("LSTM", 3, 3), **ONE, "w1": ((3, 3), {1: [1]}), "b1": [0.0, 2.0, 0.0], "w2": behind(3)},
        INEXACT,
    ),
    "gru": (
        f"""{LAST} {{ s, h = GRU<hidden_size=4, linear_before_reset=1>(x, w, r, b) y = MatMul(h, w2) }}""",
        {**cell("GRU", 3, 4, dead=(2,), unread=(1,)), "w2": behind(4, 1)},
        INEXACT,
    ),
    "gru_reverse": (
        f"""{LAST} {{ , h = GRU<hidden_size=4, direction="reverse">(x, w, r, b) y = MatMul(h, w2) }}""",
        {**cell("GRU", 3, 4, dead=(2,), unread=(1,)), "w2": behind(4, 1)},
        INEXACT,
    ),
    "gru_computed_state": (
        f"""{LAST.replace("x)", "x, float[1,N,2] z)")} {{ i = MatMul(z, w0)
        s, h = GRU<hidden_size=4>(x, w, r, b, , i) y = MatMul(h, w2) }}""",
        {**cell("GRU", 3, 4, dead=(2, 3), unread=(1,)), "w0": ((2, 4), {1: [2]}), "w2": behind(4, 1)},
        INEXACT,
    ),
    "rnn": (
        f"""{SEQUENCE} {{ s = RNN<hidden_size=4, activations=["Relu"]>(x, w, r, b) {OUT} }}""",
        {**cell("RNN", 3, 4, dead=(2,), unread=(1,), scale=1.0), **ONE, "w2": behind(4, 1) * 8},
        {},
    ),
    "rnn_both_directions": (
        f"""{SEQUENCE} {{ s = RNN<hidden_size=4, direction="bidirectional", activations=["Relu", "LeakyRelu"],
        activation_alpha=[0.0, 0.25]>(x, w, r, b) q = ReduceSum<keepdims=0>(s, one) y = MatMul(q, w2) }}""",
        {**cell("RNN", 3, 4, directions=2, dead=(2,), unread=(1,), scale=1.0), **ONE, "w2": behind(4, 1) * 8},
        {},
    ),
    "rnn_constant_in_time": (
        f"""{SEQUENCE} {{ s = RNN<hidden_size=3, activations=["Relu"]>(x, w, r, b) {OUT} }}""",
        {
            **cell("RNN", 3, 3, dead=(0,), scale=1.0),
            "b": np.array([[2, 1, 1, 0, 1, 1]], np.float32),
            **ONE,
            "w2": behind(3) * 8,
        },
        {},
    ),
    "rnn_only_unit": (
        f"""{SEQUENCE} {{ s = RNN<hidden_size=1, activations=["Relu"]>(x, w, r) {OUT} }}""",
        {"w": np.zeros((1, 1, 3), np.float32), "r": np.ones((1, 1, 1), np.float32), **ONE, "w2": behind(1)},
        {},
    ),
    "rnn_computed_weight": (
        f"""{SEQUENCE.replace("x)", "x, float[1,4,4] w)")} {{ h = MatMul(x, w1)
        s = RNN<hidden_size=4, activations=["Relu"]>(h, w, r) {OUT} }}""",
        {"r": ((1, 4, 4),), "w1": ((3, 4), {1: [1]}), **ONE, "w2": behind(4)},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])


@pytest.mark.parametrize("op", GATES)
def test_batch_first(op: str, build: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    """onnxruntime does not run layout 1; onnx's reference does."""
    weights = {**cell(op, 3, 4, dead=(2,), unread=(1,)), "w2": behind(4, 1)}
    before = build(
        f"g (float[2,5,3] x) => (float[2,1,2] y) {{ s, h = {op}<hidden_size=4, layout=1>(x, w, r, b) "
        "y = MatMul(h, w2) }",
        weights,
    )
    after = RemoveDeadNeurons()(State(before))
    assert shapes(after)["r"] == (1, 2 * GATES[op], 2)
    feeds = {"x": np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)}
    one, other = (ReferenceEvaluator(to_proto(model)).run(None, feeds) for model in (before, after.model))
    assert np.abs(next(iter(one))).max() > 0.1
    np.testing.assert_allclose(next(iter(one)), next(iter(other)), rtol=0, atol=1e-6)


def test_groups_count_units(build: Callable[..., Any]) -> None:
    weights = {**cell("LSTM", 3, 4, dead=(2,), unread=(1,)), "w2": behind(4, 1), "one": np.array([1])}
    (group, _) = find_groups(build(f"{SEQUENCE} {{ s = LSTM<hidden_size=4>(x, w, r, b) {OUT} }}", weights))
    assert (group.name, group.size, group.input_dead, group.output_dead) == ("w", 4, 1, 1)
    assert set(group.axes) == {"w axis 1", "r axis 1", "r axis 2", "b axis 1", "w2 axis 0"}
    assert group.pinned_by == ()
