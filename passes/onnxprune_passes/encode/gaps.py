"""Gap coding: the non-zero entries, and how many zeros lie before each of them.

Codes of a fixed width with an escape, as Deep Compression stores its relative indices (Han, Mao, Dally 2015, section 2,
figure 2), but an escape here stores no zero among the values. Each width is the smallest index in a range of densities:
2 bits about 0.2 to 0.4, 3 bits to 0.13, 4 bits to 0.065, 6 bits to 0.02, 8 bits below.
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
from . import bits, functions
from .counts import Counts, changed, counts_of, kept_runs
from .limits import Support, basic_support, require_encodable
from .scheme import Encoded, Layout, shape_layout, shape_tensor

_SIGNATURE = "DecodeGaps (gaps, powers, values, shape) => (weight)"

_DOC = """Version 1. {gaps} ({powers}): how often filler {values}[0] comes before the next of {values}; the largest \
number puts none."""

_STEPS = """
  back = Constant <value = int32 {-1}> ()
  gap = onnxprune.ReadBits (gaps, powers)
  wide = Cast <to = 6> (powers)
  most = ReduceSum (wide)
  put = Less (gap, most)
  keep = Cast <to = 6> (put)
  step = Add (gap, keep)
  end = CumSum (step, back)
  at = Add (end, back)
"""
"""gaps → keep (1 where a code stores an entry) and at (where it falls), int32."""


_FILL = 7
"""Most codes that fill up the last byte; they may fall past the end, where positions begin at 0 again."""


@dataclass(frozen=True)
class Gaps:
    """Gap coding with codes of `width` bits."""

    width: Literal[2, 3, 4, 6, 8]

    @property
    def name(self) -> str:
        """`gaps4` or the like."""
        return f"gaps{self.width}"

    @property
    def op_type(self) -> str:
        """`DecodeGaps`."""
        return "DecodeGaps"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the decoder node's input order."""
        return ("gaps", "powers", "values", "shape")

    @property
    def escape(self) -> int:
        """The code that moves on by its own value and stores nothing: all its bits are 1."""
        return (1 << self.width) - 1

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """All encodable dtypes but bfloat16: onnxruntime 1.31 has no CPU kernel of a bfloat16 Expand, at any opset."""
        if dtype == np.dtype(ml_dtypes.bfloat16):
            return Support("onnxruntime's CPU provider has no bfloat16 Expand, which gap decoders need; use bitmask")
        return basic_support(shape, dtype, opset)

    @property
    def stores_zeros(self) -> bool:
        """No: only kept entries."""
        return False

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """The gaps uint8 [width, bytes, 1], powers uint8 [width]; values [1 + kept + one for each code that fills a
        byte], shape int64 [rank].
        """
        codes = counts.kept + counts.escapes[self.width]
        spare = bits.padded(codes) - codes
        return (
            bits.rows_layout(codes, self.width),
            bits.powers_layout(self.width),
            Layout(counts.dtype, (1 + counts.kept + spare,)),
            shape_layout(counts.shape),
        )

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs the encoded tensor and one byte a code beside the chunk."""
        require_encodable(self.name, source)
        counts = counts_of(source, counts)
        total = counts.kept + counts.escapes[self.width]
        spare = bits.padded(total) - total
        codes = np.full(total + spare, self.escape, np.uint8)
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
        values[stored:] = values[stored - 1]
        if spare:
            self._fill(codes[total:], bits_of(values)[stored:], end, source)
        index = bits.pack(codes, self.width), bits.powers(self.width)
        return Encoded(self.name, (*index, values, shape_tensor(source.shape)), source.shape, source.dtype)

    def _codes(self, gaps: NDArray) -> NDArray:
        """uint32 gaps → uint8 codes: each gap is its escapes followed by a code below the escape."""
        escapes = gaps // np.uint32(self.escape)
        last = np.cumsum(escapes, dtype=np.int64) + np.arange(gaps.size)
        codes = np.full(int(last[-1]) + 1, self.escape, np.uint8)
        codes[last] = gaps - escapes * np.uint32(self.escape)
        return codes

    def _fill(self, codes: NDArray, values: NDArray, end: int, source: TensorSource) -> None:
        """Set the codes behind the last entry, as many as `codes` and `values` have places for; `end`: the position
        after that entry.

        Each moves on by the escape. Where it falls on a zero (beyond the end positions begin at 0 again) it is an
        escape, which puts the filler there; on a kept entry it is the code below, which puts that entry there again.
        No zero is among the values that way; those without a code repeat the last one.
        """
        start = _first(source, self.escape * codes.size)
        stored = 0
        for turn in range(codes.size):
            position = end + (turn + 1) * self.escape - 1
            entry = start[position % source.size] if position >= source.size else start[0] * 0
            if entry:
                codes[turn] -= 1
                values[stored] = entry
                stored += 1

    def decode(self, tensors: Sequence[NDArray], spare: int = 0) -> NDArray:
        """The tensor, from (gaps, powers, values, shape). Raises EncodeError when they do not fit together."""
        rows, values, shape = bits.checked_inputs(self.op_type, "gaps", tensors)
        size = math.prod(shape)
        patterns = bits_of(values)
        damaged = EncodeError(
            f"{self.op_type}: {rows.size} bytes of codes do not fit {patterns.size - 1} values in shape {list(shape)}; "
            "the file is damaged"
        )
        if rows.shape[0] != self.width:
            raise damaged
        end = size + _FILL * self.escape
        flat = np.full(size, patterns[0])
        stored, beyond = 1, 0
        for positions in self._positions(rows):
            beyond += int(np.count_nonzero(positions >= size))
            if stored + positions.size > patterns.size or positions[-1] >= end or beyond > _FILL:
                raise damaged
            flat[positions % size if positions[-1] >= size else positions] = patterns[stored : stored + positions.size]
            stored += positions.size
        if not stored <= patterns.size <= stored + _FILL + spare:
            raise damaged
        return flat.view(values.dtype).reshape(shape)

    def _positions(self, rows: NDArray) -> Iterator[NDArray]:
        """Positions of the stored entries in the flat tensor, int64, chunk by chunk."""
        end = 0
        for start in range(0, rows.shape[1], CHUNK // 8):
            codes = bits.unpack(rows[:, start : start + CHUNK // 8])
            keep = codes != self.escape
            ends = end + np.cumsum(codes + keep.view(np.uint8), dtype=np.int64)
            end = int(ends[-1])
            if np.any(keep):
                yield ends[keep] - 1

    def function(self, opset: int) -> onnx.FunctionProto:
        """`DecodeGaps`; see `Scheme.function`."""
        body = functions.SIZE + functions.ZERO + _STEPS + functions.STORED + functions.FILL + functions.SCATTER
        return functions.function_from_text(_SIGNATURE, body, _DOC, opset)


def _first(source: TensorSource, number: int) -> NDArray:
    """The bit patterns of the first entries of `source`, at most `number`."""
    found = np.empty(0, f"u{source.dtype.itemsize}")
    for chunk in source.chunks():
        found = np.concatenate((found, bits_of(chunk[: number - found.size])))
        if found.size == number:
            break
    return found
