"""Plain indices: the position of each kept entry, four bytes each.

The least index where hardly anything is kept, below a density of about 0.0003: there the unary part of a Rice code,
whose rests have 8 bits at most, is longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ..arrays import NDArray, TensorSource, bits_of
from ..errors import EncodeError
from . import functions
from .counts import Counts, changed, counts_of, kept_runs
from .limits import Support, basic_support, require_encodable
from .scheme import Encoded, Layout, check_values, dims_of, shape_layout, shape_tensor

_SIGNATURE = "DecodeIndices (indices, values, shape) => (weight)"

_DOC = """Version 1. {indices}: where each of {values} but the first goes; that is the filler."""

_BODY = """
  one = Constant <value = int64[1] {1}> ()
  number = Shape (indices)
  end = Add (number, one)
  got = Slice (values, one, end)
  fill = Gather (values, zero)
  empty = Expand (fill, size)
  all = ScatterElements (empty, indices, got)
  weight = Reshape (all, shape)
"""


@dataclass(frozen=True)
class Indices:
    """An int32 for each kept entry."""

    @property
    def name(self) -> str:
        """`indices`."""
        return "indices"

    @property
    def op_type(self) -> str:
        """`DecodeIndices`."""
        return "DecodeIndices"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the decoder node's input order."""
        return ("indices", "values", "shape")

    @property
    def stores_zeros(self) -> bool:
        """No: only kept entries."""
        return False

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """All encodable dtypes but bfloat16, for the reason that gap codes have."""
        if dtype == np.dtype(ml_dtypes.bfloat16):
            return Support("onnxruntime's CPU provider has no bfloat16 Expand, which index decoders need; use bitmask")
        return basic_support(shape, dtype, opset)

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """The indices int32 [kept], values [1 + kept], shape int64 [rank]."""
        indices = Layout(np.dtype(np.int32), (counts.kept,))
        return indices, Layout(counts.dtype, (1 + counts.kept,)), shape_layout(counts.shape)

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs the encoded tensor beside the chunk."""
        require_encodable(self.name, source)
        counts = counts_of(source, counts)
        indices = np.zeros(counts.kept, np.int32)
        values = np.zeros(1 + counts.kept, source.dtype)
        stored, end = 0, 0
        for gaps, entries in kept_runs(source):
            if stored + entries.size > counts.kept:
                raise changed()
            ends = end + np.cumsum(gaps + np.uint32(1), dtype=np.int64)
            indices[stored : stored + entries.size] = ends - 1
            values[1 + stored : 1 + stored + entries.size] = entries
            stored, end = stored + entries.size, int(ends[-1])
        if stored != counts.kept:
            raise changed()
        return Encoded(self.name, (indices, values, shape_tensor(source.shape)), source.shape, source.dtype)

    def decode(self, tensors: Sequence[NDArray], spare: int = 0) -> NDArray:
        """The tensor, from (indices, values, shape). Raises EncodeError when they do not fit together."""
        if len(tensors) != len(self.suffixes):
            raise EncodeError(f"{self.op_type}: found {len(tensors)} inputs, expected {', '.join(self.suffixes)}")
        indices, values, dims = tensors
        check_values(self.op_type, values)
        shape = dims_of(self.op_type, dims)
        size, patterns = math.prod(shape), bits_of(values)
        rising = indices.dtype == np.int32 and indices.ndim == 1 and bool(np.all(np.diff(indices) > 0))
        inside = rising and (not indices.size or (indices[0] >= 0 and indices[-1] < size))
        if not inside or not 1 + indices.size <= patterns.size <= 1 + indices.size + spare:
            found = f"indices {indices.dtype} {list(indices.shape)} and {patterns.size - 1} values"
            raise EncodeError(f"{self.op_type}: {found} do not fit in shape {list(shape)}; the file is damaged")
        flat = np.full(size, patterns[0])
        flat[indices] = patterns[1 : 1 + indices.size]
        return flat.view(values.dtype).reshape(shape)

    def function(self, opset: int) -> onnx.FunctionProto:
        """`DecodeIndices`; see `Scheme.function`."""
        return functions.function_from_text(_SIGNATURE, functions.SIZE + functions.ZERO + _BODY, _DOC, opset)
