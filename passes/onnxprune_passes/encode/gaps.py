"""Gap coding: the non-zero entries, and how many zeros lie before each of them.

Codes of a fixed width with an escape, as Deep Compression stores its relative indices (Han, Mao, Dally 2015, section 2,
figure 2), but an escape here stores no zero among the values. Codes of 4 bits are the smallest index at densities from
about 0.25 down to 0.05 in float32, codes of 8 bits below that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx

from ..arrays import CHUNK, NDArray, TensorSource, bits_of
from ..errors import EncodeError
from . import functions
from .scheme import (
    Counts,
    Encoded,
    Layout,
    Support,
    basic_support,
    changed,
    checked_inputs,
    counts_of,
    kept_runs,
    require_encodable,
    shape_tensor,
)

_DOC = """A weight stored as its non-zero entries and the distances between them. Version 1.
gaps: uint8 [n], {packing}.
values: [1 + entries], first the filler (0), then the stored entries in the order of the flat (row-major) weight.
shape: int64 [rank], the dims of the weight.
To read it, set every entry to the filler, start at position 0 and take the codes in order. The code {escape} moves \
the position on by {escape} and stores nothing. Any other code moves it on by that many places, puts the next value \
there and moves on by one more.{rest}"""

_PACKING = {4: "two 4-bit codes a byte, the low half first", 8: "one code a byte"}

_REST = """
When the codes would be odd in number a last code 0 fills the byte. Its value, the last of values, repeats the entry \
that it falls on; past the end that is entry 0."""

_SIGNATURE = "DecodeGaps{bits} (gaps, values, shape) => (weight)"

_STEPS = """
  gap = Cast <to = 6> ({codes})
  escape = Constant <value = int32 {{{escape}}}> ()
  below = Less (gap, escape)
  keep = Cast <to = 6> (below)
  step = Add (gap, keep)
"""
"""codes → keep (1 where a code stores an entry) and step (how far it moves), int32."""

_POSITIONS = """
  end = CumSum (step, axis)
  one = Constant <value = int32 {1}> ()
  position = Sub (end, one)
"""

_WRAP = """
  length = Cast <to = 6> (size)
  place = Mod (position, length)
"""
"""Position `size`, where the code that fills the last byte can fall, becomes 0."""

_SCATTER = """
  first = Constant <value = int64[1] {{0}}> ()
  filler = Slice (values, first, unit)
  empty = Expand (filler, size)
  full = ScatterElements <axis = 0> (empty, {place}, stored)
  weight = Reshape (full, shape)
