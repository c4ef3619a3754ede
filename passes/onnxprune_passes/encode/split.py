"""Split floats: sign and mantissa in three bytes, and a code of few bits for the exponent.

What pruning leaves has few magnitudes: all of it lies above the threshold. So float32 values of a tensor mostly have no
more than 4 or 8 different exponents, and 8 bits for each of them are too many. Lossless: a value is
(2^23 + mantissa) × 2^(e - 150), a whole number below 2^24 times a power of two, which float32 multiplies exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..arrays import CHUNK, NDArray, bits_of
from ..errors import EncodeError
from . import functions, packing
from .counts import Counts, changed
from .limits import DTYPES, Support
from .scheme import Layout

_SIGNATURE = "JoinFloats{bits} (digits, exponents, scales) => (values)"

_DOC = """Version 1. (2^23 + mantissa) x scale, signed; the filler 0 first. digits: mantissa and sign, 3 bytes, lowest \
first; exponents ({packing}) into scales."""

_BODY = """
  three = Constant <value = int64[2] {{-1, 3}}> ()
  rows = Reshape (digits, three)
  real = Cast <to = 1> (rows)
  place = Constant <value = float[3, 1] {{1, 256, 65536}}> ()
  sum = MatMul (real, place)
  raw = Reshape (sum, flat)
  bit = Constant <value = float {{8388608}}> ()
  low = Less (raw, bit)
  up = Add (raw, bit)
  down = Neg (raw)
  number = Where (low, up, down)
  which = Cast <to = 6> (code)
  scale = Gather (scales, which)
  rest = Mul (number, scale)
  fill = Constant <value = float[1] {{0}}> ()
  values = Concat <axis = 0> (fill, rest)
"""

_FIRST, _LAST = 24, 254
"""Biased exponents between which the power of two is a normal number too."""


@dataclass(frozen=True)
class Split:
    """Three bytes and a code of `bits` bits, 1 to 4, for each float32."""

    bits: int

    @property
    def name(self) -> str:
        """`split2` or the like."""
        return f"split{self.bits}"

    @property
    def op_type(self) -> str:
        """`JoinFloats2` or the like."""
        return f"JoinFloats{self.bits}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the node's input order."""
        return ("digits", "exponents", "scales")

    def supports(self, counts: Counts, opset: int, *, zeros: bool) -> Support:  # noqa: ARG002 - any opset will do
        """float32 without denormals, infinities, NaN and very small values, of at most 2^bits exponents, 0 counted."""
        present = np.flatnonzero(counts.values.exponents)
        if counts.dtype != np.float32 or not counts.values.exponents:
            return Support(f"dtype {counts.dtype}, or exponents not counted; only float32 is split")
        if counts.values.denormal or np.any((present > 0) & (present < _FIRST)) or np.any(present > _LAST):
            return Support("some value is a denormal, below 1e-31, infinite or NaN, which cannot be split exactly")
        if len(_table(counts, zeros=zeros)) > 1 << self.bits:
            return Support(f"{len(present)} exponents (and 0); codes of {self.bits} bits reach {1 << self.bits}")
        return Support()

    def layout(self, counts: Counts, length: int, *, zeros: bool) -> tuple[Layout, ...]:
        """The digits uint8 [3 n], the exponents uint8 [bytes], the scales float32 [exponents]."""
        stored = packing.padded(length - 1, self.bits)
        byte = np.dtype(np.uint8)
        return (
            Layout(byte, (3 * stored,)),
            Layout(byte, (packing.packed_nbytes(stored, self.bits),)),
            Layout(np.dtype(np.float32), (len(_table(counts, zeros=zeros)),)),
        )

    def encode(self, values: NDArray, counts: Counts, *, zeros: bool) -> tuple[NDArray, ...]:
        """The digits, the exponents and the scales of `values`; see `ValueScheme.encode`."""
        bits = bits_of(values)[1:]
        table = _table(counts, zeros=zeros)
        code_of = np.full(256, 255, np.uint8)
        code_of[table] = np.arange(table.size)
        stored = packing.padded(bits.size, self.bits)
        codes = np.zeros(stored, np.uint8)
        digits = np.zeros((stored, 3), np.uint8)
        for start in range(0, bits.size, CHUNK):
            run = bits[start : start + CHUNK]
            found = code_of[(run >> np.uint32(23)) & np.uint32(255)]
            if np.any(found == 255):
                raise changed()
            codes[start : start + run.size] = found
            number = (run & np.uint32(0x7FFFFF)) | (run >> np.uint32(8) & np.uint32(0x800000))
            digits[start : start + run.size] = number.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
        return digits.reshape(-1), packing.pack(codes, self.bits), _scales(table)

    def data_type(self, parts: Sequence[int]) -> int:  # noqa: ARG002 - whatever they are
        """float32."""
        return DTYPES[np.dtype(np.float32)]

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The values, from (digits, exponents, scales). Raises EncodeError when they do not fit together."""
        if len(tensors) != 3:
            raise EncodeError(f"{self.op_type}: found {len(tensors)} inputs, expected 3 (digits, exponents, scales)")
        digits, packed, scales = tensors
        for name, array in (("digits", digits), ("exponents", packed)):
            if array.dtype != np.uint8 or array.ndim != 1:
                raise EncodeError(f"{self.op_type}: {name} are {array.dtype} {list(array.shape)}, expected uint8 [n]")
        if scales.dtype != np.float32 or scales.ndim != 1:
            raise EncodeError(f"{self.op_type}: scales are {scales.dtype} {list(scales.shape)}, expected float32 [n]")
        codes = packing.unpack(packed, self.bits) if packing.fits(packed, self.bits) else packed[:0]
        if 3 * codes.size != digits.size or (codes.size and int(codes.max()) >= scales.size):
            raise EncodeError(
                f"{self.op_type}: {digits.size} bytes of digits and {packed.size} of exponents do not fit "
                f"{scales.size} scales; the file is damaged"
            )
        values = np.zeros(1 + codes.size, np.float32)
        for start in range(0, codes.size, CHUNK):
            rows = digits[3 * start : 3 * (start + CHUNK)].reshape(-1, 3)
            whole = np.zeros((len(rows), 4), np.uint8)
            whole[:, :3] = rows
            number = whole.view("<i4").reshape(-1)
            number = np.where(number < 1 << 23, number + (1 << 23), -number).astype(np.float32)
            values[1 + start : 1 + start + CHUNK] = number * scales[codes[start : start + CHUNK]]
        return values

    def function(self, opset: int) -> onnx.FunctionProto:
        """`JoinFloats2` or the like; see `Decodable.function`."""
        body = packing.unpack_text("exponents", "code", self.bits) + _BODY.format()
        doc = _DOC.format(packing=packing.describe(self.bits))
        return functions.function_from_text(_SIGNATURE.format(bits=self.bits), body, doc, opset)


def _table(counts: Counts, *, zeros: bool) -> NDArray:
    """The biased exponents that need a code; 0 stands for the values 0 and -0.0."""
    present = np.flatnonzero(counts.values.exponents)
    return np.union1d([0], present) if zeros or not present.size else present


def _scales(table: NDArray) -> NDArray:
    """The powers of two of biased exponents, float32, 0 for 0."""
    found: NDArray = np.where(table == 0, 0, np.ldexp(1.0, table - 150)).astype(np.float32)
    return found
