"""Stored tensors as the values of a graph show them: turned, cast, dequantised, with axes merged or of size 1 added.

Exporters put such ops between a weight and the node that uses it. The tensor behind them is still the one that is cut:
each axis of the value knows along which stored axis that happens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from ..arrays import Array, Masked, NDArray
from ..storage import stubs

if TYPE_CHECKING:
    from .graph import Node

_FLOATS = {np.dtype(one) for one in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)}
NO_AXIS = -1
"""As an entry of `Const.axes`: no stored axis, the value has size 1 there."""


@dataclass(frozen=True)
class Steps:
    """How the integers of a quantised tensor are scaled: (q - zero point) × scale.

    `scale`, `zero_point`: the keys of the tensors, '' for a zero point of 0; `axis`: the axis of the quantised tensor
    along which they lie, None when they are single numbers.
    """

    scale: str
    zero_point: str
    axis: int | None


@dataclass(frozen=True)
class Const:
    """A tensor of the model as a value shows it, behind ops that only lay it out anew, cast or dequantise it.

    Attributes:
        key, stored: the tensor, and its shape.
        groups: for each axis of the value the stored axes that were merged into it, outermost first; none where the
            value has size 1 and no stored axis.
        dtype: that of the value.
        steps: is there when the tensor is quantised.
    """

    key: str
    stored: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    dtype: np.dtype[Any]
    steps: Steps | None = None

    @property
    def axes(self) -> tuple[int, ...]:
        """For each axis of the value the stored axis along which it can be cut: the longest one, or NO_AXIS."""
        return tuple(max(group, key=lambda axis: self.stored[axis], default=NO_AXIS) for group in self.groups)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(math.prod(self.stored[axis] for axis in group) for group in self.groups)

    @property
    def turned(self) -> bool:
        """True when the value is the stored tensor with its axes in some order and nothing else."""
        return self.steps is None and sorted(self.groups) == [(axis,) for axis in range(len(self.stored))]

    def laid(self, stored: NDArray) -> NDArray:
        """The stored tensor as the value is laid out."""
        order = [axis for group in self.groups for axis in group]
        order += [axis for axis in range(len(self.stored)) if axis not in order]  # of size 1, and gone
        return stored.transpose(order).reshape(self.shape)

    def spread(self, values: NDArray, axis: int) -> NDArray:
        """`values`, one for each slice of the stored axis `axes[axis]`, for each coordinate of `axis` of the value."""
        own = self.axes[axis]
        if own == NO_AXIS:
            return values
        sizes = tuple(self.stored[one] for one in self.groups[axis])
        shape = tuple(-1 if one == own else 1 for one in self.groups[axis])
        return np.broadcast_to(values.reshape(shape), sizes).reshape(-1)


def whole(key: str, source: Array | Masked) -> Const:
    """The tensor `key` as it is stored."""
    return Const(key, source.shape, tuple((axis,) for axis in range(len(source.shape))), source.dtype)


def shown(
    node: Node, const: Const, found: Mapping[str, Const], integers: Callable[[str], tuple[int, ...] | None]
) -> Const | None:
    """What the value of `node`, which reads `const`, shows of the same tensor; None when it is another value.

    `found`: the constants so far; `integers`: the entries of one of them that is stored as it is, None for others.
    """
    if node.op_type == "Identity":
        return const
    if node.op_type == "Transpose":
        perm = node.integers("perm") or tuple(reversed(range(len(const.groups))))
        return replace(const, groups=tuple(const.groups[axis] for axis in perm))
    if node.op_type == "Cast":
        dtype = stubs.dtype_from_onnx(node.integer("to", 0))
        if dtype is not None and (dtype == const.dtype or {dtype, const.dtype} <= _FLOATS):
            return replace(const, dtype=dtype)
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        target = _target(node, const.shape, integers)
        groups = None if target is None else _merged(const, target)
        return None if groups is None else replace(const, groups=groups)
    if node.op_type == "DequantizeLinear" and const.steps is None and const.dtype.kind in "iu":
        return _dequantised(node, const, found)
    return None


def _target(
    node: Node, shape: tuple[int, ...], integers: Callable[[str], tuple[int, ...] | None]
) -> tuple[int, ...] | None:
    """The shape that `node` gives a value of `shape`; None when it is computed, or has no entry."""
    given = integers(node.input(1)) if node.input(1) else node.integers("axes")
    if (given is None and (node.input(1) or node.op_type in ("Reshape", "Unsqueeze"))) or 0 in shape:
        return None
    rank = len(shape)
    if node.op_type == "Flatten":
        axis = node.integer("axis", 1)
        return math.prod(shape[:axis]), math.prod(shape[axis:])
    if node.op_type == "Squeeze":
        gone = {axis % rank for axis in given} if given else {axis for axis, size in enumerate(shape) if size == 1}
        return tuple(size for axis, size in enumerate(shape) if axis not in gone)
    if node.op_type == "Unsqueeze":
        new = {axis % (rank + len(given or ())) for axis in given or ()}
        rest = iter(shape)
        return tuple(1 if axis in new else next(rest) for axis in range(rank + len(new)))
    asked = [
        shape[axis] if size == 0 and axis < rank and not node.integer("allowzero", 0) else size
        for axis, size in enumerate(given or ())
    ]
    left = math.prod(shape) // max(1, -math.prod(asked)) if -1 in asked else 0
    return tuple(left if size == -1 else size for size in asked)


def _merged(const: Const, target: Sequence[int]) -> tuple[tuple[int, ...], ...] | None:
    """The groups of `const` in a value of shape `target`; None where an axis would be split."""
    shape, axis = const.shape, 0
    groups: list[tuple[int, ...]] = []
    for size in target:
        count, group = 1, tuple[int, ...]()
        while count < size and axis < len(shape):
            group += const.groups[axis] if shape[axis] > 1 else ()
            count, axis = count * shape[axis], axis + 1
        if count != size:
            return None
        groups.append(group)
    return tuple(groups) if math.prod(shape[axis:]) == 1 else None


def _dequantised(node: Node, const: Const, found: Mapping[str, Const]) -> Const | None:
    """The value of a DequantizeLinear whose scales and zero points are constants, one in all or one a slice."""
    scale, zero_point = found.get(node.input(1)), found.get(node.input(2))
    if scale is None or (node.input(2) and zero_point is None) or node.integer("block_size", 0):
        return None
    if any(
        one is not None and one.key != name
        for one, name in zip((scale, zero_point), node.proto.input[1:], strict=False)
    ):
        return None
    sizes = {one.shape for one in (scale, zero_point) if one is not None}
    keys = (scale.key, "" if zero_point is None else zero_point.key)
    if sizes <= {(), (1,)}:
        return replace(const, dtype=scale.dtype, steps=Steps(*keys, None))
    axis, rank = node.integer("axis", 1), len(const.groups)
    if not -rank <= axis < rank or sizes != {(const.shape[axis],)} or len(const.groups[axis]) != 1:
        return None
    return replace(const, dtype=scale.dtype, steps=Steps(*keys, const.axes[axis]))
