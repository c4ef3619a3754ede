from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import NDArray, matmuls, proto, ramp, value
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnxprune_passes.arrays import CHUNK, Masked
from onnxprune_passes.errors import ModelError
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.pipeline import Change, Skip, State, chain
from onnxprune_passes.storage import from_proto, load, save, to_proto
from onnxprune_passes.thresholds import Absolute, Quality, Sparsity, Threshold
from onnxprune_passes.weights import find_weights
from oracles import count_of, kept, magnitudes
from pruning import SPARSITIES, THRESHOLDS, assert_equal, pruned, random_weights, zeroed
from strategies import FLOATS, weight_sets


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_second_run_gives_the_same_object(threshold: Threshold, dtype: Any, tmp_path: Path) -> None:
    prune = MagnitudePrune(threshold)
    state = State(matmuls(random_weights((16, 8), (40, 20), dtype=dtype)))
    once = prune(state)
    assert once is not state
    assert prune(once) is once
    again = State(load(save(once.model, tmp_path / "m.onnx")))  # without the masks: zeros of the file count as pruned
    if not isinstance(threshold, Quality):  # a standard deviation is over what the file holds
        assert prune(again) is again


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_the_input_state_is_left_as_it_was(threshold: Threshold) -> None:
    weights = random_weights((16, 8), (40, 20))
    state = MagnitudePrune(Absolute(0.1))(State(matmuls(weights)))
    before = to_proto(state.model), {key: mask.copy() for key, mask in state.masks.items()}, state.log
    values = {key: array.copy() for key, array in state.model.initializers.items()}
    after = MagnitudePrune(threshold)(state)
    assert after is not state
    assert to_proto(state.model) == before[0]
    for key in before[1]:
        assert np.array_equal(state.masks[key], before[1][key])
    assert state.log == before[2] == after.log[: len(state.log)]
    assert_equal(dict(state.model.initializers), values)


@given(weight_sets(dtypes=(np.float32,)), st.lists(SPARSITIES, min_size=1, max_size=4), st.permutations(THRESHOLDS))
def test_masks_only_shrink_and_values_follow_them(
    weights: dict[str, NDArray], sparsities: list[float], others: list[Threshold]
) -> None:
    state = State(matmuls(weights))
    for threshold in [*(Sparsity(sparsity) for sparsity in sorted(sparsities)), *others[:2]]:
        after = MagnitudePrune(threshold)(state)
        for key in state.masks:
            assert not (after.masks[key] & ~state.masks[key]).any()
        for key, mask in after.masks.items():
            assert np.array_equal(after.model.initializers[key], weights[key] * mask)
        state = after


@given(weight_sets(dtypes=(np.float32,)), st.lists(SPARSITIES, min_size=2, max_size=4))
def test_growing_sparsity_ends_where_one_step_would(weights: dict[str, NDArray], sparsities: list[float]) -> None:
    model = matmuls(weights)
    for options in (("layer", "magnitude"), ("global", "magnitude")):
        gradually = chain(*(MagnitudePrune(Sparsity(s, *options)) for s in sorted(sparsities)))(State(model))
        at_once = MagnitudePrune(Sparsity(max(sparsities), *options))(State(model))
        total = sum(array.size for array in weights.values())
        assert_equal(dict(gradually.model.initializers), dict(at_once.model.initializers))
        assert sum(int((a == 0).sum()) for a in at_once.model.initializers.values()) >= count_of(
            max(sparsities), total
        ) - len(weights)


def test_masks_that_came_with_the_state_are_kept() -> None:
    keep = np.arange(81).reshape(9, 9) % 9 > 0
    masks = Masks({"w": keep})
    state = State(apply_masks(matmuls({"w": ramp(9, 9)}), masks), masks)
    after = MagnitudePrune(Absolute(20))(state)
    assert np.array_equal(after.masks["w"], keep & (ramp(9, 9) >= 20))
    assert np.array_equal(after.model.initializers["w"], ramp(9, 9) * after.masks["w"])


