"""What can be encoded at all: dtypes, sizes, opsets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ..arrays import TensorSource
from ..errors import EncodeError

FIRST_OPSET = 11
"""CumSum, which every decoder needs, came with ai.onnx 11."""

FIRST_BFLOAT16_OPSET = 13
"""Cast, Gather and Reshape take bfloat16 from ai.onnx 13 on."""

MAX_SIZE = 2**31 - 4096
"""Most entries a tensor may have: decoders count positions in int32, and codes that fill up a byte, up to 8 in a Rice
code that move on by up to 256, lie past the end.

int64 would double the memory of decoding for tensors that no protobuf file holds dense anyway (8 GB of float32).
"""

DTYPES: Mapping[np.dtype[Any], int] = {
    np.dtype(np.float32): onnx.TensorProto.FLOAT,
    np.dtype(np.float16): onnx.TensorProto.FLOAT16,
    np.dtype(np.float64): onnx.TensorProto.DOUBLE,
    np.dtype(ml_dtypes.bfloat16): onnx.TensorProto.BFLOAT16,
    np.dtype(np.int8): onnx.TensorProto.INT8,
    np.dtype(np.uint8): onnx.TensorProto.UINT8,
}
"""The dtypes of a weight that can be encoded, with their ONNX element types."""


@dataclass(frozen=True)
class Support:
    """Whether something can be done: true with an empty `reason`, false with a reason to show."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


def basic_support(shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
    """What no scheme here can store: other dtypes, no entries, too many entries, an opset below `FIRST_OPSET`."""
    size = math.prod(shape)
    if not shape:
        return Support("it has no axis: one number is not worth encoding")
    if dtype not in DTYPES:
        return Support(f"dtype {dtype} cannot be encoded; those that can are {', '.join(map(str, DTYPES))}")
    if size == 0:
        return Support(f"shape {list(shape)} has no entries: there is nothing to store")
    if size > MAX_SIZE:
        return Support(f"shape {list(shape)} has {size} entries; decoders count in int32, up to {MAX_SIZE}")
    if opset < FIRST_OPSET:
        return Support(f"the model's ai.onnx opset is {opset}; decoders need {FIRST_OPSET}: convert the model first")
    return Support()


def bfloat16_support(dtype: np.dtype[Any], opset: int) -> Support:
    """What no opset before `FIRST_BFLOAT16_OPSET` can move about: bfloat16."""
    if dtype == np.dtype(ml_dtypes.bfloat16) and opset < FIRST_BFLOAT16_OPSET:
        return Support(f"the model's ai.onnx opset is {opset}; bfloat16 decoders need {FIRST_BFLOAT16_OPSET}")
    return Support()


def whole_runs_support(shape: Sequence[int], length: int) -> Support:
    """What cannot be cut into runs of `length` entries."""
    size = math.prod(shape)
    return Support(f"its {size} entries are no whole runs of {length}" if size % length else "")


def require_encodable(scheme: str, source: TensorSource) -> None:
    """Raise EncodeError when `source` cannot be encoded at any opset."""
    if not (support := basic_support(source.shape, source.dtype, FIRST_OPSET)):
        raise EncodeError(f"{scheme}: {support.reason}; keep the tensor dense")
