"""Slice, Gather and Pad: ids are picked as the entries are; positions and counts along the neurons' axis are rewritten.

Zeros that Pad puts beside neurons are neurons of their own, known to be 0: a shortcut padded with zeros loses them
with its branch.
"""

from __future__ import annotations

import numpy as np

from ..classes import Ids
from ..cut import Cut
from ..flow import Flow
from ..graph import Node
from ..known import tell
from ..operands import stiffened
from ..readers import made, make
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace


def _slice(trace: Trace, node: Node) -> None:
    carried = trace.flow(node.input(0))
    bounds = _bounds(trace, node, carried.rank)
    dims = trace.dims(node.input(0))
    if dims is not None and bounds is not None:
        cut = {axis for axis, *_ in bounds}
        tell(trace, node.output(0), [None if axis in cut else dim for axis, dim in enumerate(dims)])
    stepped = {axis for axis, _, _, step in bounds or () if step != 1 and axis in carried.axes}
    if stepped and set(carried.axes) - stepped:
        carried = stiffened(trace, node, carried, stepped)
    wide = {axis for axis, size in enumerate(carried.ids.shape) if size > 1 or carried.whole}
    if not wide and bounds is None:
        return
    if bounds is None or any(axis in wide and step != 1 for axis, _, _, step in bounds):
        trace.refuse(node, "its bounds are computed, or it steps over neurons")
        return
    picked = [slice(None)] * carried.rank
    for axis, start, end, _ in bounds:
        if axis in wide:
            picked[axis] = slice(start, end)
    trace.put(node, 0, carried.moved(lambda array: array[tuple(picked)]))


def _bounds(trace: Trace, node: Node, rank: int) -> list[tuple[int, int, int, int]] | None:
    """(axis, start, end, step) for each sliced axis, as the node gives them; None when they are computed."""
    if node.opset < 10:
        starts, ends = node.integers("starts") or (), node.integers("ends") or ()
        axes = node.integers("axes") or tuple(range(len(starts)))
        return [(axis % rank, start, end, 1) for axis, start, end in zip(axes, starts, ends, strict=True)]
    found = [trace.exact(node.input(index)) for index in range(1, 5)]
    if found[0] is None or found[1] is None or any(node.input(at + 1) and found[at] is None for at in (2, 3)):
        return None
    count = found[0].size
    axes_given = np.arange(count) if found[2] is None else found[2].reshape(-1)
    steps = np.ones(count, np.int64) if found[3] is None else found[3].reshape(-1)
    rows = zip(axes_given, found[0].reshape(-1), found[1].reshape(-1), steps, strict=True)
    return [(int(axis) % max(rank, 1), int(start), int(end), int(step)) for axis, start, end, step in rows]


def _rewrite_slice(cut: Cut, node: Node) -> None:
    bounds = _bounds(cut.trace, node, cut.rank(node.input(0)))
    keeps = cut.keep(node.input(0))
    if bounds is None or not any(axis in keeps for axis, *_ in bounds):
        return
    starts, ends = [], []
    for axis, start, end, _ in bounds:
        if axis in keeps:
            first, last, _ = slice(start, end).indices(keeps[axis].size)
            start, end = int(keeps[axis][:first].sum()), int(keeps[axis][: max(first, last)].sum())
        starts.append(start)
        ends.append(end)
    if node.opset < 10:
        cut.set_attribute(node, "starts", starts)
        cut.set_attribute(node, "ends", ends)
    else:
        for index, numbers in ((1, starts), (2, ends)):
            cut.set_input(node, index, np.array(numbers, cut.trace.graph.dtype(node.input(index)) or np.int64))


def _gather(trace: Trace, node: Node) -> None:
    """Picks neurons by constant positions; a constant table read at computed ones makes neurons (embeddings)."""
    axis, positions = node.integer("axis", 0), trace.exact(node.input(1))
    const = trace.constant(node.input(0))
    index_dims = trace.dims(node.input(1))
    table = const is not None and len(const.axes) == 2 and axis % 2 == 0 and const.dtype.kind not in "iub"
    if table and positions is None and index_dims is not None:
        rank = len(index_dims) + 1
        trace.put(node, 0, made(make(trace, node, 0, 1), rank, rank - 1))
        return
    carried = trace.flow(node.input(0))
    if index_dims is None or carried.rank == 0:
        trace.refuse(node, "the rank of its input is not known")
        return
    axis %= carried.rank
    if carried.ids.shape[axis] == 1 and not carried.whole:
        before, lead, behind = carried.ids.shape[:axis], (1,) * len(index_dims), carried.ids.shape[axis + 1 :]
        trace.put(node, 0, carried.moved(lambda array: array.reshape(before + lead + behind)))
    elif positions is None or positions.ndim > 1:
        trace.refuse(node, "it picks neurons by computed positions")
    else:
        _picked(trace, node, carried, positions.astype(np.int64), axis)


