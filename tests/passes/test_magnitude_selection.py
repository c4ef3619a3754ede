from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import NDArray, matmuls, proto, ramp, stored, value
from onnx import helper
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip, State
from onnxprune_passes.storage import from_proto, to_proto
from onnxprune_passes.thresholds import NM, Absolute, Quality, Sparsity, Threshold
from oracles import count_of, kept, lamp, magnitudes
from pruning import THRESHOLDS, assert_equal, pruned, random_weights


def test_values_other_than_weights_are_never_touched() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "bias"], ["h"]),
        helper.make_node("BatchNormalization", ["h", "scale", "bias", "mean", "var"], ["n"]),
        helper.make_node("Mul", ["n", "factor"], ["m"]),
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Add", ["m", "e"], ["y"]),
    ]
    names = ("bias", "scale", "mean", "var", "factor")
    arrays = {"w": ramp(20, 100), "table": ramp(30, 100), **{name: ramp(100) / 1e6 for name in names}}
    model = proto(
        nodes, [stored(name, array) for name, array in arrays.items()], inputs=[value("x", None), value("ids", None)]
    )
    state = State(from_proto(model))
    for threshold in THRESHOLDS:
        after = MagnitudePrune(threshold)(state)
        assert set(after.masks) <= {"w"}
        for name in (*names, "table"):
            assert np.array_equal(after.model.initializers[name], arrays[name])
    after = MagnitudePrune(Sparsity(0.5, scope="layer"), embeddings=True)(state)
    assert set(after.masks) == {"w", "table"}
    assert int((after.model.initializers["table"] == 0).sum()) == 1500


def test_only_and_skip_choose_and_the_count_is_over_what_is_chosen() -> None:
    weights = random_weights((9, 9), (9, 9), (9, 9))
    cases: list[tuple[tuple[str, ...], tuple[str, ...], set[str]]] = [
        (("w0", "w2"), (), {"w0", "w2"}),
        ((), ("w1",), {"w0", "w2"}),
        (("w*",), ("w[01]",), {"w2"}),
    ]
    for only, skip, chosen in cases:
        found = pruned(weights, MagnitudePrune(Sparsity(0.5), only=only, skip=skip))
        zeros = {key: int((array == 0).sum()) for key, array in found.items()}
        assert sum(zeros.values()) == count_of(0.5, 81 * len(chosen))
        assert all(zeros[key] == 0 for key in weights.keys() - chosen)
    for wrong in ({"only": ("gone",)}, {"skip": ("gone",)}, {"layers": (("gone", 0.5),)}):
        with pytest.raises(SelectionError, match="'gone' matches none of the 3 prunable weights"):
            pruned(weights, MagnitudePrune(Sparsity(0.5), **wrong))


@pytest.mark.parametrize("threshold", [Sparsity(0.5), Sparsity(0.5, score="magnitude"), Sparsity(0.5, scope="layer")])
def test_layers_with_a_value_of_their_own_leave_the_ranking(threshold: Sparsity) -> None:
    weights = random_weights((9, 9), (12, 9), (9, 9))
    own = pruned(weights, MagnitudePrune(threshold, layers=(("w*", 0.1), ("w1", 0.9), ("w[02]", 0.2), ("w0", 0.3))))
    assert [int((own[key] == 0).sum()) for key in weights] == [count_of(0.3, 81), count_of(0.9, 108), count_of(0.2, 81)]
    mixed = pruned(weights, MagnitudePrune(threshold, layers=(("w1", 0.9),)))
    alone = pruned({key: weights[key] for key in ("w0", "w2")}, MagnitudePrune(threshold))
    assert_equal(mixed, alone)
    assert int((mixed["w1"] == 0).sum()) == count_of(0.9, 108)
    assert_equal({"w1": mixed["w1"]}, pruned({"w1": weights["w1"]}, MagnitudePrune(Sparsity(0.9, scope="layer"))))


@pytest.mark.parametrize(
    ("threshold", "own", "same"),
    [(Absolute(1.0), 20.0, Absolute(20.0)), (Quality(0.1), 1.2, Quality(1.2))],
)
def test_own_values_are_in_the_unit_of_the_threshold(threshold: Threshold, own: float, same: Threshold) -> None:
    weights = random_weights((9, 9), (9, 9))
    found = pruned(weights, MagnitudePrune(threshold, layers=(("w1", own),)))
    assert_equal({"w0": found["w0"]}, pruned({"w0": weights["w0"]}, MagnitudePrune(threshold)))
    assert_equal({"w1": found["w1"]}, pruned({"w1": weights["w1"]}, MagnitudePrune(same)))


@pytest.mark.parametrize(
    ("threshold", "own", "says"),
    [
        (Sparsity(0.5), 1.0, "0 <= sparsity < 1"),
        (Absolute(1), -1.0, "threshold is a finite number"),
        (Quality(1), float("nan"), "quality parameter is a finite number"),
        (NM(2, 4), 0.5, "N:M has no value"),
    ],
)
def test_own_values_out_of_range_are_refused_when_the_pass_is_made(threshold: Threshold, own: float, says: str) -> None:
    with pytest.raises(SelectionError, match=says):
        MagnitudePrune(threshold, layers=(("w", own),))