"""


@dataclass(frozen=True)
class Gaps:
    """Gap coding with codes of `bits` bits."""

    bits: Literal[4, 8]

    @property
    def name(self) -> str:
        """`gaps4` or `gaps8`."""
        return f"gaps{self.bits}"

    @property
    def op_type(self) -> str:
        """`DecodeGaps4` or `DecodeGaps8`."""
        return f"DecodeGaps{self.bits}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the decoder node's input order."""
        return ("gaps", "values", "shape")

    @property
    def escape(self) -> int:
        """The code that moves on by its own value and stores nothing: 15 or 255."""
        return (1 << self.bits) - 1

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """All encodable dtypes but bfloat16: onnxruntime 1.31 has no CPU kernel of a bfloat16 Expand, at any opset."""
        if dtype == np.dtype(ml_dtypes.bfloat16):
            return Support("onnxruntime's CPU provider has no bfloat16 Expand, which gap decoders need; use bitmask")
        return basic_support(shape, dtype, opset)

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """The gaps uint8 [bytes], values [1 + kept, one more when a code fills the last byte], shape int64 [rank]."""
        codes = counts.kept + counts.escapes[self.bits]
        spare = self._spare(codes)
        return (
            Layout(np.dtype(np.uint8), ((codes + spare) * self.bits // 8,)),
            Layout(counts.dtype, (1 + counts.kept + spare,)),
            Layout(np.dtype(np.int64), (len(counts.shape),)),
        )

    def _spare(self, codes: int) -> int:
        return -codes % (8 // self.bits)

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs the encoded tensor and one byte a code beside the chunk."""
        require_encodable(self.name, source)
        counts = counts_of(source, counts)
        total = counts.kept + counts.escapes[self.bits]
        spare = self._spare(total)
        codes = np.zeros(total + spare, np.uint8)
        values = np.zeros(1 + counts.kept + spare, source.dtype)
        coded, stored, end = 0, 1, 0
        for gaps, entries in kept_runs(source):
            run = self._codes(gaps)
            if coded + run.size > total or stored + entries.size > 1 + counts.kept:
                raise changed()
            codes[coded : coded + run.size] = run
            values[stored : stored + entries.size] = entries
            coded, stored = coded + run.size, stored + entries.size
            end += int(np.sum(gaps, dtype=np.int64)) + gaps.size
        if (coded, stored) != (total, 1 + counts.kept):
            raise changed()
        if spare and end == source.size and codes[0] == 0:
            values[-1] = values[1]  # the code that fills the byte falls on entry 0, which is a kept one
        return Encoded(self.name, (self._packed(codes), values, shape_tensor(source.shape)), source.shape, source.dtype)

    def _codes(self, gaps: NDArray) -> NDArray:
        """uint32 gaps → uint8 codes: each gap is its escapes followed by a code below the escape."""
        escapes = gaps // np.uint32(self.escape)
        last = np.cumsum(escapes, dtype=np.int64) + np.arange(gaps.size)
        codes = np.full(int(last[-1]) + 1, self.escape, np.uint8)
        codes[last] = gaps - escapes * np.uint32(self.escape)
        return codes

    def _packed(self, codes: NDArray) -> NDArray:
        return codes if self.bits == 8 else codes[0::2] | codes[1::2] << 4

    def _unpacked(self, packed: NDArray) -> NDArray:
        return packed if self.bits == 8 else np.stack((packed & 15, packed >> 4), axis=1).reshape(-1)

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The tensor, from (gaps, values, shape). Raises EncodeError when they do not fit together."""
        packed, values, shape = checked_inputs(self.op_type, tensors)
        size = math.prod(shape)
        bits = bits_of(values)
        damaged = EncodeError(
            f"{self.op_type}: {packed.size} bytes of codes do not fit {bits.size - 1} values in shape {list(shape)}; "
            "the file is damaged"
        )
        furthest = size - (self.bits == 8)  # the code that fills a byte may fall one past the end and means entry 0
        flat = np.full(size, bits[0])
        stored = 1
        for positions in self._positions(packed):
            if stored + positions.size > bits.size or positions[-1] > furthest:
                raise damaged
            flat[positions % size if positions[-1] == size else positions] = bits[stored : stored + positions.size]
            stored += positions.size
        if stored != bits.size:
            raise damaged
        return flat.view(values.dtype).reshape(shape)

    def _positions(self, packed: NDArray) -> Iterator[NDArray]:
        """Positions of the stored entries in the flat tensor, int64, chunk by chunk."""
        end = 0
        for start in range(0, packed.size, CHUNK):
            codes = self._unpacked(packed[start : start + CHUNK])
            keep = codes != self.escape
            ends = end + np.cumsum(codes + keep.view(np.uint8), dtype=np.int64)
            end = int(ends[-1])
            if np.any(keep):
                yield ends[keep] - 1

    def function(self, opset: int) -> onnx.FunctionProto:
        """`DecodeGaps4` or `DecodeGaps8`; see `Scheme.function`."""
        packed = self.bits != 8
        codes, place = ("codes", "place") if packed else ("gaps", "position")
        body = (
            functions.SIZE
            + (functions.unpack("gaps", codes, self.bits) if packed else "")
            + _STEPS.format(codes=codes, escape=self.escape)
            + functions.STORED
            + _POSITIONS
            + (_WRAP if packed else "")
            + _SCATTER.format(place=place)
        )
        doc = _DOC.format(packing=_PACKING[self.bits], escape=self.escape, rest=_REST if packed else "")
        return functions.function_from_text(_SIGNATURE.format(bits=self.bits), body, doc, opset)
