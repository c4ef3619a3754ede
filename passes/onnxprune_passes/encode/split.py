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
from . import bits, functions
from .counts import Counts, changed
from .limits import DTYPES, Support
from .scheme import Layout

_SIGNATURE = "JoinFloats (digits, exponents, code_powers, scales) => (values)"

_DOC = """Version 1. (2^23 + mantissa) x scale behind filler 0. {digits}: mantissa, sign; {exponents} ({code_powers}) \
into {scales}."""

_BODY = """
  real = Cast <to = 1> (digits)
  place = Constant <value = float[3] {1, 256, 65536}> ()
  raw = MatMul (place, real)
  bit = Constant <value = float[1] {8388608}> ()
  low = Less (raw, bit)
  up = Add (raw, bit)
  down = Neg (raw)
  number = Where (low, up, down)
  which = onnxprune.ReadBits (exponents, code_powers)
  scale = Gather (scales, which)
  rest = Mul (number, scale)
  fill = Sub (bit, bit)
  values = Concat <axis = 0> (fill, rest)
"""

_FIRST, _LAST = 24, 254
"""Biased exponents between which the power of two is a normal number too."""


@dataclass(frozen=True)
class Split:
    """Three bytes and a code of `width` bits, 1 to 4, for each float32."""

    width: int

    @property
    def name(self) -> str:
        """`split2` or the like."""
        return f"split{self.width}"

    @property
    def op_type(self) -> str:
        """`JoinFloats`."""
        return "JoinFloats"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the node's input order."""
        return ("digits", "exponents", "code_powers", "scales")

    def supports(self, counts: Counts, opset: int, *, zeros: bool) -> Support:  # noqa: ARG002 - any opset will do
        """float32 without denormals, infinities, NaN and very small values, of at most 2^width exponents, 0 counted."""
        present = np.flatnonzero(counts.values.exponents)
        if counts.dtype != np.float32 or not counts.values.exponents:
            return Support(f"dtype {counts.dtype}, or exponents not counted; only float32 is split")
        if counts.values.denormal or np.any((present > 0) & (present < _FIRST)) or np.any(present > _LAST):
            return Support("some value is a denormal, below 1e-31, infinite or NaN, which cannot be split exactly")
        if len(_table(counts, zeros=zeros)) > 1 << self.width:
            return Support(f"{len(present)} exponents (and 0); codes of {self.width} bits reach {1 << self.width}")
        return Support()

    def layout(self, counts: Counts, length: int, *, zeros: bool) -> tuple[Layout, ...]:
        """The digits uint8 [3, n], the exponents uint8 [width, bytes, 1], `powers`, the scales float32 [exponents]."""
        return (
            Layout(np.dtype(np.uint8), (3, bits.padded(length - 1))),
            bits.rows_layout(length - 1, self.width),
            bits.powers_layout(self.width),
            Layout(np.dtype(np.float32), (len(_table(counts, zeros=zeros)),)),
        )

    def encode(self, values: NDArray, counts: Counts, *, zeros: bool) -> tuple[NDArray, ...]:
        """The digits, the exponents and the scales of `values`; see `ValueScheme.encode`."""
        patterns = bits_of(values)[1:]
        table = _table(counts, zeros=zeros)
        code_of = np.full(256, 255, np.uint8)
        code_of[table] = np.arange(table.size)
        stored = bits.padded(patterns.size)
        codes = np.zeros(stored, np.uint8)
        digits = np.zeros((3, stored), np.uint8)
        for start in range(0, patterns.size, CHUNK):
            run = patterns[start : start + CHUNK]
            found = code_of[(run >> np.uint32(23)) & np.uint32(255)]
            if np.any(found == 255):
                raise changed()
            codes[start : start + run.size] = found
            number = (run & np.uint32(0x7FFFFF)) | (run >> np.uint32(8) & np.uint32(0x800000))
            digits[:, start : start + run.size] = number.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].T
        return digits, bits.pack(codes, self.width), bits.powers(self.width), _scales(table)

    def data_type(self, parts: Sequence[int]) -> int:  # noqa: ARG002 - whatever they are
        """float32."""
        return DTYPES[np.dtype(np.float32)]

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The values, from (digits, exponents, powers, scales). Raises EncodeError when they do not fit together."""
        if len(tensors) != len(self.suffixes):
            raise EncodeError(f"{self.op_type}: found {len(tensors)} inputs, expected {', '.join(self.suffixes)}")
        digits, exponents, given, scales = tensors
        if digits.dtype != np.uint8 or digits.ndim != 2 or digits.shape[0] != 3:
            raise EncodeError(f"{self.op_type}: digits are {digits.dtype} {list(digits.shape)}, expected uint8 [3, n]")
        if scales.dtype != np.float32 or scales.ndim != 1:
            raise EncodeError(f"{self.op_type}: scales are {scales.dtype} {list(scales.shape)}, expected float32 [n]")
        codes = bits.unpack(bits.checked(self.op_type, "exponents", exponents, given))
        if codes.size != digits.shape[1] or (codes.size and int(codes.max()) >= scales.size):
            raise EncodeError(
                f"{self.op_type}: {digits.shape[1]} digits and {codes.size} exponents do not fit {scales.size} scales; "
                "the file is damaged"
            )
        values = np.zeros(1 + codes.size, np.float32)
        for start in range(0, codes.size, CHUNK):
            rows = digits[:, start : start + CHUNK]
            whole = np.zeros((rows.shape[1], 4), np.uint8)
            whole[:, :3] = rows.T
            number = whole.view("<i4").reshape(-1)
            number = np.where(number < 1 << 23, number + (1 << 23), -number).astype(np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                values[1 + start : 1 + start + CHUNK] = number * scales[codes[start : start + CHUNK]]
        return values

    def function(self, opset: int) -> onnx.FunctionProto:
        """`JoinFloats`; see `Decodable.function`."""
        return functions.function_from_text(_SIGNATURE, _BODY, _DOC, opset)


def _table(counts: Counts, *, zeros: bool) -> NDArray:
    """The biased exponents that need a code; 0 stands for the values 0 and -0.0."""
    present = np.flatnonzero(counts.values.exponents)
    return np.union1d([0], present) if zeros or not present.size else present


def _scales(table: NDArray) -> NDArray:
    """The powers of two of biased exponents, float32, 0 for 0."""
    found: NDArray = np.where(table == 0, 0, np.ldexp(1.0, table - 150)).astype(np.float32)
    return found
