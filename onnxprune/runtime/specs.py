"""What an input or output looks like: onnxruntime's type texts as numpy dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto

_NUMPY_TYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    "string": "object",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class ExtensionType:
    """A dtype that numpy knows through ml_dtypes only: its ONNX element type and an unsigned dtype of its width."""

    dtype: np.dtype[Any]
    element: int
    carrier: np.dtype[Any]


EXTENSION_TYPES = {
    name: ExtensionType(dtype, getattr(TensorProto, name.upper()), np.dtype(f"u{dtype.itemsize}"))
    for name, dtype in (
        ("bfloat16", np.dtype(ml_dtypes.bfloat16)),
        ("float8e4m3fn", np.dtype(ml_dtypes.float8_e4m3fn)),
        ("float8e4m3fnuz", np.dtype(ml_dtypes.float8_e4m3fnuz)),
        ("float8e5m2", np.dtype(ml_dtypes.float8_e5m2)),
        ("float8e5m2fnuz", np.dtype(ml_dtypes.float8_e5m2fnuz)),
    )
}


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is floating point, bfloat16 and the 8-bit floats included."""
    return dtype.kind == "f" or any(dtype == extension.dtype for extension in EXTENSION_TYPES.values())


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model as onnxruntime declares it.

    `kind` is onnxruntime's type text (`tensor(float)`, `seq(tensor(float))`), `dtype` the numpy dtype of a tensor's
    elements (object for strings, None when it is no tensor, or one that numpy cannot hold). `shape` has an int for a
    fixed axis, a name for a symbolic one, None for an axis of unknown size; sizes below 1 count as unknown.
    """

    name: str
    kind: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...]

    @property
    def is_fetchable(self) -> bool:
        """Whether `run` can return it: a tensor that numpy can hold, or a sequence, map or optional."""
        return self.dtype is not None or not self.kind.startswith(("tensor(", "sparse_tensor("))

    def __str__(self) -> str:
        """`name dtype[2, N, ?]`."""
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.name} {self.dtype.name if self.dtype is not None else self.kind}[{dims}]"

    def accepts_shape(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits: equal rank, and equal sizes on the fixed axes."""
        return len(shape) == len(self.shape) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(self.shape, shape, strict=True)
        )


def spec_from_ort(node: Any) -> TensorSpec:
    """The spec of an onnxruntime `NodeArg`."""
    kind: str = node.type
    element = kind.removeprefix("tensor(").removesuffix(")") if kind.startswith("tensor(") else ""
    dtype: np.dtype[Any] | None = None
    if element in _NUMPY_TYPES:
        dtype = np.dtype(_NUMPY_TYPES[element])
    elif element in EXTENSION_TYPES:
        dtype = EXTENSION_TYPES[element].dtype
    shape = tuple(None if isinstance(dim, int) and dim < 1 else dim for dim in node.shape)
    return TensorSpec(node.name, kind, dtype, shape)
