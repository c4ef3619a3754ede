"""Rice coding of gaps in numpy; onnxruntime's side is in test_decoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnxprune_passes.arrays import CHUNK, Array, NDArray
from onnxprune_passes.encode import Rice, count
from onnxprune_passes.errors import EncodeError

U8, F32, I64 = np.uint8, np.float32, np.int64


def parts(values: Any) -> tuple[list[list[int]], list[int], list[float]]:
    """(bytes of high and of each row of low, powers, values) of float32 values, checked to come back."""
    array = np.array(values, F32)
    encoded = Rice().encode(Array(array))
    assert Rice().decode(encoded.inputs).tobytes() == array.tobytes()
    high, low, powers, stored, shape = encoded.inputs
    assert shape.tolist() == list(array.shape)
    return [high[0, :, 0].tolist(), *low[:, :, 0].tolist()], powers.tolist(), stored.tolist()


def test_the_tensor_is_walked_from_its_end() -> None:
    """Rests of 1 bit: the one of a 0 comes first (1), then 1 zero behind 7, none behind 5, and those that fill up."""
    values = [0, 0, 0, 0, 0, 5, 7, 0]
    rows, powers, stored = parts(values)
    assert powers == [1]
    assert rows[0] == [0b100011]  # 7, 5; 0s fall on places 3, 1 and, from the end again, 7; a 1 on 5; 3 and 1 again
    assert rows[1][0] & 0b111 == 0b011
    assert stored[:4] == [0, 7, 5, 5]


def test_a_quotient_is_as_many_zero_bits() -> None:
    values = np.zeros(2000, F32)
    values[[100, 1999]] = 1, 2
    rows, powers, stored = parts(values)
    assert powers == [1 << bit for bit in range(7)]  # 1898 zeros behind the first are 14 * 128 + 106: 16 bits
    assert np.unpackbits(np.array(rows[0], U8), bitorder="little").tolist() == [1] + [0] * 14 + [1]
    assert [row[0] >> 2 & 1 for row in rows[1:]] == [106 >> bit & 1 for bit in range(7)]
    assert stored == [0, 2, 1]


def test_all_zero() -> None:
    rows, powers, stored = parts(np.zeros((3, 5)))
    assert (rows, powers, stored) == ([[0], [255]], [1], [0])


@pytest.mark.parametrize(("density", "bits"), [(0.2, 2), (0.1, 3), (0.05, 4), (0.02, 5), (0.01, 6), (0.003, 8)])
def test_the_width_follows_the_density(density: float, bits: int) -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random(40_000) < density, 1, 0).astype(np.int8)
    low = Rice().encode(Array(values)).inputs[1]
    assert abs(low.shape[0] - bits) <= 1


@pytest.mark.parametrize("density", [0.3, 0.1, 0.05, 0.02, 0.005])
def test_positions_come_within_four_percent_of_their_entropy(density: float) -> None:
    rng = np.random.default_rng(2)
    values = np.where(rng.random(400_000) < density, 1, 0).astype(np.int8)
    share = np.count_nonzero(values) / values.size
    entropy = -values.size * (share * np.log2(share) + (1 - share) * np.log2(1 - share)) / 8
    high, low, *_ = Rice().layout(count(Array(values)))
    assert entropy < high.shape[1] + low.shape[0] * low.shape[1] < 1.04 * entropy


@pytest.mark.parametrize("density", [0.002, 0.3, 1.0])
def test_more_than_one_chunk(density: float) -> None:
    rng = np.random.default_rng(7)
    size = 9 * CHUNK + 5
    values = np.where(rng.random(size) < density, rng.integers(1, 200, size), 0).astype(U8)
    values[CHUNK - 40 : CHUNK + 40] = 0
    encoded = Rice().encode(Array(values))
    assert np.array_equal(Rice().decode(encoded.inputs), values)


def damaged(**changes: Any) -> tuple[NDArray, ...]:
    """Parts of 3 values in 8 entries, some of them replaced."""
    names = ("high", "low", "powers", "values", "shape")
    inputs = dict(zip(names, Rice().encode(Array(np.array([0, 1, 0, 2, 0, 0, 0, 3], F32))).inputs, strict=True))
    return tuple((inputs | changes).values())


@pytest.mark.parametrize(
    "inputs",
    [
        damaged(high=np.full((1, 4, 1), 255, U8)),  # more bits than numbers
        damaged(high=np.array([1], U8)),  # rank 1
        damaged(high=np.ones((2, 1, 1), U8)),  # two rows
        damaged(high=np.ones((1, 1, 1), np.int8)),
        damaged(low=np.ones((1, 2, 1), np.int8)),
        damaged(low=np.zeros((1, 0, 1), U8)),
        damaged(low=np.zeros((9, 2, 1), U8)),  # no number of 9 bits
        damaged(low=np.zeros(2, U8)),
        damaged(powers=np.array([2], U8)),
        damaged(powers=np.array([1, 2], U8)),
        damaged(powers=np.array(1, U8)),
        damaged(powers=np.array([1], I64)),
        (*Rice().encode(Array(np.ones(40, F32))).inputs[:4], np.array([20], I64)),  # far past the end
        damaged(shape=np.array([-8], I64)),
        damaged(values=np.zeros(2, F32)),  # more bits than values
        damaged(values=np.zeros(40, F32)),  # more values than bits
        damaged(values=np.zeros(0, F32)),
        damaged()[:4],
    ],
)
def test_damaged_inputs_are_refused(inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match="DecodeRice"):
        Rice().decode(inputs)
