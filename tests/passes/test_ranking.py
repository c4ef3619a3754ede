from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from builders import NDArray, matmuls, ramp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxprune_passes.arrays import CHUNK
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.ranking import (
    BUCKETS,
    Cut,
    Layer,
    cut_at,
    cuts_by_lamp,
    cuts_by_magnitude,
    layers_of,
    standard_deviation,
)
from onnxprune_passes.weights import find_weights
from oracles import kept, lamp, magnitudes
from strategies import FLOATS, integers_as, weight_sets


def layers(*arrays: NDArray) -> tuple[Layer, ...]:
    model = matmuls({f"w{index}": array for index, array in enumerate(arrays)})
    return layers_of(model, find_weights(model))


def one(array: NDArray) -> Layer:
    (layer,) = layers(array)
    return layer


def keeps(layer: Layer, cut: Cut) -> NDArray:
    """The mask that a cut stands for."""
    keys = np.concatenate(list(layer.magnitude_bits()))
    keep = keys >= cut.key
    keep[np.flatnonzero(keys == cut.key)[: cut.ties]] = False
    return keep


SPREAD = [
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    1e-40,
    1.1754942e-38,
    1.1754944e-38,
    1e-3,
    0.5,
    -1.0,
    1.0,
    1.0000001,
    3.4e38,
    -3.4e38,
]


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_the_order_of_bit_patterns_is_the_order_of_magnitudes(dtype: Any, data: st.DataObject) -> None:
    with np.errstate(over="ignore"):
        values = np.array(data.draw(st.lists(st.sampled_from(SPREAD) | st.floats(-1e4, 1e4), min_size=2)), dtype)
    values = values[np.isfinite(values.astype(np.float64))].reshape(-1, 1)
    layer = one(values)
    assert layer.wide == (dtype == np.float64)
    keys = np.concatenate([np.empty(0, np.uint64), *layer.magnitude_bits()])
    assert np.array_equal(np.argsort(keys, kind="stable"), np.argsort(magnitudes(values), kind="stable"))
    assert np.array_equal(keys == 0, magnitudes(values) == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_buckets_have_the_edges_they_say(dtype: Any) -> None:
    values = np.array([[x for x in SPREAD if x]], dtype)
    layer = one(values)
    counts = layer.histogram()
    low, high = layer.edges()
    assert (counts.size, counts.sum()) == (BUCKETS, values.size)
    for bucket in np.flatnonzero(counts):
        keys = layer.between(int(bucket), int(bucket))
        found = keys.view(layer.floats).astype(np.float64)
        assert found.size == counts[bucket]
        assert (found >= low[bucket]).all()
        assert (found <= high[bucket]).all()
    above = layer.energy_above(int(np.flatnonzero(counts)[-2]))
    assert above == pytest.approx(2 * float(dtype(3.4e38)) ** 2 if dtype == np.float32 else 2 * 3.4e38**2)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nan_and_infinity_are_counted_and_refused(dtype: Any, bad: float) -> None:
    values = np.array([[1, bad, 2, bad]], dtype)
    with pytest.raises(ModelError, match=r"weight 'w0' holds 2 NaN or infinite values of 4.*--skip"):
        one(values).histogram()
    with pytest.raises(ModelError, match="NaN or infinite"):
        standard_deviation(one(values))
    for cuts in (cuts_by_lamp, cuts_by_magnitude):
        for count in (0, 2):
            with pytest.raises(ModelError, match="NaN or infinite"):
                cuts(layers(values), count)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("threshold", [0.0, 1e-300, 1e-45, 0.1, 1.0, 1 + 1e-12, 3.0, 1e38, 1e39, 1e300])
def test_a_threshold_keeps_what_reaches_it(dtype: Any, threshold: float) -> None:
    with np.errstate(over="ignore"):
        values = np.array([[x for x in SPREAD if math.isfinite(dtype(x))]], dtype)
    layer = one(values)
    assert np.array_equal(keeps(layer, cut_at(layer, threshold)), magnitudes(values) >= threshold)


@given(integers_as(np.float32, (3, 5)))
def test_the_standard_deviation_is_numpy_s(values: NDArray) -> None:
    assert standard_deviation(one(values)) == pytest.approx(
        float(values.astype(np.float64).std()), rel=1e-12, abs=1e-12
    )


def test_the_standard_deviation_is_over_all_entries_and_chunks() -> None:
    values = ramp(3, CHUNK)
    assert standard_deviation(one(values)) == pytest.approx(float(values.astype(np.float64).std()), rel=1e-12)
    model = matmuls({"w": ramp(4, 4)})
    masked = apply_masks(model, Masks({"w": ramp(4, 4) > 8}))
    (layer,) = layers_of(masked, find_weights(masked))
    assert standard_deviation(layer) == pytest.approx(ramp(4, 4).std())  # of the values as they were


def test_weights_too_large_to_be_squared_are_said() -> None:
    huge = np.full((2, 2), 1e200)
    with pytest.raises(ModelError, match="too large for a standard deviation"):
        standard_deviation(one(huge))
    with pytest.raises(ModelError, match="too large to be squared"):
        cuts_by_lamp(layers(huge), 1)
    assert keeps(one(huge), cuts_by_magnitude(layers(huge), 1)[0]).tolist() == [False, True, True, True]


@given(weight_sets(), st.floats(0, 1))
def test_cuts_by_magnitude_are_what_sorting_says(weights: dict[str, NDArray], share: float) -> None:
    arrays = list(weights.values())
    count = int(share * sum(array.size for array in arrays))
    found = layers(*arrays)
    expected = kept([magnitudes(array) for array in arrays], [array.shape for array in arrays], count)
    for layer, cut, keep in zip(found, cuts_by_magnitude(found, count), expected, strict=True):
        assert np.array_equal(keeps(layer, cut), keep.reshape(-1))


@given(weight_sets(), st.floats(0, 1))
def test_cuts_by_lamp_are_what_sorting_says(weights: dict[str, NDArray], share: float) -> None:
    arrays = list(weights.values())
    count = int(share * sum(array.size for array in arrays))
    found = layers(*arrays)
    expected = kept([lamp(array) for array in arrays], [array.shape for array in arrays], count)
    for layer, cut, keep in zip(found, cuts_by_lamp(found, count), expected, strict=True):
        assert np.array_equal(keeps(layer, cut), keep.reshape(-1))


@pytest.mark.parametrize("by", [cuts_by_magnitude, cuts_by_lamp])
@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_any_count_is_met_exactly(by: Any, dtype: Any, data: st.DataObject) -> None:
    """Also where scores underflow, or where different weights round to one score."""
    near = st.sampled_from([1.0, 1.0 + 2**-52, 1.0 + 2**-51, 1e-200, 1e-170, 2e-170, 0.0, 1e-45, 7e-46, 1e-38])
    arrays = [
        np.array(data.draw(st.lists(near | st.floats(-2, 2), min_size=1, max_size=20)), dtype).reshape(-1, 1)
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    count = data.draw(st.integers(0, sum(array.size for array in arrays)))
    found = layers(*arrays)
    pruned = [~keeps(layer, cut) for layer, cut in zip(found, by(found, count), strict=True)]
    assert sum(int(part.sum()) for part in pruned) == count
    for array, part in zip(arrays, pruned, strict=True):  # within a layer both rank alike
        order = np.argsort(magnitudes(array), kind="stable")
        assert np.array_equal(np.flatnonzero(part), np.sort(order[: int(part.sum())]))


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    "dtypes", [(np.float32, np.float32), (np.float16, ml_dtypes.bfloat16), (np.float32, np.float64)]
)
def test_big_weights_in_many_chunks_are_ranked_as_numpy_ranks_them(sparsity: float, dtypes: tuple[Any, Any]) -> None:
    chance = np.random.default_rng(0)
    sizes = (2 * CHUNK + 13, CHUNK - 5)
    arrays = [
        (chance.standard_normal(size) * scale).astype(dtype).reshape(-1, 1)
        for size, scale, dtype in zip(sizes, (1, 30), dtypes, strict=True)
    ]
    arrays[0][:999] = 0
    count = int(sparsity * sum(sizes))
    found = layers(*arrays)
    scores = {"magnitude": [magnitudes(array) for array in arrays], "lamp": []}
    for array in arrays:
        squares = magnitudes(array) ** 2
        order = np.argsort(squares, kind="stable")
        rising = squares[order]
        sums = np.cumsum(rising[::-1])[::-1][np.searchsorted(rising, rising)]
        lamp_scores = np.empty_like(squares)
        lamp_scores[order] = np.divide(rising, sums, out=np.zeros_like(sums), where=sums > 0)
        scores["lamp"].append(lamp_scores)
    for score, cuts in (("magnitude", cuts_by_magnitude(found, count)), ("lamp", cuts_by_lamp(found, count))):
        together = np.concatenate(scores[score])
        expected = np.ones(together.size, np.bool_)
        expected[np.argsort(together, kind="stable")[:count]] = False
        masks = [keeps(layer, cut) for layer, cut in zip(found, cuts, strict=True)]
        assert np.array_equal(np.concatenate(masks), expected)


@given(hnp.arrays(np.float32, (4, 3), elements=st.sampled_from([0.0, -0.0, 2.0, -2.0])), st.integers(0, 12))
def test_equal_entries_go_by_position(values: NDArray, count: int) -> None:
    layer = one(values)
    (cut,) = cuts_by_lamp((layer,), count)
    order = np.argsort(magnitudes(values), kind="stable")
    assert np.array_equal(np.flatnonzero(~keeps(layer, cut)), np.sort(order[:count]))


def test_empty_weights_and_none_at_all_are_ranked() -> None:
    empty = np.zeros((0, 4), np.float32)
    for by in (cuts_by_magnitude, cuts_by_lamp):
        found = layers(empty, ramp(2, 2))
        assert [int((~keeps_or_none(layer, cut)).sum()) for layer, cut in zip(found, by(found, 3), strict=True)] == [
            0,
            3,
        ]
        assert by(layers(empty), 0) == [Cut(0)]


def keeps_or_none(layer: Layer, cut: Cut) -> NDArray:
    return keeps(layer, cut) if layer.size else np.empty(0, np.bool_)
