"""What an encoded tensor adds to a model, as protobuf messages, and how many bytes each of them takes in the file.

A message inside another is written as tag, length (a varint), content; a tag takes one byte up to field 15, two above.
Sizes here are exact but for one thing: the length of the graph itself is a varint too, and can change by a byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..arrays import NDArray
from .functions import DOMAIN, DOMAIN_VERSION
from .limits import DTYPES

MIN_IR_VERSION = 8
"""Model-local functions came with IR version 8."""

_INTEGERS: Mapping[np.dtype[Any], int] = {
    np.dtype(np.int64): onnx.TensorProto.INT64,
    np.dtype(np.int32): onnx.TensorProto.INT32,
}


def _header(name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> onnx.TensorProto:
    data_type = {**DTYPES, **_INTEGERS}[dtype]
    return onnx.TensorProto(dims=list(shape), data_type=data_type, name=name)


def tensor_proto(name: str, array: NDArray) -> onnx.TensorProto:
    """A tensor of int64, as varints, or of a dtype in `DTYPES`, as little-endian `raw_data`."""
    tensor = _header(name, array.shape, array.dtype)
    if array.dtype == np.int64:
        tensor.int64_data.extend(array.reshape(-1).tolist())
        return tensor
    tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return tensor


def domain_import() -> onnx.OperatorSetIdProto:
    """What a model that has decoder nodes must import beside ai.onnx."""
    return helper.make_opsetid(DOMAIN, DOMAIN_VERSION)


def varint_nbytes(value: int) -> int:
    """Bytes of a non-negative integer as a protobuf varint: seven bits a byte, at least one."""
    return max(1, -(-value.bit_length() // 7))


def framed_nbytes(content: int, field: int) -> int:
    """Bytes of a message or byte string of `content` bytes as the field number `field` of another message."""
    return varint_nbytes(field << 3) + varint_nbytes(content) + content


def _number(message: type[Any], field: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field].number)


_RAW_DATA = _number(onnx.TensorProto, "raw_data")
_INITIALIZER = _number(onnx.GraphProto, "initializer")
_NODE = _number(onnx.GraphProto, "node")
_FUNCTIONS = _number(onnx.ModelProto, "functions")
_OPSET_IMPORT = _number(onnx.ModelProto, "opset_import")


def tensor_nbytes(name: str, shape: Sequence[int], dtype: np.dtype[Any], numbers: Sequence[int] = ()) -> int:
    """Bytes that an initializer (see `tensor_proto`) adds to a graph; `numbers`: what it holds as varints, if any."""
    header = _header(name, shape, dtype).ByteSize()
    if numbers:
        return framed_nbytes(header + onnx.TensorProto(int64_data=numbers).ByteSize(), _INITIALIZER)
    raw = math.prod(shape) * dtype.itemsize
    return framed_nbytes(header + framed_nbytes(raw, _RAW_DATA), _INITIALIZER)


def node_nbytes(node: onnx.NodeProto) -> int:
    """Bytes that a node adds to a graph."""
    return framed_nbytes(node.ByteSize(), _NODE)


def function_nbytes(function: onnx.FunctionProto) -> int:
    """Bytes that a function adds to a model, once for all weights that need it."""
    return framed_nbytes(function.ByteSize(), _FUNCTIONS)


def import_nbytes() -> int:
    """Bytes that importing the domain adds to a model, once for all schemes."""
    return framed_nbytes(domain_import().ByteSize(), _OPSET_IMPORT)
