"""Pooling, resizing and reductions: each channel by itself, as long as its own axis is not pooled.

A constant channel stays that constant: max-pooling pads with -infinity. Averages that count their padding keep only 0.
"""

from __future__ import annotations

import math

import numpy as np

from ..cut import Cut
from ..flow import Flow
from ..graph import Node
from ..records import Sum
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace


def _pool(trace: Trace, node: Node) -> None:
    carried = trace.flow(node.input(0))
    if set(carried.axes) - {0, 1}:
        trace.refuse(node, "it pools along an axis that carries neurons")
        return
    if node.output(1):
        trace.refuse(node, "its second output counts positions across all channels")
        return
    average = node.op_type == "AveragePool"
    padded = (
        any(node.integers("pads") or ())
        or node.text("auto_pad", "NOTSET").startswith("SAME")
        or node.integer("ceil_mode", 0)
    )
    counts = average and node.integer("count_include_pad", 0) and padded
    norm = node.op_type in ("LpPool", "GlobalLpPool")
    trace.put(node, 0, (carried.only_zeros() if counts or norm else carried).loose())


_KEEP_A_CONSTANT = {"ReduceMean", "ReduceMax", "ReduceMin"}
_KEEP_ZERO = {"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd"}
_SUMS = {"ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare"}


def _reduce(trace: Trace, node: Node) -> None:
    """Over axes without neurons each by itself; over theirs they are summed, or each changes the result and stays."""
    carried = trace.flow(node.input(0))
    axes = _reduced(trace, node, carried.rank)
    if axes is None:
        trace.refuse(node, "its axes are computed")
        return
    if not axes and node.integer("noop_with_empty_axes", 0):
        trace.put(node, 0, carried.unknown())
        return
    keep = node.integer("keepdims", 1)
    if set(axes) & set(carried.axes):
        _summed(trace, node, carried, axes)
        trace.put(node, 0, Flow.empty(carried.rank - (0 if keep else len(axes))))
        return
    carried = carried.along(carried.axes)
    if node.op_type in _KEEP_ZERO:
        carried = carried.only_zeros()
    elif node.op_type not in _KEEP_A_CONSTANT:
        carried = carried.unknown()
    trace.put(node, 0, carried if keep else carried.moved(lambda array: array.squeeze(axes)))


def _reduced(trace: Trace, node: Node, rank: int) -> tuple[int, ...] | None:
    """The axes that are reduced; none when the node says so (noop_with_empty_axes), None when they are computed."""
    given = node.integers("axes")
    if given is None and node.input(1):
        found = trace.exact(node.input(1))
        if found is None:
            return None
        given = tuple(int(axis) for axis in found.reshape(-1))
    if not given and not node.integer("noop_with_empty_axes", 0):
        given = tuple(range(rank))
    return tuple(sorted(axis % max(rank, 1) for axis in given or ()))


def _summed(trace: Trace, node: Node, carried: Flow, axes: tuple[int, ...]) -> None:
    """Neurons along one of the reduced `axes`, added up: constants go, and what they add is added behind."""
    count, dtype = _count(trace, node, axes), trace.graph.dtype(node.output(0))
    mean = node.op_type == "ReduceMean"
    if node.op_type not in _SUMS or len(carried.axes) > 1:
        trace.refuse(node, "it reduces the axis that carries the neurons")
    elif mean and (count is None or dtype is None or dtype.kind != "f" or dtype.itemsize < 4):
        trace.refuse(node, "it averages over the axis that carries the neurons, in low precision or of unknown size")
    else:
        one = carried.along(carried.axes).moved(lambda array: array.reshape(-1))
        scale = 1 / one.ids.size if mean else (count or 0) / one.ids.size
        border = "" if mean or (count and node.op_type == "ReduceSum") else f"behind {node} does not fold"
        values = one.values.astype(dtype or one.values.dtype)
        trace.sums.append(Sum(node, one.ids, np.zeros(one.ids.shape, np.bool_), one.known, values, scale, border))


def _count(trace: Trace, node: Node, axes: tuple[int, ...]) -> int | None:
    """How many entries are reduced to one; None when a size is unknown."""
    dims, carried = trace.dims(node.input(0)) or (), trace.flow(node.input(0))
    sizes = [carried.ids.shape[axis] if axis in carried.axes else dims[axis] for axis in axes]
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def _rewrite_mean(cut: Cut, node: Node) -> None:
    """A mean over fewer neurons is still divided by the number that there was: it becomes a sum and a division."""
    axes = _reduced(cut.trace, node, cut.rank(node.input(0))) or ()
    count, dtype = _count(cut.trace, node, axes), cut.graph.dtype(node.output(0))
    if count is None or dtype is None or not set(axes) & set(cut.keep(node.input(0))):
        return
    cut.divide(node, "ReduceSum", np.array(count, dtype))
    if 13 <= node.opset < 18:
        cut.drop_attribute(node, "axes")
        cut.set_input(node, 1, np.array(axes, np.int64))


def _resize(trace: Trace, node: Node) -> None:
    """Upsample and Resize of other axes than the neurons'; sizes that name the neuron axis are rewritten."""
    carried = trace.flow(node.input(0))
    dims = trace.dims(node.output(0))
    if not carried.carries:
        return
    if dims is None or any(dims[axis] != carried.ids.shape[axis] for axis in carried.axes):
        trace.refuse(node, "it resizes the axis that carries the neurons, or its output's shape is not known")
        return
    named = set(_resized(node, carried.rank)) & set(carried.axes)
    if named and node.input(3) and trace.exact(node.input(3)) is None:
        trace.refuse(node, "its sizes are computed")
        return
    smooth = (
        node.text("mode", "nearest") in ("nearest", "linear")
        and node.text("coordinate_transformation_mode", "") != "tf_crop_and_resize"
    )
    trace.put(node, 0, (carried if smooth else carried.only_zeros()).loose())


def _resized(node: Node, rank: int) -> tuple[int, ...]:
    """The axes that sizes and scales are given for, from opset 18 on an attribute."""
    given = node.integers("axes")
    return tuple(range(rank)) if given is None else tuple(axis % max(rank, 1) for axis in given)


def _rewrite_resize(cut: Cut, node: Node) -> None:
    axes, keeps = _resized(node, cut.rank(node.input(0))), cut.keep(node.output(0))
    if node.input(3) and set(axes) & set(keeps):
        sizes = np.array(cut.exact(node.input(3)))
        for axis in set(axes) & set(keeps):
            sizes[axes.index(axis)] = keeps[axis].sum()
        cut.set_input(node, 3, sizes)


_POOLS = "MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool"
_REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin ReduceProd ReduceSum
ReduceSumSquare"""

RULES: Rules = {
    **onnx_rules(_POOLS, Rule(_pool)),
    **onnx_rules(_REDUCTIONS, Rule(_reduce, follows=(0,))),
    **onnx_rules("ReduceMean", Rule(_reduce, _rewrite_mean, follows=(0,))),
    **onnx_rules("Resize Upsample", Rule(_resize, _rewrite_resize, follows=(0,))),
}
