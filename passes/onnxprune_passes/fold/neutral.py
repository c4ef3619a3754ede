"""Which nodes give back one of their inputs as it is: the same values to the last bit, type and shape.

Decided from constants and from what follows from the graph's inputs alone. Floats are taken at their word: x × 1 and
x ÷ 1 are x; x − 0 is x, but x + 0 is not (it makes 0 of −0); x + (−0) is x again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from ..arrays import NDArray
from .blocks import Block
from .draft import Draft
from .known import Dims, Known

_OLDEST = 7
"""Before this opset Dropout trains and operands do not broadcast as numpy's do, unless attributes say otherwise."""
_END = 2**31 - 1
"""A Slice to here goes to the end of any axis."""


@dataclass(frozen=True, eq=False)
class Look:
    """A node in its block, and what can be asked about it."""

    draft: Draft
    known: Known
    block: Block
    node: onnx.NodeProto

    @property
    def opset(self) -> int:
        """The version of the ai.onnx operators."""
        return self.draft.before.opset

    def name(self, index: int) -> str:
        """The name of input `index`; '' when it is absent."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def constant(self, index: int) -> NDArray | None:
        """The values of input `index`; None when it is absent, computed, or can be set by the caller."""
        return self.draft.constant(self.block, self.name(index))

    def dims(self, index: int = 0) -> Dims | None:
        """What is known of the shape of input `index`."""
        return self.known.dims(self.block, self.name(index))

    def element(self, name: str) -> int:
        """The element type of a value; 0 when it is not known."""
        return self.known.element(self.block, name)

    def attribute(self, name: str) -> object | None:
        """An attribute; None when it is absent."""
        return next((helper.get_attribute_value(one) for one in self.node.attribute if one.name == name), None)

    def integers(self, name: str, index: int) -> list[int] | None:
        """A list of integers that was an attribute once and is an input now; None when it is absent or computed."""
        found = self.attribute(name) if self.constant(index) is None else self.constant(index)
        return None if found is None else [int(one) for one in np.ravel(np.asarray(found))]


def neutral_input(look: Look) -> int | None:
    """The index of the input that the first output of the node is; None when it is not known to be one."""
    test = _TESTS.get(look.node.op_type)
    if test is None or look.node.domain not in ("", "ai.onnx") or look.opset < _OLDEST:
        return None
    index = test(look)
    return index if index is not None and look.name(index) else None


def _always(_: Look) -> int | None:
    return 0


def _alone(look: Look) -> int | None:
    return 0 if len(look.node.input) == 1 else None


def _split(look: Look) -> int | None:
    return 0 if len(look.node.output) == 1 else None


def _dropout(look: Look) -> int | None:
    training = look.constant(2)
    trains = look.opset >= 12 and look.name(2) and (training is None or bool(training.any()))
    positions = len(look.node.output) > 1 and look.block.readers(look.node.output[1])
    return None if trains or positions else 0


def _cast(look: Look) -> int | None:
    return 0 if look.attribute("to") == look.element(look.name(0)) else None


def _cast_like(look: Look) -> int | None:
    types = [look.element(look.name(index)) for index in (0, 1)]
    return 0 if types[0] and types[0] == types[1] else None


def _reshape(look: Look) -> int | None:
    dims, target = look.dims(), look.constant(1)
    if dims is None:
        return None
    if target is None:
        made = look.known.dims(look.block, look.node.output[0])
        return 0 if made == dims and None not in dims else None
    if target.size != len(dims):
        return None
    copies = () if look.attribute("allowzero") else (0,)
    open_axes = [
        axis
        for axis, (size, wanted) in enumerate(zip(dims, target.tolist(), strict=True))
        if wanted not in copies and wanted != size
    ]
    inferred = [axis for axis in open_axes if target.reshape(-1)[axis] == -1]  # all else as it is, so is this one
    return 0 if len(open_axes) == len(inferred) and len(inferred) <= 1 and 0 not in dims else None


def _flatten(look: Look) -> int | None:
    dims, axis = look.dims(), look.attribute("axis")
    return 0 if dims is not None and len(dims) == 2 and axis in (None, 1, -1) else None


def _transpose(look: Look) -> int | None:
    order, dims = look.attribute("perm"), look.dims()
    if order is None:
        return 0 if dims is not None and len(dims) <= 1 else None
    return 0 if np.array_equal(np.asarray(order), np.arange(np.size(np.asarray(order)))) else None


def _pad(look: Look) -> int | None:
    pads = look.integers("pads", 1)
    return 0 if pads is not None and not any(pads) else None


def _slice(look: Look) -> int | None:
    starts, ends = look.integers("starts", 1), look.integers("ends", 2)
    if starts is None or ends is None:
        return None
    axes, steps, dims = look.integers("axes", 3), look.integers("steps", 4), look.dims()
    if (axes is None and look.name(3)) or (steps is None and look.name(4)) or any(one != 1 for one in steps or ()):
        return None
    for axis, start, end in zip(axes or range(len(starts)), starts, ends, strict=True):
        size = dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else None
        begins = start == 0 or (size is not None and start <= -size)
        if not begins or not (end >= _END or (size is not None and end >= size)):
            return None
    return 0


def _expand(look: Look) -> int | None:
    target = look.constant(1)
    return 0 if target is not None and _fits(tuple(target.reshape(-1).tolist()), look.dims()) else None


def _tile(look: Look) -> int | None:
    repeats = look.constant(1)
    return 0 if repeats is not None and bool((repeats == 1).all()) else None


def _by(value: float, *sides: int, negative: bool | None = None) -> Callable[[Look], int | None]:
    """The test of an operator of two operands, where the one on one of `sides` is `value` everywhere.

    `negative`: the sign bit that a floating 0 must have.
    """

    def test(look: Look) -> int | None:
        for side in sides:
            values = look.constant(side)
            if values is None or not values.size or not bool((values == value).all()):
                continue
            if negative is not None and values.dtype.kind not in "iub":
                signs = np.signbit(values.astype(np.float64))
                if not bool((signs == negative).all()):
                    continue
            if _fits(values.shape, look.dims(1 - side)):
                return 1 - side
        return None

    return test


def _fits(shape: tuple[int, ...], dims: Dims | None) -> bool:
    """True when an operand of `shape` broadcasts into one of `dims` without changing its shape."""
    if not shape:
        return True
    if dims is None or len(shape) > len(dims):
        return False
    pairs = zip(shape, dims[len(dims) - len(shape) :], strict=True)
    return all(size in (1, dim) for size, dim in pairs)


_TESTS: Mapping[str, Callable[[Look], int | None]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _alone,
    "Sum": _alone,
    "Mean": _alone,
    "Max": _alone,
    "Min": _alone,
    "Mul": _by(1, 0, 1),
    "Div": _by(1, 1),
    "Add": _by(0, 0, 1, negative=True),
    "Sub": _by(0, 1, negative=False),
}
