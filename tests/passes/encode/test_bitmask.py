from __future__ import annotations

import numpy as np
import pytest
from onnxprune_passes.arrays import CHUNK, Array, NDArray
from onnxprune_passes.encode import Bitmask
from onnxprune_passes.errors import EncodeError

ONE = np.ones(1, np.uint8)


def rows_of(*mask: int) -> NDArray:
    return np.array(mask, np.uint8).reshape(1, -1, 1)


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
    rows, *others = (part.tolist() for part in encoded.inputs)
    assert (rows, others) == ([[[byte] for byte in mask]], [[1], stored, list(array.shape)])
    assert Bitmask().decode(encoded.inputs).tobytes() == array.tobytes()


def test_more_than_one_chunk() -> None:
    rng = np.random.default_rng(7)
    values = np.where(rng.random(2 * CHUNK + 5) < 0.3, rng.integers(1, 200, 2 * CHUNK + 5), 0).astype(np.uint8)
    encoded = Bitmask().encode(Array(values))
    assert np.array_equal(Bitmask().decode(encoded.inputs), values)


def test_decode_fills_with_the_first_of_values() -> None:
    inputs = (rows_of(0b10), ONE, np.array([128, 3], np.uint8), np.array([4], np.int64))
    assert Bitmask().decode(inputs).tolist() == [128, 3, 128, 128]


@pytest.mark.parametrize(
    "inputs",
    [
        (rows_of(0b100), ONE, np.zeros(2, np.float32), np.array([2], np.int64)),  # a bit past the end
        (rows_of(0b11), ONE, np.zeros(2, np.float32), np.array([2], np.int64)),  # more bits than values
        (rows_of(0b111), ONE, np.zeros(3, np.float32), np.array([3], np.int64)),  # the same, of two values
        (rows_of(0b1), ONE, np.zeros(3, np.float32), np.array([2], np.int64)),  # more values than bits
        (rows_of(1, 0), ONE, np.zeros(2, np.float32), np.array([8], np.int64)),  # a byte too many
        (rows_of(1), ONE, np.zeros(2, np.float32), np.array([9], np.int64)),  # a byte too few
        (rows_of(1), ONE, np.zeros(2, np.float32)),  # an input missing
        (rows_of(1), np.array([2], np.uint8), np.zeros(2, np.float32), np.array([1], np.int64)),  # other powers
        (np.ones((2, 1, 1), np.uint8), np.array([1, 2], np.uint8), np.zeros(2, np.float32), np.array([1], np.int64)),
    ],
)
def test_damaged_inputs_are_refused(inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match="DecodeBitmask"):
        Bitmask().decode(inputs)
