"""What an encoding is made of: where the kept entries lie, and what they are.

An *index scheme* (`Scheme`) turns a tensor into an index, a vector of values and the dims; a *value scheme*
(`ValueScheme`) turns that vector into something smaller. Each comes with an ONNX function that undoes it, so a tensor
is one node, or two in a row (see `coding`). An entry is *kept* when its bit pattern is not zero: -0.0, denormals and
NaN payloads are kept, so that every scheme gives the tensor back byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx

from ..arrays import NDArray, TensorSource
from ..errors import EncodeError
from .counts import Counts
from .limits import DTYPES, MAX_SIZE, Support

VALUES = "values"
"""The suffix of the input of an index scheme that a value scheme can make."""


@dataclass(frozen=True)
class Layout:
    """One initializer of an encoded tensor before it is built; `numbers`: what is in it, where it is int64."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tensor as a scheme stores it.

    Attributes:
        scheme: name of the scheme.
        inputs: the arrays in the order of the decoder's inputs; the scheme's `suffixes` name them.
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


class Decodable(Protocol):
    """What index schemes and value schemes have in common: a name, and a function with named inputs."""

    @property
    def name(self) -> str:
        """Short name in options and reports, such as "gaps4" or "codes8"."""

    @property
    def op_type(self) -> str:
        """Name of the function in the domain `onnxprune`."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the names of what the function takes, in its input order."""

    def function(self, opset: int) -> onnx.FunctionProto:
        """The function for models of this ai.onnx opset. Raises EncodeError below `FIRST_OPSET`."""


class Scheme(Decodable, Protocol):
    """An index scheme: where the kept entries lie; in numpy and in ONNX. One of its suffixes is `VALUES`."""

    def supports(self, shape: Sequence[int], dtype: np.dtype[Any], opset: int) -> Support:
        """Whether a model of this ai.onnx opset can store a tensor so, and onnxruntime's CPU provider decode it."""

    @property
    def stores_zeros(self) -> bool:
        """Whether zeros of the tensor may be among the values, beside the filler; they are where values are more than
        the kept entries.
        """

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """What `encode` would build for such a tensor, in the decoder node's input order."""

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor, read chunk by chunk. `counts`: those of this tensor, when they are known already.

        Raises EncodeError when the tensor cannot be stored so, or is not the one that was counted.
        """

    def decode(self, tensors: Sequence[NDArray], spare: int = 0) -> NDArray:
        """The tensor, from the decoder node's inputs in order. Raises EncodeError when they do not fit together.

        `spare`: how many values there may be beyond those needed, since value schemes fill up bytes.
        """


class ValueScheme(Decodable, Protocol):
    """A value scheme: a smaller form of the vector of values, whose first entry is the filler, a zero.

    It may decode to up to `SPARE` entries more. `zeros` says whether there are zeros behind the filler.
    """

    def supports(self, counts: Counts, opset: int, *, zeros: bool) -> Support:
        """Whether the values of such a tensor can be stored so, and onnxruntime's CPU provider decode them."""

    def layout(self, counts: Counts, length: int, *, zeros: bool) -> tuple[Layout, ...]:
        """What `encode` would build for `length` values."""

    def encode(self, values: NDArray, counts: Counts, *, zeros: bool) -> tuple[NDArray, ...]:
        """The vector `values` in this form. Raises EncodeError when it holds what was not counted."""

    def data_type(self, parts: Sequence[int]) -> int:
        """The ONNX element type of the vector, from those of the inputs in order."""

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The vector, from the inputs in order. Raises EncodeError when they do not fit together."""


SPARE = 7
"""How many values a value scheme may decode to beyond those that it was given."""


def shape_layout(shape: tuple[int, ...]) -> Layout:
    """That of `shape_tensor`."""
    return Layout(np.dtype(np.int64), (len(shape),), shape)


def shape_tensor(shape: tuple[int, ...]) -> NDArray:
    """The dims as decoders take them: int64 [rank]."""
    return np.array(shape, np.int64).reshape(len(shape))


def check_values(op_type: str, values: NDArray) -> None:
    """Raise EncodeError when `values` cannot be the values of a decoder node."""
    if values.dtype not in DTYPES or values.ndim != 1 or values.size == 0:
        raise EncodeError(f"{op_type}: values are {values.dtype} {list(values.shape)}, expected rank 1, a filler first")


def dims_of(op_type: str, dims: NDArray) -> tuple[int, ...]:
    """The shape that a decoder node is given. Raises EncodeError when it is not one of a stored tensor."""
    if dims.dtype != np.int64 or dims.ndim != 1:
        raise EncodeError(f"{op_type}: shape is {dims.dtype} of rank {dims.ndim}, expected int64 of rank 1")
    shape = tuple(int(dim) for dim in dims)
    if any(dim < 1 for dim in shape) or math.prod(shape) > MAX_SIZE:
        raise EncodeError(f"{op_type}: shape {list(shape)} is not one of a stored tensor (1 to {MAX_SIZE} entries)")
    return shape
