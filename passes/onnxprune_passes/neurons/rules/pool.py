"""Pooling, resizing and reductions: each channel by itself, as long as its own axis is not pooled.

A constant channel stays that constant: max-pooling pads with -infinity. Averages that count their padding keep only 0.
"""

from __future__ import annotations

import numpy as np

from ..cut import Cut
from ..graph import Node
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


def _reduce(trace: Trace, node: Node) -> None:
    """Over axes without neurons; over theirs each neuron changes the result and stays."""
    carried = trace.flow(node.input(0))
    given = node.integers("axes")
    if given is None and node.input(1):
        found = trace.exact(node.input(1))
        if found is None:
            trace.refuse(node, "its axes are computed")
            return
        given = tuple(int(axis) for axis in found.reshape(-1))
    if not given and node.integer("noop_with_empty_axes", 0):
        trace.put(node, 0, carried.unknown())
        return
    axes = tuple(sorted(axis % max(carried.rank, 1) for axis in given)) if given else tuple(range(carried.rank))
    if set(axes) & set(carried.axes):
        trace.refuse(node, "it reduces the axis that carries the neurons")
        return
    carried = carried.along(carried.axes)
    if node.op_type in _KEEP_ZERO:
        carried = carried.only_zeros()
    elif node.op_type not in _KEEP_A_CONSTANT:
        carried = carried.unknown()
    keep = node.integer("keepdims", 1)
    trace.put(node, 0, carried if keep else carried.moved(lambda array: array.squeeze(axes)))


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
_REDUCTIONS = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare"""

RULES: Rules = {
    **onnx_rules(_POOLS, Rule(_pool)),
    **onnx_rules(_REDUCTIONS, Rule(_reduce, follows=(0,))),
    **onnx_rules("Resize Upsample", Rule(_resize, _rewrite_resize, follows=(0,))),
}
