from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnxprune_passes.arrays import CHUNK, Array, NDArray
from onnxprune_passes.encode import Gaps
from onnxprune_passes.errors import EncodeError


def parts(scheme: Gaps, values: Any) -> tuple[list[int], list[float], list[int]]:
    """(bytes of codes, values, shape) of float32 values, checked to come back."""
    array = np.array(values, np.float32)
    encoded = scheme.encode(Array(array))
    assert scheme.decode(encoded.inputs).tobytes() == array.tobytes()
    codes, stored, shape = encoded.inputs
    return codes.tolist(), stored.tolist(), shape.tolist()


def test_codes_are_zeros_before_each_entry() -> None:
    values = [[0, 0, 5], [0, 7, 0]]
    assert parts(Gaps(8), values) == ([2, 1], [0, 5, 7], [2, 3])
    assert parts(Gaps(4), values) == ([2 | 1 << 4], [0, 5, 7], [2, 3])


def test_a_code_that_fills_the_byte_moves_on_and_stores_nothing() -> None:
    """Its value repeats the last one, so that no zero is among the values."""
    assert parts(Gaps(4), [0, 0, 5, 0]) == ([2 | 15 << 4], [0, 5, 5], [4])
    assert parts(Gaps(2), [0, 0, 5, 0]) == ([2 | 3 << 2 | 3 << 4 | 3 << 6], [0, 5, 5, 5, 5], [4])


def test_a_fill_that_falls_on_an_entry_repeats_it() -> None:
    """Position 3 + 15 - 1 is 17, which is 2 of 3."""
    assert parts(Gaps(4), [4, 5, 6]) == ([0, 14 << 4], [0, 4, 5, 6, 6], [3])
    assert parts(Gaps(4), [0, 0, 6]) == ([2 | 14 << 4], [0, 6, 6], [3])
    assert parts(Gaps(4), [7, 0, 0, 0, 0, 0, 6]) == ([5 << 4], [0, 7, 6], [7])
    assert parts(Gaps(4), [7, 8, 0, 0, 0, 0, 6]) == ([0, 4 | 14 << 4], [0, 7, 8, 6, 7], [7])
    assert parts(Gaps(8), [4, 5, 6]) == ([0, 0, 0], [0, 4, 5, 6], [3])


def test_one_entry_alone() -> None:
    assert parts(Gaps(4), [3]) == ([14 << 4], [0, 3, 3], [1])
    assert parts(Gaps(8), [3]) == ([0], [0, 3], [1])


def test_all_zero_needs_no_code() -> None:
    assert parts(Gaps(4), np.zeros((3, 5))) == ([], [0], [3, 5])


@pytest.mark.parametrize(
    ("gap", "codes4", "codes8"),
    [
        (14, [14], [14]),
        (15, [15, 0], [15]),
        (16, [15, 1], [16]),
        (30, [15, 15, 0], [30]),
        (254, [15] * 16 + [14], [254]),
        (255, [15] * 17 + [0], [255, 0]),
        (511, [15] * 34 + [1], [255, 255, 1]),
    ],
)
def test_an_escape_moves_on_and_stores_nothing(gap: int, codes4: list[int], codes8: list[int]) -> None:
    values = np.zeros(gap + 1, np.float32)
    values[gap] = 9
    fill = len(codes4) % 2
    last = 14 if fill and (gap + 15) % (gap + 1) == gap else 15
    packed = [low | high << 4 for low, high in zip(codes4[::2], [*codes4[1::2], last], strict=False)]
    assert parts(Gaps(4), values) == (packed, [0, 9] + [9] * fill, [gap + 1])
    assert parts(Gaps(8), values) == (codes8, [0, 9], [gap + 1])


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("density", [0.002, 0.3])
def test_more_than_one_chunk(bits: Any, density: float) -> None:
    rng = np.random.default_rng(7)
    values = np.where(rng.random(2 * CHUNK + 5) < density, rng.integers(1, 200, 2 * CHUNK + 5), 0).astype(np.uint8)
    values[CHUNK - 40 : CHUNK + 40] = 0
    encoded = Gaps(bits).encode(Array(values))
    assert np.array_equal(Gaps(bits).decode(encoded.inputs), values)


def test_codes_of_more_than_one_chunk_are_decoded() -> None:
    values = np.arange(1, 2 * CHUNK + 4, dtype=np.float32)
    encoded = Gaps(4).encode(Array(values))
    assert encoded.inputs[0].size > CHUNK
    assert np.array_equal(Gaps(4).decode(encoded.inputs), values)


def test_decode_fills_with_the_first_of_values() -> None:
    inputs = (np.array([1], np.uint8), np.array([128, 3], np.uint8), np.array([4], np.int64))
    assert Gaps(8).decode(inputs).tolist() == [128, 3, 128, 128]


U8, F32, I64 = np.uint8, np.float32, np.int64


@pytest.mark.parametrize(
    ("bits", "inputs"),
    [
        (8, (np.array([9], U8), np.zeros(2, F32), np.array([9], I64))),  # one past the end
        (8, (np.array([0, 0], U8), np.zeros(2, F32), np.array([9], I64))),  # more codes than values
        (8, (np.array([0, 0, 0], U8), np.zeros(3, F32), np.array([9], I64))),  # the same, of two values
        (8, (np.array([0], U8), np.zeros(3, F32), np.array([9], I64))),  # more values than codes
        (8, (np.array([255, 255], U8), np.zeros(2, F32), np.array([9], I64))),  # only escapes
        (4, (np.array([0xEE, 0xE], U8), np.zeros(5, F32), np.array([8], I64))),  # far past the end
        (3, (np.array([0, 0], U8), np.zeros(5, F32), np.array([30], I64))),  # bytes that no codes of 3 bits fill
        (4, (np.array([], U8), np.zeros(3, F32), np.array([3], I64))),  # no codes for the values
        (4, (np.array([0], U8), np.zeros(0, F32), np.array([3], I64))),  # no filler
        (4, (np.array([0], U8), np.zeros((1, 3), F32), np.array([3], I64))),  # values of rank 2
        (4, (np.array([0], U8), np.zeros(3, np.int64), np.array([3], I64))),  # values of another dtype
        (4, (np.array([0], np.int8), np.zeros(3, F32), np.array([3], I64))),  # codes of another dtype
        (4, (np.array([[0]], U8), np.zeros(3, F32), np.array([3], I64))),  # codes of rank 2
        (4, (np.array([0], U8), np.zeros(3, F32), np.array([3], np.int32))),  # shape of another dtype
        (4, (np.array([0], U8), np.zeros(3, F32), np.array(3, I64))),  # shape of rank 0
        (4, (np.array([0], U8), np.zeros(3, F32), np.array([-3], I64))),  # negative dim
        (4, (np.array([0], U8), np.zeros(3, F32), np.array([-3, -1], I64))),  # negative dims, positive product
        (4, (np.array([0], U8), np.zeros(3, F32), np.array([0], I64))),  # no entries
        (4, (np.array([0], U8), np.zeros(3, F32), np.array([2**40], I64))),  # far too many
        (4, (np.array([0], U8), np.zeros(3, F32), np.array([2**40, 2**40], I64))),  # product beyond int64
        (4, (np.array([0], U8), np.zeros(3, F32))),  # an input missing
    ],
)
def test_damaged_inputs_are_refused(bits: Any, inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match=f"DecodeGaps{bits}"):
        Gaps(bits).decode(inputs)
