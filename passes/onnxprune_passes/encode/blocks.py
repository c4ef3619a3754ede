"""Blocks: runs of consecutive entries of the flat tensor, one bit a run, those with a kept entry stored whole.

For nets pruned in blocks along the last axis. Of other tensors too many zeros are among the values. How long a block is
stands in the data, so that one function serves every length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..arrays import NDArray, TensorSource, bits_of
from ..errors import EncodeError
from . import bits, functions
from .counts import Counts, changed, counts_of
from .limits import Support, basic_support, bfloat16_support, require_encodable, whole_runs_support
from .patterns import aligned
from .scheme import Encoded, Layout, check_values, dims_of, shape_layout, shape_tensor

_SIGNATURE = "DecodeBlocks (mask, powers, table, values, shape) => (weight)"

_DOC = """Version 1. {values} has blocks, {table} their number and length: a filler, and one for each 1 of {mask} \
({powers})."""

_BODY = """
  back = Constant <value = int32 {-1}> ()
  width = Gather (table, back)
  number = Div (size, width)
  every = onnxprune.ReadBits (mask, powers)
  keep = Slice (every, zero, number)
  rank = CumSum (keep, back)
  order = Mul (rank, keep)
  end = ReduceProd (table)
  used = Slice (values, zero, end)
  rows = Reshape (used, table)
  got = Gather (rows, order)
  weight = Reshape (got, shape)
"""


@dataclass(frozen=True)
class Blocks:
    """One bit for each block of `width` entries, and the blocks that have a kept one."""

    width: int

    @property
    def name(self) -> str:
        """`blocks4` or the like."""
        return f"blocks{self.width}"

    @property
    def op_type(self) -> str:
        """`DecodeBlocks`."""
        return "DecodeBlocks"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the decoder node's input order."""
        return ("mask", "powers", "table", "values", "shape")

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """Sizes that are a multiple of the block, of all encodable dtypes; bfloat16 from opset 13 on."""
        support = basic_support(shape, dtype, opset) and bfloat16_support(dtype, opset)
        return support and whole_runs_support(shape, self.width)

    @property
    def stores_zeros(self) -> bool:
        """Yes: those beside a kept entry."""
        return True

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """The mask uint8 [1, ceil(blocks / 8), 1], powers uint8 [1], table int64 [2], values [table[0] × table[1]],
        shape int64 [rank]; table is (1 + kept blocks, entries of a block).
        """
        stored = 1 + counts.patterns.blocks[self.width]
        return (
            bits.rows_layout(counts.size // self.width, 1),
            bits.powers_layout(1),
            Layout(np.dtype(np.int64), (2,), (stored, self.width)),
            Layout(counts.dtype, (stored * self.width,)),
            shape_layout(counts.shape),
        )

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs the encoded tensor and a byte a block beside the chunk."""
        require_encodable(self.name, source)
        if not (support := whole_runs_support(source.shape, self.width)):
            raise EncodeError(f"{self.name}: {support.reason}; choose another encoding")
        counts = counts_of(source, counts)
        mask = np.zeros(source.size // self.width, np.uint8)
        table = np.zeros((1 + counts.patterns.blocks[self.width], self.width), source.dtype)
        stored, place = 1, 0
        for piece in aligned(source, self.width):
            blocks = piece.reshape(-1, self.width)
            taken = np.any(bits_of(blocks) != 0, axis=1)
            found = blocks[taken]
            if stored + len(found) > len(table):
                raise changed()
            table[stored : stored + len(found)] = found
            mask[place : place + len(blocks)] = taken
            stored, place = stored + len(found), place + len(blocks)
        if stored != len(table):
            raise changed()
        index = (bits.pack(mask, 1), bits.powers(1), np.array(table.shape, np.int64))
        return Encoded(self.name, (*index, table.reshape(-1), shape_tensor(source.shape)), source.shape, source.dtype)

    def decode(self, tensors: Sequence[NDArray], spare: int = 0) -> NDArray:
        """The tensor, from (mask, powers, table, values, shape), with blocks as long as `table` says. Raises
        EncodeError when they do not fit together.
        """
        if len(tensors) != len(self.suffixes):
            raise EncodeError(
                f"{self.op_type}: found {len(tensors)} inputs, expected 5 ({', '.join(self.suffixes)}); it is damaged"
            )
        rows, given, dims, values, shape_part = tensors
        bits.checked(self.op_type, "mask", rows, given)
        check_values(self.op_type, values)
        stored, width = _table(self.op_type, dims, values, spare)
        shape = dims_of(self.op_type, shape_part)
        number = math.prod(shape) // width
        mask = bits.unpack(rows[:1])
        whole = rows.shape[0] == 1 and math.prod(shape) == number * width and mask.size == bits.padded(number)
        if not whole or np.any(mask[number:]) or np.count_nonzero(mask) != stored - 1:
            raise EncodeError(
                f"{self.op_type}: {rows.size} mask bytes do not fit {stored - 1} blocks of {width} in shape "
                f"{list(shape)}; the file is damaged"
            )
        order = np.cumsum(mask[:number], dtype=np.int32) * mask[:number]
        flat: NDArray = values[: stored * width].reshape(stored, width)[order]
        return flat.reshape(shape)

    def function(self, opset: int) -> onnx.FunctionProto:
        """`DecodeBlocks`; see `Scheme.function`."""
        return functions.function_from_text(_SIGNATURE, functions.SIZE + functions.ZERO + _BODY, _DOC, opset)


def _table(op_type: str, dims: NDArray, values: NDArray, spare: int) -> tuple[int, int]:
    """How many blocks there are, the filler included, and how long they are. Raises EncodeError when `values`, of
    which up to `spare` are not used, have not so many entries.
    """
    if dims.dtype != np.int64 or dims.shape != (2,):
        raise EncodeError(f"{op_type}: table is {dims.dtype} {list(dims.shape)}, expected int64 [2]; it is damaged")
    stored, width = dims.tolist()
    if stored < 1 or width < 1 or not stored * width <= values.size <= stored * width + spare:
        raise EncodeError(f"{op_type}: {values.size} values are not {stored} blocks of {width}; the file is damaged")
    return stored, width