def test_weights_are_read_lazily_through_their_masks() -> None:
    after = MagnitudePrune()(State(matmuls({"w": ramp(90, 90)})))
    assert isinstance(after.model.initializers.source("w"), Masked)
    assert after.model.skeleton is not None


def test_big_weights_in_many_chunks_are_pruned_alike() -> None:
    chance = np.random.default_rng(0)
    values = chance.integers(-1000, 1000, (3, CHUNK + 8)).astype(np.float32)
    keep = kept([magnitudes(values)], [values.shape], count_of(0.9, values.size))
    assert_equal(pruned({"w": values}, MagnitudePrune(Sparsity(0.9))), zeroed({"w": values}, keep))


@pytest.mark.parametrize("threshold", [*THRESHOLDS, Sparsity(0.0), Absolute(0.0)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_and_infinity_are_refused(threshold: Threshold, bad: float, dtype: Any) -> None:
    values = np.ones((40, 40), dtype)
    values[3, 4] = bad
    weights = {"good": ramp(8, 8), "bad": values}
    with pytest.raises(ModelError, match=r"weight 'bad' holds 1 NaN or infinite values of 1600.*--skip") as caught:
        pruned(weights, MagnitudePrune(threshold))
    assert "\n" not in str(caught.value)
    left = pruned(weights, MagnitudePrune(threshold, skip=("bad",)))
    assert left["bad"].tobytes() == values.tobytes()


def test_the_log_says_what_was_kept() -> None:
    weights = {"a": ramp(10, 10), "b": ramp(10, 10, start=1000), "zeros": np.zeros((10, 10), np.float32)}
    after = MagnitudePrune(Sparsity(0.5, score="magnitude"))(State(matmuls(weights)))
    (change,) = after.log
    assert isinstance(change, Change)
    assert change.by == "magnitude-prune"
    assert "kept 150 of 300 entries in 1 of 3 weights" in change.summary
    again = MagnitudePrune(Sparsity(0.9, score="magnitude"), only=("b",))(after)
    assert isinstance(again.log[1], Change)
    assert "kept 10 of 100 entries in 1 of 1 weights" in again.log[1].summary


def test_the_pass_is_frozen_and_comparable() -> None:
    assert MagnitudePrune() == MagnitudePrune(Sparsity(0.5))
    assert MagnitudePrune().name == "magnitude-prune"
    with pytest.raises(FrozenInstanceError):
        MagnitudePrune().only = ("w",)  # type: ignore[misc]


def test_a_model_without_weights_is_left_alone() -> None:
    state = State(from_proto(proto([helper.make_node("Relu", ["x"], ["y"])], inputs=[value("x")])))
    for threshold in THRESHOLDS:
        assert MagnitudePrune(threshold)(state) is state


def test_a_weight_without_entries_is_left_alone() -> None:
    for threshold in THRESHOLDS:
        found = pruned({"none": np.zeros((0, 8), np.float32), "w": ramp(8, 8)}, MagnitudePrune(threshold))
        assert found["none"].shape == (0, 8)


# real models


@pytest.mark.corpus
def test_the_corpus_is_pruned_to_the_count(corpus_path: Path, tmp_path: Path) -> None:
    state = State(load(corpus_path))
    after = MagnitudePrune(Sparsity(0.8))(state)
    fixed = {entry.name for entry in after.log if isinstance(entry, Skip)}
    weights = [weight for weight in find_weights(state.model) if weight.key not in fixed]
    zeros = 0
    for weight in weights:
        values = after.model.initializers[weight.key]
        zeros += int((values == (0 if weight.zero_point is None else weight.zero_point)).sum())
    assert zeros == count_of(0.8, sum(weight.size for weight in weights))
    assert MagnitudePrune(Sparsity(0.8))(after) is after
    written = load(save(after.model, tmp_path / "m.onnx"))
    pruned_keys = set(after.masks)
    for key, array in written.initializers.items():
        assert array.tobytes() == after.model.initializers[key].tobytes()
        if key not in pruned_keys:
            assert array.tobytes() == state.model.initializers[key].tobytes()
    again = State(written)
    assert MagnitudePrune(Sparsity(0.8))(again).model is written
