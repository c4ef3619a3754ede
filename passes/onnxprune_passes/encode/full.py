"""Full: every entry is a value, zeros too. For dense tensors whose values a value scheme makes smaller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..arrays import NDArray, TensorSource
from ..errors import EncodeError
from . import functions
from .counts import Counts, changed, counts_of
from .limits import Support, basic_support, bfloat16_support, require_encodable
from .scheme import VALUES, Encoded, Layout, check_values, dims_of, shape_layout, shape_tensor

_SIGNATURE = "DecodeFull (values, shape) => (weight)"

_DOC = """Version 1. {values}: a filler that is not used, and every entry."""

_BODY = """
  one = Constant <value = int64[1] {1}> ()
  end = Add (size, one)
  flat = Slice (values, one, end)
  weight = Reshape (flat, shape)
"""


@dataclass(frozen=True)
class Full:
    """All entries in order."""

    @property
    def name(self) -> str:
        """`full`."""
        return "full"

    @property
    def op_type(self) -> str:
        """`DecodeFull`."""
        return "DecodeFull"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the names of the decoder node's inputs."""
        return (VALUES, "shape")

    @property
    def stores_zeros(self) -> bool:
        """Yes."""
        return True

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """All encodable dtypes; bfloat16 from opset 13 on."""
        return basic_support(shape, dtype, opset) and bfloat16_support(dtype, opset)

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """The values [1 + size], shape int64 [rank]."""
        return Layout(counts.dtype, (1 + counts.size,)), shape_layout(counts.shape)

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs a copy of it."""
        require_encodable(self.name, source)
        counts_of(source, counts)
        values = np.zeros(1 + source.size, source.dtype)
        stored = 1
        for chunk in source.chunks():
            if stored + chunk.size > values.size:
                raise changed()
            values[stored : stored + chunk.size] = chunk
            stored += chunk.size
        return Encoded(self.name, (values, shape_tensor(source.shape)), source.shape, source.dtype)

    def decode(self, tensors: Sequence[NDArray], spare: int = 0) -> NDArray:
        """The tensor, from (values, shape). Raises EncodeError when they do not fit together."""
        if len(tensors) != 2:
            raise EncodeError(f"{self.op_type}: found {len(tensors)} inputs, expected 2 (values, shape)")
        values, dims = tensors
        check_values(self.op_type, values)
        shape = dims_of(self.op_type, dims)
        size = math.prod(shape)
        if not 1 + size <= values.size <= 1 + size + spare:
            raise EncodeError(
                f"{self.op_type}: {values.size - 1} values do not fit in shape {list(shape)}; the file is damaged"
            )
        return values[1 : 1 + size].reshape(shape)

    def function(self, opset: int) -> onnx.FunctionProto:
        """`DecodeFull`; see `Decodable.function`."""
        return functions.function_from_text(_SIGNATURE, functions.SIZE + _BODY, _DOC, opset)