def test_a_fixed_transform_is_skipped_unless_it_is_named_in_full() -> None:
    time = np.arange(64)
    weights = {"dft": np.cos(2 * np.pi * np.outer(time, np.arange(32)) / 64).astype(np.float32), "w": ramp(9, 9)}
    state = State(matmuls(weights))
    for only in ((), ("*",), ("df*", "w")):
        after = MagnitudePrune(Sparsity(0.5), only=only)(state)
        assert set(after.masks) == {"w"}
        assert after.masks.kept("w") == 40
        (skip,) = [entry for entry in after.log if isinstance(entry, Skip)]
        assert (skip.by, skip.name) == ("magnitude-prune", "dft")
        assert skip.reason == "looks like a fixed transform (sinusoids) in 'fc0'"
    for only in (("dft",), ("dft", "w"), ("*", "dft")):
        after = MagnitudePrune(Sparsity(0.5, scope="layer"), only=only)(state)
        assert "dft" in after.masks
        assert not [entry for entry in after.log if isinstance(entry, Skip)]
    assert MagnitudePrune(Sparsity(0.5), skip=("dft",))(state).log[0] == MagnitudePrune(Sparsity(0.5))(state).log[0]


def test_a_skip_alone_is_said_once() -> None:
    time = np.arange(64)
    state = State(matmuls({"dft": np.cos(2 * np.pi * np.outer(time, np.arange(32)) / 64).astype(np.float32)}))
    once = MagnitudePrune()(state)
    assert once.model is state.model
    assert [type(entry) for entry in once.log] == [Skip]
    assert MagnitudePrune()(once) is once


# recurrent and quantised weights


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("score", ["lamp", "magnitude"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_every_gate_matrix_is_a_layer(op_type: str, gates: int, score: Any, scope: Any) -> None:
    chance = np.random.default_rng(0)
    arrays = {
        name: chance.integers(-50, 50, (2, gates * 6, size)).astype(np.float32) for name, size in (("w", 5), ("r", 6))
    }
    arrays["w"] *= np.repeat(np.arange(1, 2 * gates + 1), 6).reshape(2, gates * 6, 1)  # every gate of its own size
    user = helper.make_node(op_type, ["x", *arrays], ["y"], hidden_size=6)
    model = from_proto(
        proto([user], [stored(name, array) for name, array in arrays.items()], inputs=[value("x", None)])
    )
    blocks = [part for array in arrays.values() for part in array.reshape(2 * gates, -1)]
    scores = [lamp(part) if score == "lamp" else magnitudes(part) for part in blocks]
    if scope == "global":
        keep = kept(scores, [part.shape for part in blocks], count_of(0.7, sum(part.size for part in blocks)))
    else:
        keep = [kept([magnitudes(part)], [part.shape], count_of(0.7, part.size))[0] for part in blocks]
    after = MagnitudePrune(Sparsity(0.7, scope, score))(State(model)).model.initializers
    flat = np.concatenate([part * mask for part, mask in zip(blocks, keep, strict=True)])
    assert np.array_equal(np.concatenate([after[name].reshape(-1) for name in arrays]), flat)
    stds = [float(np.abs(part).max()) for part in blocks]
    assert len(set(stds)) > 1 or gates == 1
    found = MagnitudePrune(Quality(0.9))(State(model)).model.initializers
    expected = np.concatenate([part * (np.abs(part) >= 0.9 * part.astype(np.float64).std()) for part in blocks])
    assert np.array_equal(np.concatenate([found[name].reshape(-1) for name in arrays]), expected)


def quantised(values: NDArray, zero: NDArray, scale: NDArray) -> Model:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    tensors = [stored("q", values), stored("scale", scale), stored("zero", zero)]
    return from_proto(proto(nodes, tensors, inputs=[value("x", None)]))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("threshold", [t for t in THRESHOLDS if not isinstance(t, NM)])
def test_quantised_weights_are_ranked_by_what_they_mean(dtype: Any, channels: bool, threshold: Threshold) -> None:
    chance = np.random.default_rng(1)
    info = np.iinfo(dtype)
    values = chance.integers(info.min, info.max + 1, (30, 6)).astype(dtype)
    zero = np.array([3, 0, 5, 7, 1, 2] if channels else 9).astype(dtype)
    scale = np.array([0.5, 1, 2, 4, 8, 0.25] if channels else 0.5, np.float32)
    model = quantised(values, zero, scale)
    meant = (values.astype(np.float32) - zero) * scale
    after = MagnitudePrune(threshold)(State(model)).model
    found = after.initializers["q"]
    assert found.dtype == dtype
    floats = pruned({"w": meant}, MagnitudePrune(threshold))["w"]
    assert np.array_equal((found.astype(np.float32) - zero) * scale, floats)
    assert np.array_equal(found == np.broadcast_to(zero, found.shape), floats == 0)
    assert np.array_equal(after.initializers["zero"], zero)
    assert np.array_equal(from_proto(to_proto(after)).initializers["q"], found)


def test_a_quantised_zero_is_its_zero_point() -> None:
    values = np.full((10, 10), 7, np.uint8)
    values[:6] = 9
    state = State(quantised(values, np.array(9, np.uint8), np.array(0.5, np.float32)))
    assert MagnitudePrune(Sparsity(0.6))(state) is state
    after = MagnitudePrune(Sparsity(0.75))(state)
    assert int((after.model.initializers["q"] == 9).sum()) == 75
