from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnxprune_passes.arrays import CHUNK, Array, NDArray
from onnxprune_passes.encode import Gaps, bits
from onnxprune_passes.errors import EncodeError


def parts(scheme: Gaps, values: Any) -> tuple[list[int], list[float], list[int]]:
    """(codes, values, shape) of float32 values, checked to come back; codes fill up to a multiple of 8."""
    array = np.array(values, np.float32)
    encoded = scheme.encode(Array(array))
    assert scheme.decode(encoded.inputs).tobytes() == array.tobytes()
    rows, powers, stored, shape = encoded.inputs
    assert rows.shape[0] == scheme.width
    assert powers.tolist() == [1 << bit for bit in range(scheme.width)]
    return bits.unpack(rows).tolist(), stored.tolist(), shape.tolist()


def test_codes_are_zeros_before_each_entry() -> None:
    values = [[0, 0, 5], [0, 7, 0]]
    for scheme in (Gaps(4), Gaps(8)):
        codes, stored, shape = parts(scheme, values)
        assert (codes[:2], stored[:3], shape) == ([2, 1], [0, 5, 7], [2, 3])


def test_a_row_has_a_bit_of_every_code() -> None:
    rows = Gaps(3).encode(Array(np.array([0, 0, 5, 0, 7], np.float32))).inputs[0]
    assert [int(row[0, 0]) & 3 for row in rows] == [0b10, 0b01, 0b00]  # 2, then 1


def test_a_code_that_fills_the_byte_moves_on_and_stores_nothing() -> None:
    """The values repeat the last one, so that no zero is among them.

    Fills fall on 2 + 15 i, that is 1 and 0 and 3 of 4, and then on 2, which is kept.
    """
    codes, stored, _ = parts(Gaps(4), [0, 0, 5, 0])
    assert codes == [2, 15, 15, 15, 14, 15, 15, 15]
    assert stored == [0, *[5] * 8]


def test_a_fill_that_falls_on_an_entry_repeats_it() -> None:
    """Fills fall on 15 i + 2 of 3, which is always the last entry."""
    assert parts(Gaps(4), [4, 5, 6]) == ([0, 0, 0, 14, 14, 14, 14, 14], [0, 4, 5, 6, 6, 6, 6, 6, 6], [3])
    codes, stored, _ = parts(Gaps(4), [7, 0, 0, 0, 0, 0, 6])  # on 6 + 15 i of 7: 0, 1, 2, 3, 4, 5
    assert codes == [0, 5, 14, 15, 15, 15, 15, 15]
    assert stored[:4] == [0, 7, 6, 7]


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
    for width, expected in ((4, codes4), (8, codes8)):
        codes, stored, _ = parts(Gaps(width), values)  # type: ignore[arg-type]
        fills = codes[len(expected) :]
        assert codes[: len(expected)] == expected
        assert len(fills) < 8
        assert set(fills) <= {2**width - 1, 2**width - 2}
        assert stored == [0, 9] + [9] * len(fills)


@pytest.mark.parametrize("width", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("density", [0.002, 0.3])
def test_more_than_one_chunk(width: Any, density: float) -> None:
    rng = np.random.default_rng(7)
    values = np.where(rng.random(2 * CHUNK + 5) < density, rng.integers(1, 200, 2 * CHUNK + 5), 0).astype(np.uint8)
    values[CHUNK - 40 : CHUNK + 40] = 0
    encoded = Gaps(width).encode(Array(values))
    assert np.array_equal(Gaps(width).decode(encoded.inputs), values)


def test_codes_of_more_than_one_chunk_are_decoded() -> None:
    values = np.arange(1, 2 * CHUNK + 4, dtype=np.float32)
    encoded = Gaps(4).encode(Array(values))
    assert encoded.inputs[0].shape[1] > CHUNK // 8
    assert np.array_equal(Gaps(4).decode(encoded.inputs), values)


def test_decode_fills_with_the_first_of_values() -> None:
    codes = np.array([1, 255, 255, 255, 255, 255, 255, 255], np.uint8)
    inputs = (bits.pack(codes, 8), bits.powers(8), np.array([128, 3], np.uint8), np.array([4], np.int64))
    assert Gaps(8).decode(inputs).tolist() == [128, 3, 128, 128]


U8, F32, I64 = np.uint8, np.float32, np.int64


def damaged(**changes: Any) -> tuple[NDArray, ...]:
    """Parts of 3 values in 9 entries as codes of 4 bits, some of them replaced."""
    names = ("gaps", "powers", "values", "shape")
    inputs = dict(zip(names, Gaps(4).encode(Array(np.array([0, 1, 0, 2, 0, 0, 0, 3, 0], F32))).inputs, strict=True))
    return tuple((inputs | changes).values())


def rows_of(*codes: int) -> NDArray:
    return bits.pack(np.array(codes, U8), 4)


@pytest.mark.parametrize(
    "inputs",
    [
        damaged(gaps=rows_of(15, 15, 15, 15, 15, 15, 15, 14)),  # past the end
        damaged(gaps=rows_of(*[14] * 8)),  # far past the end
        damaged(gaps=rows_of(*[0] * 16)),  # more codes than values
        damaged(gaps=rows_of(*[15] * 8), values=np.zeros(20, F32)),  # only escapes
        damaged(values=np.zeros(40, F32)),  # more values than codes
        damaged(gaps=np.zeros((4, 0, 1), U8), values=np.zeros(30, F32)),  # no codes for the values
        damaged(values=np.zeros(0, F32)),  # no filler
        damaged(values=np.zeros((1, 9), F32)),  # values of rank 2
        damaged(values=np.zeros(9, np.int64)),  # values of another dtype
        damaged(gaps=rows_of(0).astype(np.int8)),  # codes of another dtype
        damaged(gaps=rows_of(0)[:, :, 0]),  # codes of rank 2
        damaged(gaps=np.zeros((9, 1, 1), U8)),  # codes of 9 bits
        damaged(gaps=np.zeros((4, 1, 2), U8)),
        damaged(powers=np.array([1, 2, 4], U8)),
        Gaps(3).encode(Array(np.array([0, 1, 0, 2, 0, 0, 0, 3, 0], F32))).inputs,  # of another width
        damaged(powers=np.array([1, 2, 4, 9], U8)),
        damaged(powers=np.array([1, 2, 4, 8], I64)),
        damaged(shape=np.array([9], np.int32)),  # shape of another dtype
        damaged(shape=np.array(9, I64)),  # shape of rank 0
        damaged(shape=np.array([-9], I64)),  # negative dim
        damaged(shape=np.array([-3, -3], I64)),  # negative dims, positive product
        damaged(shape=np.array([0], I64)),  # no entries
        damaged(shape=np.array([2**40], I64)),  # far too many
        damaged(shape=np.array([2**40, 2**40], I64)),  # product beyond int64
        damaged()[:3],  # an input missing
    ],
)
def test_damaged_inputs_are_refused(inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match="DecodeGaps"):
        Gaps(4).decode(inputs)