def _picked(trace: Trace, node: Node, carried: Flow, positions: Ids, axis: int) -> None:
    after = carried.picked(positions, axis)
    if positions.ndim == 0 and after.ids.size == 1 and not trace.measures(after.ids):
        trace.pin(after.ids, node, "it picks a single neuron")
        after = Flow(np.full(after.ids.shape, -1, np.int64), after.known, after.values)
    trace.put(node, 0, after)


def _rewrite_gather(cut: Cut, node: Node) -> None:
    axis = node.integer("axis", 0) % cut.rank(node.input(0))
    keep, positions = cut.keep(node.input(0)).get(axis), cut.exact(node.input(1))
    if keep is None or positions is None:
        return
    old = positions.astype(np.int64) % keep.size
    old = old[keep[old]] if old.ndim else old
    cut.set_input(node, 1, (np.cumsum(keep) - 1)[old].astype(positions.dtype))


def _pad(trace: Trace, node: Node) -> None:
    carried = trace.flow(node.input(0))
    pads = _pads(trace, node, carried.rank)
    value = _pad_value(trace, node)
    if not carried.carries:
        return
    if pads is None or len(pads) != 2 * carried.rank:
        trace.refuse(node, "its pads, or the axes that they are for, are computed")
        return
    front, back = pads[: carried.rank], pads[carried.rank :]
    padded = [axis for axis in carried.axes if front[axis] or back[axis]]
    constant = node.text("mode", "constant") == "constant"
    if padded and (len(carried.axes) > 1 or not constant or value is None or min(*front, *back) < 0):
        trace.refuse(node, "it pads or crops the axis that carries the neurons")
        return
    if constant and any(size for axis, size in enumerate(pads) if axis % carried.rank not in carried.axes):
        same = np.zeros(()) if value is None else carried.values == value
        carried = carried.with_known(carried.known & (same != 0), carried.values)
    for axis in padded:
        carried = _grown(trace, carried, axis, (front[axis], back[axis]), value or 0.0)
    trace.put(node, 0, carried.loose())


def _grown(trace: Trace, carried: Flow, axis: int, counts: tuple[int, int], value: float) -> Flow:
    """`carried` with fresh neurons, known to be `value`, before and behind its own along `axis`."""
    own = trace.new_ids(sum(counts) + 1)[1:]
    shapes = [tuple(count if one == axis else 1 for one in range(carried.rank)) for count in counts]
    ids = [own[: counts[0]].reshape(shapes[0]), carried.ids, own[counts[0] :].reshape(shapes[1])]
    known = [np.ones(shapes[0], np.bool_), carried.known, np.ones(shapes[1], np.bool_)]
    dtype = carried.values.dtype
    values = [np.full(shapes[0], value, dtype), carried.values, np.full(shapes[1], value, dtype)]
    return Flow(np.concatenate(ids, axis=axis), np.concatenate(known, axis=axis), np.concatenate(values, axis=axis))


def _pads(trace: Trace, node: Node, rank: int) -> tuple[int, ...] | None:
    """What is added in front of every axis, then behind every axis; None when it is computed, or does not fit them."""
    if node.opset < 11:
        return node.integers("pads")
    found, axes = trace.exact(node.input(1)), _padded_axes(trace, node, rank)
    if found is None or axes is None or found.size != 2 * len(axes):
        return None
    given = [int(size) for size in found.reshape(-1)]
    pads = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        pads[axis], pads[axis + rank] = given[place], given[place + len(axes)]
    return tuple(pads)


def _padded_axes(trace: Trace, node: Node, rank: int) -> tuple[int, ...] | None:
    """The axes that pads are given for, from opset 18 on an input; None when they are computed."""
    if not node.input(3):
        return tuple(range(rank))
    found = trace.exact(node.input(3))
    return None if found is None else tuple(int(axis) % max(rank, 1) for axis in found.reshape(-1))


def _pad_value(trace: Trace, node: Node) -> float | None:
    if node.opset < 11:
        return float(node.attributes.get("value", 0.0))
    found = trace.exact(node.input(2)) if node.input(2) else np.zeros(1)
    return None if found is None else float(found.reshape(-1)[0])


def _rewrite_pad(cut: Cut, node: Node) -> None:
    rank = cut.rank(node.input(0))
    pads, axes = _pads(cut.trace, node, rank), _padded_axes(cut.trace, node, rank)
    if pads is None or axes is None or not any(pads[axis] or pads[axis + rank] for axis in cut.keep(node.output(0))):
        return
    after = list(pads)
    for axis, keep in cut.keep(node.output(0)).items():
        after[axis] = int(keep[: pads[axis]].sum())
        after[axis + rank] = int(keep[keep.size - pads[axis + rank] :].sum())
    if node.opset < 11:
        cut.set_attribute(node, "pads", after)
    else:
        cut.set_input(node, 1, np.array([after[axis + end] for end in (0, rank) for axis in axes], np.int64))


RULES: Rules = {
    **onnx_rules("Slice", Rule(_slice, _rewrite_slice, moves=True, follows=(0,))),
    **onnx_rules("Gather", Rule(_gather, _rewrite_gather, moves=True, follows=(0,))),
    **onnx_rules("Pad", Rule(_pad, _rewrite_pad, follows=(0,))),
}
