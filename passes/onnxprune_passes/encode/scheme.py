"""What an encoding scheme is, and the one pass over a tensor that all of them share.

A scheme stores a tensor as a few smaller ones (`Encoded`) and comes with an ONNX function that computes the tensor from
them. An entry is *kept* when its bit pattern is not zero: -0.0, denormals and NaN payloads are kept, so that every
scheme gives the tensor back byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import onnx

from ..arrays import NDArray, TensorSource, bits_of
from ..errors import EncodeError

FIRST_OPSET = 11
"""CumSum, which every decoder needs, came with ai.onnx 11."""

MAX_SIZE = 2**31 - 2
"""Most entries a tensor may have: decoders count positions, one past the end included, in int32.

int64 would double the memory of decoding for tensors that no protobuf file holds dense anyway (8 GB of float32).
"""

GAP_BITS = (4, 8)
"""Widths of a gap code that `count` counts escapes for; a code of b bits has the escape 2^b - 1."""

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


@dataclass(frozen=True)
class Counts:
    """What the size of a tensor's encodings depends on.

    Attributes:
        shape: dims of the tensor.
        dtype: dtype of its entries.
        kept: entries whose bit pattern is not zero.
        escapes: width of a gap code in bits → escapes that the tensor's gaps need at that width.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kept: int
    escapes: Mapping[int, int]

    @property
    def size(self) -> int:
        """Entries of the tensor."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """One initializer of an encoded tensor before it is built."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tensor as a scheme stores it.

    Attributes:
        scheme: name of the scheme.
        inputs: the arrays in the order of the decoder node's inputs; the scheme's `suffixes` name them.
        shape: dims of the decoded tensor.
        dtype: dtype of the decoded tensor.
    """

    scheme: str
    inputs: tuple[NDArray, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, without names, dims and protobuf framing."""
        return sum(array.nbytes for array in self.inputs)


class Scheme(Protocol):
    """A way to store a tensor, and the way back, in numpy and in ONNX."""

    @property
    def name(self) -> str:
        """Short name in options and reports, such as "gaps4"."""

    @property
    def op_type(self) -> str:
        """Name of the decoder function in the domain `onnxprune`."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the decoder node's input order: codes, values, shape."""

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """Whether a model of this ai.onnx opset can store a tensor so, and onnxruntime's CPU provider decode it."""

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """What `encode` would build for such a tensor, in the decoder node's input order."""

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor, read chunk by chunk. `counts`: those of this tensor, when they are known already.

        Raises EncodeError when the tensor cannot be stored so, or is not the one that was counted.
        """

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The tensor, from the decoder node's inputs in order. Raises EncodeError when they do not fit together."""

    def function(self, opset: int) -> onnx.FunctionProto:
        """The decoder for models of this ai.onnx opset. Raises EncodeError below `FIRST_OPSET`."""


def basic_support(shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
    """What no scheme here can store: other dtypes, no entries, too many entries, an opset below `FIRST_OPSET`."""
    size = math.prod(shape)
    if dtype not in DTYPES:
        return Support(f"dtype {dtype} cannot be encoded; those that can are {', '.join(map(str, DTYPES))}")
    if size == 0:
        return Support(f"shape {list(shape)} has no entries: there is nothing to store")
    if size > MAX_SIZE:
        return Support(f"shape {list(shape)} has {size} entries; decoders count in int32, up to {MAX_SIZE}")
    if opset < FIRST_OPSET:
        return Support(f"the model's ai.onnx opset is {opset}; decoders need {FIRST_OPSET}: convert the model first")
    return Support()


def require_encodable(scheme: str, source: TensorSource) -> None:
    """Raise EncodeError when `source` cannot be encoded at any opset."""
    if not (support := basic_support(source.shape, source.dtype, FIRST_OPSET)):
        raise EncodeError(f"{scheme}: {support.reason}; keep the tensor dense")


def kept_runs(source: TensorSource) -> Iterator[tuple[NDArray, NDArray]]:
    """The kept entries of each chunk that has any.

    Yields (gaps, entries), equally long: uint32, how many zeros lie between this kept entry and the one before it (in
    whatever chunk), or the start of the tensor; and the entries themselves, in the tensor's dtype.
    """
    zeros = 0
    for chunk in source.chunks():
        kept = np.flatnonzero(bits_of(chunk) != 0)
        if kept.size:
            yield (np.diff(kept, prepend=-1 - zeros) - 1).astype(np.uint32), chunk[kept]
            zeros = chunk.size - 1 - int(kept[-1])
        else:
            zeros += chunk.size


def count(source: TensorSource) -> Counts:
    """Count, in one pass, what the encoded size of a tensor depends on.

    Raises EncodeError for a tensor that `encode` refuses, unless it is one without entries.
    """
    if source.size:
        require_encodable("count", source)
    total = 0
    escapes = dict.fromkeys(GAP_BITS, 0)
    for gaps, entries in kept_runs(source):
        total += entries.size
        for bits in GAP_BITS:
            escape = np.uint32(2**bits - 1)
            escapes[bits] += int(np.sum(gaps[gaps >= escape] // escape, dtype=np.int64))
    return Counts(source.shape, source.dtype, total, escapes)


def counts_of(source: TensorSource, counts: Counts | None) -> Counts:
    """`counts`, or new ones when there are none. Raises EncodeError when they speak of another shape or dtype."""
    if counts is None:
        return count(source)
    if (counts.shape, counts.dtype) != (source.shape, source.dtype):
        raise EncodeError(
            f"counts of a {counts.dtype} tensor {list(counts.shape)} do not fit a {source.dtype} one "
            f"{list(source.shape)}; count again"
        )
    return counts


def changed() -> EncodeError:
    """The error for a tensor that does not hold what was counted."""
    return EncodeError("the tensor does not hold what was counted in it; count and encode the same values")


def shape_tensor(shape: tuple[int, ...]) -> NDArray:
    """The dims as decoders take them: int64 [rank]."""
    return np.array(shape, np.int64).reshape(len(shape))


def checked_inputs(op_type: str, tensors: Sequence[NDArray]) -> tuple[NDArray, NDArray, tuple[int, ...]]:
    """The (codes, values, shape) of a decoder node. Raises EncodeError when a dtype, rank or dim cannot be right."""
    if len(tensors) != 3:
        raise EncodeError(
            f"{op_type}: found {len(tensors)} inputs, expected 3 (codes, values, shape); the file is damaged"
        )
    codes, values, dims = tensors
    if codes.dtype != np.uint8 or codes.ndim != 1:
        raise EncodeError(f"{op_type}: codes are {codes.dtype} of rank {codes.ndim}, expected uint8 of rank 1")
    if values.dtype not in DTYPES or values.ndim != 1 or values.size == 0:
        raise EncodeError(f"{op_type}: values are {values.dtype} {list(values.shape)}, expected rank 1, a filler first")
    if dims.dtype != np.int64 or dims.ndim != 1:
        raise EncodeError(f"{op_type}: shape is {dims.dtype} of rank {dims.ndim}, expected int64 of rank 1")
    shape = tuple(int(dim) for dim in dims)
    if any(dim < 1 for dim in shape) or math.prod(shape) > MAX_SIZE:
        raise EncodeError(f"{op_type}: shape {list(shape)} is not one of a stored tensor (1 to {MAX_SIZE} entries)")
    return codes, values, shape
