"""Rice coding of gaps: the quotient of each gap by 2^bits in unary, the rest in bits of its own.

A code for gaps that are geometrically distributed, as those of pruned weights nearly are (Golomb 1966, "Run-length
encodings"; Rice 1979, "Some practical universal noiseless coding techniques"): within 0.1 bits of the entropy of a
position. The width of the rest is in the data, so that one function serves every density.

The tensor is walked from its end, since each step then is -1 - rest, and positions are remainders by the size: no
offset is needed, and no zero in the unary code can fall outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ..arrays import CHUNK, NDArray, TensorSource, bits_of
from ..errors import EncodeError
from . import bits, functions
from .counts import REST_BITS, Counts, changed, counts_of, kept_runs
from .limits import Support, basic_support, require_encodable
from .scheme import Encoded, Layout, check_values, dims_of, shape_layout, shape_tensor

_SIGNATURE = "DecodeRice (high, low, powers, values, shape) => (weight)"

_DOC = """Version 1. Rice code of the zeros behind each of {values} ({values}[0]: filler), last first: {high} unary, \
{low} rest ({powers})."""

_STEPS = """
  back = Constant <value = int32 {-1}> ()
  rest = onnxprune.ReadBits (low, powers)
  steps = Sub (back, rest)
  one = Gather (powers, zero)
  keep = onnxprune.ReadBits (high, one)
"""
"""How far each bit moves, and the bits; the first of `powers` is 1."""

_POSITIONS = """
  step = Gather (steps, order)
  at = CumSum (step, back)
