"""Numbers of 1 to 8 bits as rows of bits: row i has bit i of every number, eight numbers to a byte, the first in the
lowest bit. `ReadBits` (see `functions`) turns them into numbers again, of whatever width: `powers` (1, 2, 4, ...) says
what each row stands for.

The numbers are filled up to a multiple of 8. A trailing axis of 1 makes room for the eight that come out of each byte.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import CHUNK, NDArray
from ..errors import EncodeError
from .scheme import Layout, check_values, dims_of

_BYTE = np.dtype(np.uint8)


def padded(numbers: int) -> int:
    """How many numbers there are once the last byte of a row is full."""
    return -(-numbers // 8) * 8


def rows_layout(numbers: int, width: int) -> Layout:
    """The rows of so many numbers of `width` bits: uint8 [width, bytes, 1]."""
    return Layout(_BYTE, (width, padded(numbers) // 8, 1))


def powers_layout(width: int) -> Layout:
    """That of `powers`."""
    return Layout(_BYTE, (width,))


def powers(width: int) -> NDArray:
    """What each row stands for: 1, 2, 4, ...; uint8 [width]."""
    found: NDArray = (1 << np.arange(width)).astype(np.uint8)
    return found


def pack(numbers: NDArray, width: int) -> NDArray:
    """uint8 [n] of numbers below 2^width → their rows, uint8 [width, ceil(n / 8), 1]; filled up with 0."""
    rows = np.zeros((width, padded(numbers.size) // 8, 1), np.uint8)
    for start in range(0, numbers.size, CHUNK):
        run = numbers[start : start + CHUNK]
        for bit in range(width):
            found = np.packbits(run >> np.uint8(bit) & np.uint8(1), bitorder="little")
            rows[bit, start // 8 : start // 8 + found.size, 0] = found
    return rows


def unpack(rows: NDArray) -> NDArray:
    """Rows as `checked` lets through → all their numbers, those that fill up too; uint8 [8 × bytes]."""
    numbers = np.zeros(8 * rows.shape[1], np.uint8)
    for start in range(0, rows.shape[1], CHUNK // 8):
        run = rows[:, start : start + CHUNK // 8, 0]
        for bit, row in enumerate(run):
            numbers[8 * start : 8 * start + 8 * row.size] |= np.unpackbits(row, bitorder="little") << np.uint8(bit)
    return numbers


def checked(op_type: str, name: str, rows: NDArray, given: NDArray) -> NDArray:
    """`rows`, whose powers are `given`. Raises EncodeError when they cannot be rows of bits and their powers."""
    if rows.dtype != np.uint8 or rows.ndim != 3 or not 1 <= rows.shape[0] <= 8 or rows.shape[2] != 1:
        raise EncodeError(
            f"{op_type}: {name} is {rows.dtype} {list(rows.shape)}, expected uint8 [1 to 8, n, 1]; the file is "
            "damaged, or of another version of onnxprune, which can densify it"
        )
    if given.dtype != np.uint8 or not np.array_equal(given, powers(rows.shape[0])):
        raise EncodeError(f"{op_type}: the powers of {name} are not those of {rows.shape[0]} rows; the file is damaged")
    return rows


def checked_inputs(op_type: str, name: str, tensors: Sequence[NDArray]) -> tuple[NDArray, NDArray, tuple[int, ...]]:
    """The (rows, values, shape) of a decoder node that takes (rows, powers, values, shape).

    Raises EncodeError when a dtype, rank or dim cannot be right.
    """
    if len(tensors) != 4:
        raise EncodeError(
            f"{op_type}: found {len(tensors)} inputs, expected 4 ({name}, powers, values, shape); the file is damaged"
        )
    rows, given, values, dims = tensors
    checked(op_type, name, rows, given)
    check_values(op_type, values)
    return rows, values, dims_of(op_type, dims)
