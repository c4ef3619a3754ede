"""Codes of 1 to 8 bits in bytes: one after the other, each from its lowest bit up.

Codes are packed in groups that fill whole bytes: 8 codes of 3 bits in 3 bytes, 4 of 6 bits in 3, 2 of 4 bits in one.
The last group is filled up with codes 0.
"""

from __future__ import annotations

import math

import numpy as np

from ..arrays import CHUNK, NDArray

_SHIFTED = (1, 2, 4)
"""Widths whose codes do not cross a byte: BitShift takes them out of it. The others are digits of a longer number."""


def group(bits: int) -> int:
    """How many codes of `bits` bits fill whole bytes: 1, 2, 4 or 8."""
    return 8 // math.gcd(8, bits)


def padded(codes: int, bits: int) -> int:
    """The number of codes once the last group is full."""
    return -(-codes // group(bits)) * group(bits)


def packed_nbytes(codes: int, bits: int) -> int:
    """Bytes that so many codes take."""
    return padded(codes, bits) * bits // 8


def pack(codes: NDArray, bits: int) -> NDArray:
    """uint8 [n] of codes below 2^bits → uint8 [packed_nbytes(n, bits)]."""
    if bits == 8:
        return codes
    packed = np.zeros(packed_nbytes(codes.size, bits), np.uint8)
    for start in range(0, codes.size, CHUNK):
        run = codes[start : start + CHUNK]
        flat = np.unpackbits(run[:, None], axis=1, count=bits, bitorder="little").reshape(-1)
        found = np.packbits(flat, bitorder="little")
        packed[start * bits // 8 : start * bits // 8 + found.size] = found
    return packed


def unpack(packed: NDArray, bits: int) -> NDArray:
    """uint8 [n] → its codes, uint8 [n × 8 / bits], whole groups only."""
    if bits == 8:
        return packed
    codes = np.empty(packed.size * 8 // bits, np.uint8)
    step = CHUNK // 8 * bits  # bytes, of whole groups
    for start in range(0, packed.size, step):
        table = np.unpackbits(packed[start : start + step], bitorder="little").reshape(-1, bits)
        found = np.packbits(table, axis=1, bitorder="little").reshape(-1)
        codes[start * 8 // bits : start * 8 // bits + found.size] = found
    return codes


def fits(packed: NDArray, bits: int) -> bool:
    """Whether so many bytes are whole groups."""
    return packed.size % (group(bits) * bits // 8) == 0


def describe(bits: int) -> str:
    """How codes lie in bytes, for the doc string of a function."""
    if bits == 8:
        return "one code a byte"
    count = group(bits)
    where = "a byte" if count * bits == 8 else f"{count * bits // 8} bytes"
    return f"{count} in {where}, lowest first"


def unpack_text(packed: str, codes: str, bits: int) -> str:
    """ONNX text that turns bytes into codes: uint8 [n] → integers [n × 8 / bits], of a type that Cast and Gather take.

    Of 1, 2 and 4 bits they are uint8, of 3, 5, 6 and 7 int32 or int64. Nothing to do for 8: use `packed` itself.
    """
    if bits in _SHIFTED:
        shifts = ", ".join(map(str, range(0, 8, bits)))
        return f"""
  tall = Constant <value = int64[2] {{-1, 1}}> ()
  byte = Reshape ({packed}, tall)
  by = Constant <value = uint8[{8 // bits}] {{{shifts}}}> ()
  moved = BitShift <direction = "RIGHT"> (byte, by)
  base = Constant <value = uint8 {{{2**bits}}}> ()
  digit = Mod (moved, base)
  flat = Constant <value = int64[1] {{-1}}> ()
  {codes} = Reshape (digit, flat)
"""
    count = group(bits)
    width = count * bits // 8
    kind, number = ("int32", 6) if width <= 3 else ("int64", 7)
    weights = ", ".join(str(256**byte) for byte in range(width))
    divisors = ", ".join(str(2 ** (bits * place)) for place in range(count))
    return f"""
  tall = Constant <value = int64[2] {{-1, {width}}}> ()
  byte = Reshape ({packed}, tall)
  wide = Cast <to = {number}> (byte)
  high = Constant <value = {kind}[{width}, 1] {{{weights}}}> ()
  word = MatMul (wide, high)
  by = Constant <value = {kind}[{count}] {{{divisors}}}> ()
  moved = Div (word, by)
  base = Constant <value = {kind} {{{2**bits}}}> ()
  digit = Mod (moved, base)
  flat = Constant <value = int64[1] {{-1}}> ()
  {codes} = Reshape (digit, flat)
"""