"""


@dataclass(frozen=True)
class Rice:
    """Gaps in Rice codes whose width is chosen for each tensor."""

    @property
    def name(self) -> str:
        """`rice`."""
        return "rice"

    @property
    def op_type(self) -> str:
        """`DecodeRice`."""
        return "DecodeRice"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the decoder node's input order."""
        return ("high", "low", "powers", "values", "shape")

    @property
    def stores_zeros(self) -> bool:
        """No: only kept entries."""
        return False

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """All encodable dtypes but bfloat16, for the reason that gap codes have."""
        if dtype == np.dtype(ml_dtypes.bfloat16):
            return Support("onnxruntime's CPU provider has no bfloat16 Expand, which Rice decoders need; use bitmask")
        return basic_support(shape, dtype, opset)

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """The codes: high uint8 [1, bytes, 1], low uint8 [width, bytes, 1], powers uint8 [width]; values [1 + kept +
        one for each bit that fills the last byte of high], shape int64 [rank].
        """
        return min((layout_of(counts, width) for width in REST_BITS if width), key=_nbytes)

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs the encoded tensor and some 20 bytes a kept entry."""
        require_encodable(self.name, source)
        counts = counts_of(source, counts)
        width = self.layout(counts)[1].shape[0]
        high, low, values = coded(source, counts, width)
        inputs = (high, low, bits.powers(width), values, shape_tensor(source.shape))
        return Encoded(self.name, inputs, source.shape, source.dtype)

    def decode(self, tensors: Sequence[NDArray], spare: int = 0) -> NDArray:
        """The tensor, from (high, low, powers, values, shape). Raises EncodeError when they do not fit together."""
        if len(tensors) != len(self.suffixes):
            raise EncodeError(
                f"{self.op_type}: found {len(tensors)} inputs, expected 5 ({', '.join(self.suffixes)}); it is damaged"
            )
        high, low, powers, values, dims = tensors
        rests = bits.unpack(bits.checked(self.op_type, "low", low, powers))
        return decoded(self.op_type, high, rests, values, dims, spare)

    def function(self, opset: int) -> onnx.FunctionProto:
        """`DecodeRice`; see `Scheme.function`."""
        body = (
            functions.SIZE
            + functions.ZERO
            + _STEPS
            + functions.STORED
            + _POSITIONS
            + functions.FILL
            + functions.SCATTER
        )
        return functions.function_from_text(_SIGNATURE, body, _DOC, opset)


def coded(source: TensorSource, counts: Counts, width: int) -> tuple[NDArray, NDArray, NDArray]:
    """The high and low of a tensor with rests of `width` bits, as rows, and its values; see `Rice.layout`."""
    high, low, _, places, _ = layout_of(counts, width)
    gaps, values = _from_the_end(source, counts, places.shape[0] - 1 - counts.kept)
    ends = np.cumsum((gaps[:-1] >> np.uint32(width)) + np.uint32(1), dtype=np.int64)
    used = int(ends[-1]) if ends.size else 0
    if used != counts.kept + counts.quotients[width]:
        raise changed()
    rests = np.full(8 * low.shape[1], (1 << width) - 1, np.uint8)
    rests[1 : 1 + counts.kept] = gaps[:-1] & np.uint32((1 << width) - 1)
    put = np.zeros(8 * high.shape[1], np.uint8)
    put[ends - 1] = 1
    _fill(put[used:], bits_of(values), gaps, 1 << width, counts)
    return bits.pack(put, 1), bits.pack(rests, width), values


def decoded(op_type: str, high: NDArray, rests: NDArray, values: NDArray, dims: NDArray, spare: int) -> NDArray:
    """The tensor, from the rows of high, the numbers of low, uint8 [n], and the rest of what decoders take; `spare`: as
    for `Scheme.decode`. Raises EncodeError when they do not fit together.
    """
    check_values(op_type, values)
    shape = dims_of(op_type, dims)
    bits.checked(op_type, "high", high, bits.powers(1))
    size, stored_bits, steps = math.prod(shape), bits_of(values), rests.astype(np.int64) + 1
    damaged = EncodeError(
        f"{op_type}: {high.size} bytes and {rests.size} rests do not fit {stored_bits.size - 1} values in shape "
        f"{list(shape)}; the file is damaged"
    )
    if not steps.size:
        raise damaged
    flat = np.full(size, stored_bits[0])
    stored, beyond = 1, size + 8 * int(steps[0])
    for positions in _positions(op_type, high[0, :, 0], steps):
        if stored + positions.size > stored_bits.size or positions[-1] > beyond:
            raise damaged
        flat[-positions % size] = stored_bits[stored : stored + positions.size]
        stored += positions.size
    if not stored <= stored_bits.size <= stored + 8 + spare:
        raise damaged
    return flat.view(values.dtype).reshape(shape)


def layout_of(counts: Counts, width: int) -> tuple[Layout, ...]:
    """What encoding with rests of `width` bits would build."""
    used = max(1, counts.kept + counts.quotients[width])
    spare = bits.padded(used) - used if counts.kept else 0
    return (
        bits.rows_layout(used, 1),
        bits.rows_layout(1 + counts.kept + spare, width),
        bits.powers_layout(width),
        Layout(counts.dtype, (1 + counts.kept + spare,)),
        shape_layout(counts.shape),
    )


def _nbytes(layout: tuple[Layout, ...]) -> int:
    return sum(math.prod(part.shape) * part.dtype.itemsize for part in layout)


def _from_the_end(source: TensorSource, counts: Counts, spare: int) -> tuple[NDArray, NDArray]:
    """The zeros behind each kept entry, the last entry first, and behind those the zeros before the first, uint32
    [kept + 1]; and the values: filler, kept entries in that order, and the last of them `spare` times more.
    """
    gaps = np.zeros(counts.kept + 1, np.uint32)
    values = np.zeros(1 + counts.kept + spare, source.dtype)
    left, end = counts.kept, 0
    for run, entries in kept_runs(source):
        left -= run.size
        if left < 0:
            raise changed()
        gaps[1 + left : 1 + left + run.size] = run[::-1]
        values[1 + left : 1 + left + run.size] = entries[::-1]
        end += int(np.sum(run, dtype=np.int64)) + run.size
    if left:
        raise changed()
    gaps[0] = source.size - end
    values[1 + counts.kept :] = values[counts.kept]
    return gaps, values


def _fill(put: NDArray, values: NDArray, gaps: NDArray, step: int, counts: Counts) -> None:
    """Set the bits of `high` behind the last one that is needed.

    A bit 0 moves on by `step` and puts the filler, which is right where the tensor has a zero. Where it has a kept
    entry (positions before the start are those from the end), a 1 puts that entry there once more: the numbers of
    `low` that are left over move on by as much.
    """
    near = gaps[: min(counts.kept, 8 * step)]
    behind = np.cumsum(near + np.uint32(1), dtype=np.int64)  # 1 is the last entry
    known = dict(zip((behind % counts.size).tolist(), range(1, 1 + near.size), strict=True))
    end, stored = counts.size - int(gaps[-1]), 1 + counts.kept
    for turn in range(put.size if counts.kept else 0):
        at = known.get((end + (turn + 1) * step) % counts.size)
        if at is not None:
            put[turn] = 1
            values[stored] = values[at]
            stored += 1


def _positions(op_type: str, high: NDArray, steps: NDArray) -> Iterator[NDArray]:
    """How far from the end each bit 1 of `high` [n] puts a value, 1 is the last entry; chunk by chunk."""
    end, rank = 0, 0
    for start in range(0, high.size, CHUNK // 8):
        put = np.unpackbits(high[start : start + CHUNK // 8], bitorder="little").view(np.bool_)
        order = np.where(put, rank + np.cumsum(put), 0)
        rank += int(np.count_nonzero(put))
        if rank >= steps.size:
            raise EncodeError(f"{op_type}: more bits 1 than the {steps.size} numbers of low; the file is damaged")
        ends = end + np.cumsum(steps[order])
        end = int(ends[-1])
        if np.any(put):
            yield ends[put]
