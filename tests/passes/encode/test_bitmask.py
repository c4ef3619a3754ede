from __future__ import annotations

import numpy as np
import pytest
from onnxprune_passes.arrays import CHUNK, Array, NDArray
from onnxprune_passes.encode import Bitmask
from onnxprune_passes.errors import EncodeError


@pytest.mark.parametrize(
    ("values", "mask", "stored"),
    [
        ([5, 0, 0, 7], [0b1001], [0, 5, 7]),
        ([0] * 8, [0], [0]),
        ([1] * 8, [255], [0] + [1] * 8),
        ([0] * 8 + [3], [0, 1], [0, 3]),
        ([0] * 15 + [3], [0, 128], [0, 3]),
        ([[0, 2], [0, 0]], [2], [0, 2]),
        ([4], [1], [0, 4]),
    ],
)
def test_lowest_bit_first(values: object, mask: list[int], stored: list[int]) -> None:
    array = np.array(values, np.float32)
    encoded = Bitmask().encode(Array(array))
    assert [part.tolist() for part in encoded.inputs] == [mask, stored, list(array.shape)]
    assert Bitmask().decode(encoded.inputs).tobytes() == array.tobytes()


def test_more_than_one_chunk() -> None:
    rng = np.random.default_rng(7)
    values = np.where(rng.random(2 * CHUNK + 5) < 0.3, rng.integers(1, 200, 2 * CHUNK + 5), 0).astype(np.uint8)
    encoded = Bitmask().encode(Array(values))
    assert np.array_equal(Bitmask().decode(encoded.inputs), values)


def test_decode_fills_with_the_first_of_values() -> None:
    inputs = (np.array([0b10], np.uint8), np.array([128, 3], np.uint8), np.array([4], np.int64))
    assert Bitmask().decode(inputs).tolist() == [128, 3, 128, 128]


@pytest.mark.parametrize(
    "inputs",
    [
        (np.array([0b100], np.uint8), np.zeros(2, np.float32), np.array([2], np.int64)),  # a bit past the end
        (np.array([0b11], np.uint8), np.zeros(2, np.float32), np.array([2], np.int64)),  # more bits than values
        (np.array([0b111], np.uint8), np.zeros(3, np.float32), np.array([3], np.int64)),  # the same, of two values
        (np.array([0b1], np.uint8), np.zeros(3, np.float32), np.array([2], np.int64)),  # more values than bits
        (np.array([1, 0], np.uint8), np.zeros(2, np.float32), np.array([8], np.int64)),  # a byte too many
        (np.array([1], np.uint8), np.zeros(2, np.float32), np.array([9], np.int64)),  # a byte too few
        (np.array([1], np.uint8), np.zeros(2, np.float32)),  # an input missing
    ],
)
def test_damaged_inputs_are_refused(inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match="DecodeBitmask"):
        Bitmask().decode(inputs)
