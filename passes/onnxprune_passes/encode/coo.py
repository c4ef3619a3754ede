"""The standard's own sparse tensors: `sparse_initializer` and Constant(sparse_value), INT64 positions of the kept
entries.

For export on request. onnxruntime makes them dense at load; the checker's full check fails on most graphs that have
them, and several tools drop or refuse them. They pay above a sparsity of 2/3 in float32.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..arrays import NDArray, TensorSource, bits_of
from ..errors import EncodeError
from ..storage import stubs
from . import protos
from .counts import Counts

NAME = "coo"
MIN_IR_VERSION = 5
"""Sparse tensors came with IR version 5."""
_SPARSE_INITIALIZER: int = onnx.GraphProto.DESCRIPTOR.fields_by_name["sparse_initializer"].number


def nbytes(name: str, counts: Counts) -> int:
    """File bytes of the sparse tensor as a sparse_initializer, within a few."""
    values = protos.tensor_nbytes(name, (counts.kept,), counts.dtype)
    positions = protos.tensor_nbytes("", (counts.kept,), np.dtype(np.int64))
    dims = onnx.SparseTensorProto(dims=counts.shape).ByteSize()
    return protos.framed_nbytes(values + positions + dims, _SPARSE_INITIALIZER)


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


def dense_array(key: str, sparse: onnx.SparseTensorProto) -> NDArray:
    """The dense tensor of a standard sparse one, positions flat [n] or by coordinate [n, rank].

    Raises:
        EncodeError: positions lie outside the tensor, or do not number the values; or one of them cannot be read.
    """
    shape = tuple(sparse.dims)
    values, positions = _read(key, sparse.values), _read(key, sparse.indices)
    damaged = EncodeError(
        f"sparse tensor {key!r}: positions {positions.dtype} {list(positions.shape)} do not fit {values.size} values "
        f"in shape {list(shape)}; the file is damaged"
    )
    if positions.dtype != np.int64 or values.ndim != 1 or any(dim < 0 for dim in shape):
        raise damaged
    limits = np.array(shape if positions.ndim == 2 else [math.prod(shape)], np.int64)
    table = positions if positions.ndim == 2 else positions.reshape(-1, 1)
    if table.shape != (values.size, limits.size) or np.any(table < 0) or np.any(table >= limits):
        raise damaged
    flat = np.zeros(math.prod(shape), values.dtype)
    flat[np.ravel_multi_index(tuple(table.T), tuple(limits)) if limits.size else 0] = values
    return flat.reshape(shape)


def _read(key: str, tensor: onnx.TensorProto) -> NDArray:
    """The numbers of one part of the sparse tensor `key`."""
    if stubs.dtype_from_onnx(tensor.data_type) is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise EncodeError(
            f"sparse tensor {key!r}: its numbers are of type {tensor.data_type}, or in another file, and cannot be read"
        )
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise EncodeError(
            f"sparse tensor {key!r}: what is stored does not fit dims {list(tensor.dims)}; the file is damaged"
        ) from error
