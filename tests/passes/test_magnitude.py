from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import NDArray, matmuls, ramp
from hypothesis import assume, given
from hypothesis import strategies as st
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.pipeline import State
from onnxprune_passes.thresholds import NM, Absolute, Quality, Sparsity, Threshold
from oracles import count_of, kept, lamp, magnitudes
from pruning import SPARSITIES, THRESHOLDS, assert_equal, pruned, random_weights, zeroed
from strategies import FLOATS, weight_sets

# against sorting


@given(weight_sets(), SPARSITIES)
def test_global_magnitude_is_what_sorting_says(weights: dict[str, NDArray], sparsity: float) -> None:
    arrays = list(weights.values())
    keep = kept(
        [magnitudes(array) for array in arrays],
        [array.shape for array in arrays],
        count_of(sparsity, sum(array.size for array in arrays)),
    )
    assert_equal(pruned(weights, MagnitudePrune(Sparsity(sparsity, score="magnitude"))), zeroed(weights, keep))


@given(weight_sets(), SPARSITIES)
def test_lamp_is_what_sorting_says(weights: dict[str, NDArray], sparsity: float) -> None:
    arrays = list(weights.values())
    keep = kept(
        [lamp(array) for array in arrays],
        [array.shape for array in arrays],
        count_of(sparsity, sum(array.size for array in arrays)),
    )
    assert_equal(pruned(weights, MagnitudePrune(Sparsity(sparsity))), zeroed(weights, keep))


@given(weight_sets(), SPARSITIES, st.sampled_from(["lamp", "magnitude"]))
def test_each_layer_on_its_own_is_what_sorting_says(weights: dict[str, NDArray], sparsity: float, score: Any) -> None:
    keep = [kept([magnitudes(a)], [a.shape], count_of(sparsity, a.size))[0] for a in weights.values()]
    assert_equal(pruned(weights, MagnitudePrune(Sparsity(sparsity, "layer", score))), zeroed(weights, keep))


@given(weight_sets(), st.sampled_from([0.0, 0.5, 1.0, 3.0, 7.5, 200.0]))
def test_an_absolute_threshold_keeps_what_reaches_it(weights: dict[str, NDArray], threshold: float) -> None:
    keep = [np.abs(array.astype(np.float64)) >= threshold for array in weights.values()]
    assert_equal(pruned(weights, MagnitudePrune(Absolute(threshold))), zeroed(weights, keep))


@given(weight_sets(), st.sampled_from([0.0, 0.3, 0.7, 1.3, 2.9]))
def test_a_quality_parameter_counts_in_standard_deviations(weights: dict[str, NDArray], q: float) -> None:
    keep = []
    for array in weights.values():
        wide = array.astype(np.float64)
        threshold = q * wide.std()
        assume(not np.isclose(np.abs(wide), threshold, rtol=1e-9, atol=0).any() or threshold == 0)
        keep.append(np.abs(wide) >= threshold)
    assert_equal(pruned(weights, MagnitudePrune(Quality(q))), zeroed(weights, keep))


def test_a_weight_at_the_threshold_stays() -> None:
    weights = {"w": np.array([[3, -3, 3, -3, 1, -1, 1, -1]], np.float32)}  # std = sqrt(5)
    assert np.count_nonzero(pruned(weights, MagnitudePrune(Absolute(3)))["w"]) == 4
    assert np.count_nonzero(pruned(weights, MagnitudePrune(Absolute(3.0000002)))["w"]) == 0
    even = {"w": np.array([[2, -2, 2, -2]], np.float32)}  # std = 2
    assert np.count_nonzero(pruned(even, MagnitudePrune(Quality(1)))["w"]) == 4
    assert np.count_nonzero(pruned(even, MagnitudePrune(Quality(1.0000001)))["w"]) == 0


# exact counts


@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.1, 1 / 3, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("score", ["lamp", "magnitude"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_count_is_exact(sparsity: float, score: Any, tied: bool) -> None:
    weights = random_weights((40, 50), (7, 9), (1, 1), (300, 5))
    if tied:
        weights = {key: np.where(array > 0, np.float32(2), np.float32(-2)) for key, array in weights.items()}
    found = pruned(weights, MagnitudePrune(Sparsity(sparsity, score=score)))
    total = sum(array.size for array in weights.values())
    assert sum(int((array == 0).sum()) for array in found.values()) == count_of(sparsity, total)


def test_ties_go_by_position_first_first() -> None:
    weights = {"a": np.full((2, 3), 5, np.float32), "b": np.full((2, 3), -5, np.float32)}
    found = pruned(weights, MagnitudePrune(Sparsity(2 / 3, score="magnitude")))
    assert not found["a"].any()
    assert found["b"].reshape(-1).tolist() == [0, 0, -5, -5, -5, -5]


@pytest.mark.parametrize("dtype", FLOATS)
def test_denormals_and_negative_zeros_have_their_place(dtype: Any) -> None:
    tiny = np.array(1).astype(f"u{np.dtype(dtype).itemsize}").view(dtype).astype(np.float64)  # the smallest there is
    weights = {"w": (np.array([[-0.0, 0.0, 1, -3, 2, 4, 1000, -5]]) * tiny).astype(dtype)}
    found = pruned(weights, MagnitudePrune(Sparsity(0.5, score="magnitude")))["w"]
    assert (found.astype(np.float64) / tiny).tolist() == [[0, 0, 0, -3, 0, 4, 1000, -5]]
    assert not np.signbit(found[found == 0].astype(np.float64)[2:]).any()


@pytest.mark.parametrize("threshold", [*THRESHOLDS, Sparsity(0.0), Quality(0.0), Absolute(0.0), NM(4, 4)])
@pytest.mark.parametrize("values", [np.zeros((8, 8)), np.full((8, 8), -0.0), np.ones((1, 1)), np.ones((1, 8))])
def test_nothing_to_prune_gives_the_same_object(threshold: Threshold, values: NDArray) -> None:
    state = State(matmuls({"w": values.astype(np.float32)}))
    after = MagnitudePrune(threshold)(state)
    if values.any() and not isinstance(threshold, NM):
        return
    assert after.model is state.model
    assert after.masks is state.masks
    if not isinstance(threshold, NM):
        assert after is state


def test_one_entry_follows_the_rounding() -> None:
    for sparsity, left in ((0.49, 1), (0.5, 0)):
        weights = {"w": np.ones((1, 1), np.float32)}
        assert np.count_nonzero(pruned(weights, MagnitudePrune(Sparsity(sparsity)))["w"]) == left


def test_zeros_of_the_file_count() -> None:
    values = ramp(10, 10)
    values.reshape(-1)[:60] = 0
    state = State(matmuls({"w": values}))
    for sparsity in (0.0, 0.3, 0.6):
        assert MagnitudePrune(Sparsity(sparsity))(state) is state  # sparse enough already
    after = MagnitudePrune(Sparsity(0.7))(state)
    assert int((after.model.initializers["w"] == 0).sum()) == 70
    assert after.masks.kept("w") == 30


def test_float64_is_ranked_in_full_precision() -> None:
    weights = {"w": np.array([[1 + 2**-50, 1, 1 + 2**-51, 1 + 2**-52]]), "v": np.ones((1, 4), np.float32)}
    found = pruned(weights, MagnitudePrune(Sparsity(0.75, score="magnitude")))
    assert found["w"].tolist() == [[1 + 2**-50, 0, 1 + 2**-51, 0]]
    assert not found["v"].any()
