"""Bitmask: the non-zero entries, and one bit an entry that says whether it is one of them.

It costs the same at every density, which makes it the smallest index above a density of about 0.25.
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
from .limits import Support, basic_support, bfloat16_support, require_encodable
from .scheme import Encoded, Layout, shape_layout, shape_tensor

_SIGNATURE = "DecodeBitmask (mask, powers, values, shape) => (weight)"

_DOC = """Version 1. A bit of {mask} ({powers}) an entry: 1 is the next of {values}, 0 the filler, {values}[0]."""

_KEEP = """
  back = Constant <value = int32 {-1}> ()
  every = onnxprune.ReadBits (mask, powers)
  keep = Slice (every, zero, size)
"""

_SHAPED = """
  weight = Reshape (got, shape)
"""


@dataclass(frozen=True)
class Bitmask:
    """One bit an entry, and the kept entries."""

    @property
    def name(self) -> str:
        """`bitmask`."""
        return "bitmask"

    @property
    def op_type(self) -> str:
        """`DecodeBitmask`."""
        return "DecodeBitmask"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the decoder node's input order."""
        return ("mask", "powers", "values", "shape")

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """All encodable dtypes; bfloat16 from opset 13 on."""
        return basic_support(shape, dtype, opset) and bfloat16_support(dtype, opset)

    @property
    def stores_zeros(self) -> bool:
        """No: only kept entries."""
        return False

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """The mask uint8 [1, ceil(size / 8), 1], powers uint8 [1], values [1 + kept], shape int64 [rank]."""
        return (
            bits.rows_layout(counts.size, 1),
            bits.powers_layout(1),
            Layout(counts.dtype, (1 + counts.kept,)),
            shape_layout(counts.shape),
        )

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs the encoded tensor beside the chunk."""
        require_encodable(self.name, source)
        counts = counts_of(source, counts)
        mask = np.zeros(-(-source.size // 8), np.uint8)
        values = np.zeros(1 + counts.kept, source.dtype)
        stored, byte = 1, 0
        left_over = np.zeros(0, np.bool_)  # bits of the byte that the chunk before did not fill
        for chunk in source.chunks():
            keep = bits_of(chunk) != 0
            entries = chunk[np.flatnonzero(keep)]
            if stored + entries.size > values.size:
                raise changed()
            values[stored : stored + entries.size] = entries
            stored += entries.size
            if left_over.size:
                keep = np.concatenate((left_over, keep))
            whole = keep.size // 8
            mask[byte : byte + whole] = np.packbits(keep[: whole * 8], bitorder="little")
            byte, left_over = byte + whole, keep[whole * 8 :]
        mask[byte:] = np.packbits(left_over, bitorder="little")
        if stored != values.size:
            raise changed()
        inputs = (mask.reshape(1, -1, 1), bits.powers(1), values, shape_tensor(source.shape))
        return Encoded(self.name, inputs, source.shape, source.dtype)

    def decode(self, tensors: Sequence[NDArray], spare: int = 0) -> NDArray:
        """The tensor, from (mask, powers, values, shape). Raises EncodeError when they do not fit together."""
        rows, values, shape = bits.checked_inputs(self.op_type, "mask", tensors)
        size, mask = math.prod(shape), rows[0, :, 0]
        patterns = bits_of(values)
        damaged = EncodeError(
            f"{self.op_type}: {rows.size} mask bytes do not fit {patterns.size - 1} values in shape {list(shape)}; "
            "the file is damaged"
        )
        if rows.shape[0] != 1 or mask.size != -(-size // 8) or (size % 8 and mask[-1] >> size % 8):
            raise damaged
        flat = np.full(size, patterns[0])
        stored = 1
        for start in range(0, size, CHUNK):
            positions = np.flatnonzero(np.unpackbits(mask[start // 8 : (start + CHUNK) // 8], bitorder="little"))
            if stored + positions.size > patterns.size:
                raise damaged
            flat[start + positions] = patterns[stored : stored + positions.size]
            stored += positions.size
        if not stored <= patterns.size <= stored + spare:
            raise damaged
        return flat.view(values.dtype).reshape(shape)

    def function(self, opset: int) -> onnx.FunctionProto:
        """`DecodeBitmask`; see `Scheme.function`."""
        body = functions.SIZE + functions.ZERO + _KEEP + functions.STORED + _SHAPED
        return functions.function_from_text(_SIGNATURE, body, _DOC, opset)
