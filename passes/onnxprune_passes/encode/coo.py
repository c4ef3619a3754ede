"""The standard's own sparse tensors: `sparse_initializer` and Constant(sparse_value), INT64 positions of the kept
entries.

For export on request. onnxruntime makes them dense at load; the checker's full check fails on most graphs that have
them, and several tools drop or refuse them. They pay above a sparsity of 2/3 in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..arrays import NDArray, TensorSource, bits_of
from ..errors import EncodeError
from .scheme import Counts, Support, basic_support

NAME = "coo"
_OVERHEAD = 32
"""Bytes of names, dims and framing beside the payloads, about."""


def supports(shape: tuple[int, ...], dtype: np.dtype[Any], opset: int) -> Support:
    """Like the other schemes; Constant(sparse_value) came with ai.onnx 11 too."""
    return basic_support(shape, dtype, opset)


def nbytes(name: str, counts: Counts) -> int:
    """File bytes of the sparse tensor, about."""
    return counts.kept * (counts.dtype.itemsize + 8) + len(name) + _OVERHEAD


def sparse_tensor(name: str, source: TensorSource) -> onnx.SparseTensorProto:
    """`source` as a sparse tensor: its entries whose bit pattern is not zero, with their flat positions."""
    positions, values, start = [], [], 0
    for chunk in source.chunks():
        kept = np.flatnonzero(bits_of(chunk))
        positions.append(kept + start)
        values.append(chunk[kept])
        start += chunk.size
    sparse = onnx.SparseTensorProto(dims=source.shape)
    data_type = helper.np_dtype_to_tensor_dtype(source.dtype)
    entries = np.concatenate(values)
    sparse.values.CopyFrom(
        onnx.TensorProto(name=name, dims=entries.shape, data_type=data_type, raw_data=entries.tobytes())
    )
    indices = np.concatenate(positions).astype(np.int64)
    raw = indices.tobytes()
    sparse.indices.CopyFrom(onnx.TensorProto(dims=indices.shape, data_type=onnx.TensorProto.INT64, raw_data=raw))
    return sparse


def dense_array(sparse: onnx.SparseTensorProto) -> NDArray:
    """The dense tensor of a standard sparse one, positions flat [n] or by coordinate [n, rank].

    Raises:
        EncodeError: positions lie outside the tensor, or do not number the values.
    """
    shape = tuple(sparse.dims)
    values = numpy_helper.to_array(sparse.values)
    positions = numpy_helper.to_array(sparse.indices)
    if positions.ndim == 2 and positions.shape[1] == len(shape):
        positions = positions @ np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64)
    size = math.prod(shape)
    fits = positions.shape == values.shape and (not positions.size or (positions.min() >= 0 and positions.max() < size))
    if not fits:
        raise EncodeError(
            f"sparse tensor {sparse.values.name!r}: positions {list(positions.shape)} do not fit {values.size} values "
            f"in shape {list(shape)}; the file is damaged"
        )
    flat = np.zeros(size, values.dtype)
    flat[positions] = values
    return flat.reshape(shape)
