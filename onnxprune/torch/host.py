"""Values of shape arithmetic: they stay Python numbers, so that no forward waits for an accelerator.

`Shape` gives a `Host`, and whatever is computed from Hosts alone is a Host (host_ops/). Under `torch.compile` the
numbers are SymInts. A Host becomes a tensor only where an operator wants one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import torch

LIMIT = 64
"""The most entries of a stored tensor, or of one made from a shape, that are kept as Python numbers."""
DTYPES = frozenset((torch.int64, torch.int32, torch.bool, torch.float32, torch.float64))
_BITS = {torch.int64: 64, torch.int32: 32}


class Host:
    """A small tensor as Python numbers.

    Attributes:
        values: the entries in C order.
        shape: the dims.
        dtype: the element type a tensor of it has: int64, int32, bool, float32 or float64.
        tensor: the same value as a tensor where it is a constant of the model, else None.
    """

    __slots__ = ("dtype", "shape", "tensor", "values")

    def __init__(
        self, values: Sequence[Any], shape: Sequence[int], dtype: torch.dtype, tensor: torch.Tensor | None = None
    ) -> None:
        self.values = tuple(values)
        self.shape = tuple(shape)
        self.dtype = dtype
        self.tensor = tensor

    def __repr__(self) -> str:
        return f"Host({list(self.values)}, shape={list(self.shape)}, dtype={self.dtype})"

    def as_tensor(self, device: torch.device) -> torch.Tensor:
        """The value as a tensor on `device`."""
        if self.tensor is not None:
            return self.tensor if self.tensor.device == device else self.tensor.to(device)
        return torch.tensor(self.values, dtype=self.dtype, device=device).reshape(self.shape)

    @property
    def item(self) -> Any:
        """The first entry: the value of a scalar, or of a tensor of one entry."""
        return self.values[0]


def host_from_tensor(tensor: torch.Tensor, *, keep: bool = False) -> Host:
    """The entries of a tensor, which waits for its device; `keep` makes it a constant that has its tensor too."""
    values = tensor.detach().reshape(-1).tolist()
    return Host(values, tuple(tensor.shape), tensor.dtype, tensor if keep else None)


def is_small(tensor: torch.Tensor) -> bool:
    """Whether a stored tensor can be a Host."""
    return tensor.dtype in DTYPES and tensor.numel() <= LIMIT


def make(values: Iterable[Any], shape: Sequence[int], dtype: torch.dtype) -> Host:
    """A Host whose entries are brought into the range and precision of `dtype`, as a tensor would hold them."""
    return Host([rounded(value, dtype) for value in values], shape, dtype)


def rounded(value: Any, dtype: torch.dtype) -> Any:
    """One number as `dtype` holds it: float32 rounds, integers wrap; SymInts and SymFloats pass as they are."""
    kind = type(value)
    if dtype is torch.bool:
        return bool(value) if kind in (int, float) else value
    if dtype is torch.float32:
        return _float32(float(value)) if kind in (int, float, bool) else value
    if dtype is torch.float64:
        return float(value) if kind in (int, bool) else value
    if kind is float or kind is bool:
        value = int(value)
    bits = _BITS[dtype]
    if kind is int and not -(1 << bits - 1) <= value < 1 << bits - 1:
        value = (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)
    return value


def _float32(value: float) -> float:
    if torch.compiler.is_compiling() or not math.isfinite(value):
        return value
    if abs(value) > 3.4028234663852886e38:  # the largest float32: struct refuses what lies beyond
        return float(torch.tensor(value, dtype=torch.float32))
    return float(struct.unpack("<f", struct.pack("<f", value))[0])
