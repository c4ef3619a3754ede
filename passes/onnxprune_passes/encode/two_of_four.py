"""2 of 4: of each four consecutive entries of the flat tensor three bits say which are kept, and parity says the rest.

In a 2:4 pattern (Mishra et al. 2021, "Accelerating sparse deep neural networks", section 3) two of four are kept, so
that three bits of the mask give the fourth. It is the one that makes the number of ones even, so that groups with none
and with four kept entries need no more. In a group with one or three, one zero is stored among the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..arrays import CHUNK, NDArray, TensorSource, bits_of
from ..errors import EncodeError
from . import bits, functions
from .counts import Counts, changed, counts_of
from .limits import Support, basic_support, bfloat16_support, require_encodable, whole_runs_support
from .patterns import aligned
from .scheme import Encoded, Layout, shape_layout, shape_tensor

_SIGNATURE = "Decode2Of4 (mask, powers, values, shape) => (weight)"

_DOC = """Version 1. Of 4 bits {mask} ({powers}) has 3, the last makes 1s even: 1 is the next of {values}, 0 the \
filler, {values}[0]."""

_FOUR = 4
_WIDTH = 3
_EVEN = ("0000", "1001", "0101", "1100", "0011", "1010", "0110", "1111")
"""Code → which of four entries have a value; the code has the first three as bits, the first the lowest."""

_KEEP = f"""
  back = Constant <value = int32 {{-1}}> ()
  four = Constant <value = int64 {{{_FOUR}}}> ()
  groups = Div (size, four)
  every = onnxprune.ReadBits (mask, powers)
  code = Slice (every, zero, groups)
  even = Constant <value = int32[8, 4] {{{", ".join("".join(_EVEN))}}}> ()
  group = Gather (even, code)
  keep = Flatten <axis = 0> (group)
"""

_SHAPED = """
  weight = Reshape (got, shape)
"""

_PUT = np.array([[digit == "1" for digit in group] for group in _EVEN])
"""Code → which of four entries have a value, bool [8, 4]."""


def _stored(mask: int) -> int:
    """The smallest set of entries with an even number that holds those of `mask`, four bits, the first the lowest."""
    if mask.bit_count() % 2 == 0:
        return mask
    return next(mask | 1 << bit for bit in (3, 0, 1, 2) if not mask >> bit & 1)


_STORED = np.array([_stored(byte & 15) | _stored(byte >> 4) << 4 for byte in range(256)], np.uint8)
"""Which of eight entries are kept, a bit each → which of them have a value."""


@dataclass(frozen=True)
class TwoOfFour:
    """Three bits for four entries, and an even number of values."""

    @property
    def name(self) -> str:
        """`2of4`."""
        return "2of4"

    @property
    def op_type(self) -> str:
        """`Decode2Of4`."""
        return "Decode2Of4"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the decoder node's input order."""
        return ("mask", "powers", "values", "shape")

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """Sizes that are a multiple of 4, of all encodable dtypes; bfloat16 from opset 13 on."""
        support = basic_support(shape, dtype, opset) and bfloat16_support(dtype, opset)
        return support and whole_runs_support(shape, _FOUR)

    @property
    def stores_zeros(self) -> bool:
        """Yes, where one or three of four are kept."""
        return True

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """The mask uint8 [3, ceil(size / 32), 1], powers uint8 [3], values [1 + kept + groups with 1 or 3 of them],
        shape int64 [rank].
        """
        return (
            bits.rows_layout(counts.size // _FOUR, _WIDTH),
            bits.powers_layout(_WIDTH),
            Layout(counts.dtype, (1 + counts.kept + counts.patterns.odd_fours,)),
            shape_layout(counts.shape),
        )

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs the encoded tensor and a byte a group beside the chunk."""
        require_encodable(self.name, source)
        if not (support := whole_runs_support(source.shape, _FOUR)):
            raise EncodeError(f"{self.name}: {support.reason}; choose another encoding")
        counts = counts_of(source, counts)
        codes = np.zeros(bits.padded(source.size // _FOUR), np.uint8)
        values = np.zeros(1 + counts.kept + counts.patterns.odd_fours, source.dtype)
        stored, place = 1, 0
        for piece in aligned(source, 2 * _FOUR):
            put = _STORED[np.packbits(bits_of(piece) != 0, bitorder="little")]
            entries = piece[np.flatnonzero(np.unpackbits(put, bitorder="little"))]
            if stored + entries.size > values.size:
                raise changed()
            values[stored : stored + entries.size] = entries
            stored += entries.size
            codes[place : place + 2 * put.size : 2] = put & 7
            codes[place + 1 : place + 2 * put.size : 2] = put >> 4 & 7
            place += 2 * put.size
        if stored != values.size:
            raise changed()
        inputs = (bits.pack(codes, _WIDTH), bits.powers(_WIDTH), values, shape_tensor(source.shape))
        return Encoded(self.name, inputs, source.shape, source.dtype)

    def decode(self, tensors: Sequence[NDArray], spare: int = 0) -> NDArray:
        """The tensor, from (mask, powers, values, shape). Raises EncodeError when they do not fit together."""
        rows, values, shape = bits.checked_inputs(self.op_type, "mask", tensors)
        size, patterns = math.prod(shape), bits_of(values)
        damaged = EncodeError(
            f"{self.op_type}: {rows.size} mask bytes do not fit {patterns.size - 1} values in shape {list(shape)}; "
            "the file is damaged"
        )
        if rows.shape[0] != _WIDTH or size % _FOUR or 8 * rows.shape[1] != bits.padded(size // _FOUR):
            raise damaged
        codes, beyond = np.split(bits.unpack(rows), [size // _FOUR])
        if np.any(beyond):
            raise damaged
        flat = np.full(size, patterns[0])
        stored = 1
        for start in range(0, size, CHUNK):
            positions = start + np.flatnonzero(_PUT[codes[start // _FOUR : (start + CHUNK) // _FOUR]])
            if stored + positions.size > patterns.size:
                raise damaged
            flat[positions] = patterns[stored : stored + positions.size]
            stored += positions.size
        if not stored <= patterns.size <= stored + spare:
            raise damaged
        return flat.view(values.dtype).reshape(shape)

    def function(self, opset: int) -> onnx.FunctionProto:
        """`Decode2Of4`; see `Scheme.function`."""
        body = functions.SIZE + functions.ZERO + _KEEP + functions.STORED + _SHAPED
        return functions.function_from_text(_SIGNATURE, body, _DOC, opset)
