"""Ops that lay the same entries out anew: Transpose, Reshape, Flatten, Squeeze, Unsqueeze.

Ids are laid out with them. Axes that merge with a neuron axis are expanded first, so that every entry keeps its id; a
neuron axis may split into several, and then loses only whole slices. Sizes that a target names are rewritten.
"""

from __future__ import annotations

import numpy as np

from ...arrays import NDArray
from ..cut import Cut
from ..flow import Flow
from ..graph import Dim, Node
from ..joint import WHY, Joint, joined
from ..known import tell
from ..operands import in_groups
from ..regroup import blocks, first_alone, regrouped, solved
from ..rule import Rule, Rules, onnx_rules
from ..sizes import named_sizes, rewrite_sizes
from ..trace import Trace


def _transpose(trace: Trace, node: Node) -> None:
    carried = trace.flow(node.input(0))
    perm = node.integers("perm") or tuple(reversed(range(carried.rank)))
    joint = trace.joints.get(node.input(0))
    if joint is not None and len(perm) == len(joint.dims) - 1:
        trace.joints[node.output(0)] = joint.turned(perm)
    if len(perm) == carried.rank:
        trace.put(node, 0, carried.moved(lambda array: array.transpose(perm)))
    else:
        trace.refuse(node, "the rank of its input is not known")


def _reshape(trace: Trace, node: Node) -> None:
    carried, before, after = trace.flow(node.input(0)), trace.dims(node.input(0)), _after(trace, node)
    target = named_sizes(trace, node.input(1))
    if after is not None:
        tell(trace, node.output(0), after)
    flow = None if before is None or after is None else regrouped(carried, before, after)
    if flow is None and before is not None and after is not None:
        flow = _coarse(trace, node, before, after)
    if flow is None and _joins(trace, node):
        return
    if node.input(0) in trace.joints and after is not None:
        joint = trace.joints[node.input(0)]
        flow = regrouped(joint.flow, joint.dims, after)
    if before is None or after is None or flow is None:
        trace.refuse(node, f"{WHY}, or the shape of its output is not known")
        return
    if flow.axes or trace.flow(node.input(1)).carries:
        copies = {block.after[0] for block in blocks(before, after) if block.before == block.after}
        if target is None or not target.follow(trace, flow, copies, _settled(trace, node) is not None):
            trace.refuse(node, "its target shape is computed, and names sizes in a way that cannot be rewritten")
            return
    trace.parted.add(node.index)
    trace.put(node, 0, flow)


def _joins(trace: Trace, node: Node) -> bool:
    """Note that `node` moves heads to the batch, if it does and its target can be rewritten."""
    before, after, numbers = trace.dims(node.input(0)), _after(trace, node), _settled(trace, node)
    if before is None or after is None or numbers is None or node.input(0) in trace.joints:
        return False
    joint = joined(trace.flow(node.input(0)), before, after)
    if joint is None or numbers[joint.axis] != -1:
        return False
    trace.joints[node.output(0)] = joint
    return True


def _rewrite_joining(cut: Cut, node: Node, joint: Joint) -> None:
    """The sizes of the other axes follow; that of the joint one is what is left."""
    numbers = _settled(cut.trace, node)
    if numbers is not None:
        keep = cut.keep_of(joint.flow.ids)
        after = [
            keep[own].sum() if (own := joint.lies_on(axis)[-1]) in keep else size for axis, size in enumerate(numbers)
        ]
        after[joint.axis] = -1
        cut.set_input(node, 1, np.array(after, np.int64))


def _coarse(trace: Trace, node: Node, before: tuple[Dim, ...], after: list[Dim]) -> Flow | None:
    """Neurons in front of axes of unknown size: groups of them, or the same neuron several times; None otherwise.

    [N, C, H, W] to [N, G, -1] and back: what goes are whole groups, so all neurons of one are united.
    """
    carried = trace.flow(node.input(0))
    if len(carried.axes) != 1 or (alone := first_alone(before, after, carried.axes[0])) is None:
        return None
    axis, (size, shape, target) = carried.axes[0], alone
    if size > carried.ids.shape[axis]:
        copies = np.repeat(np.arange(carried.ids.shape[axis]), size // carried.ids.shape[axis])
        return regrouped(carried.picked(copies, axis), shape, target)
    return regrouped(in_groups(trace, node, carried, axis, size), shape, target)


def _after(trace: Trace, node: Node) -> list[Dim] | None:
    """The shape of a Reshape's output, as far as its target and shape inference tell it."""
    before, stated, target = trace.dims(node.input(0)), trace.dims(node.output(0)), named_sizes(trace, node.input(1))
    if before is None or (target is None and stated is None):
        return None
    asked = target.values if target is not None else (None,) * len(stated or ())
    return solved(before, asked, stated, zero_copies=not node.integer("allowzero", 0))


def _settled(trace: Trace, node: Node) -> NDArray | None:
    """The target of a Reshape as constant numbers; None when it has to be computed."""
    before, after, target = trace.dims(node.input(0)), _after(trace, node), named_sizes(trace, node.input(1))
    if before is None or after is None or target is None:
        return None
    given = trace.exact(node.input(1))
    return (
        given
        if given is not None
        else target.settled(before, after, zero_copies=0 not in target.values or not node.integer("allowzero", 0))
    )


def _rewrite_reshape(cut: Cut, node: Node) -> None:
    """A target that names sizes is rewritten; a computed one only where it does not follow by itself."""
    joint = cut.trace.joints.get(node.output(0))
    if joint is not None:
        _rewrite_joining(cut, node, joint)
        return
    numbers, target = _settled(cut.trace, node), named_sizes(cut.trace, node.input(1))
    if numbers is None or target is None:
        return
    given = cut.exact(node.input(1)) is not None
    if given or not all(target.fits_by_itself(axis, range(len(numbers))) for axis in cut.keep(node.output(0))):
        rewrite_sizes(cut, node, 1, numbers)
        if not given:
            cut.drop_attribute(node, "allowzero")


def _flatten(trace: Trace, node: Node) -> None:
    carried, before, after = trace.flow(node.input(0)), trace.dims(node.input(0)), trace.dims(node.output(0))
    flow = (
        None
        if before is None or after is None
        else regrouped(carried, before, _flat(before, node.integer("axis", 1), after))
    )
    if flow is None:
        trace.refuse(node, "it merges neurons with an axis of unknown size")
    else:
        trace.put(node, 0, flow)


def _flat(before: tuple[Dim, ...], axis: int, after: tuple[Dim, ...]) -> list[Dim]:
    axis = axis + len(before) if axis < 0 else axis
    halves = []
    for part, stated in zip((before[:axis], before[axis:]), after, strict=True):
        counts = [dim for dim in part if isinstance(dim, int)]
        halves.append(int(np.prod(counts)) if len(counts) == len(part) else part[0] if len(part) == 1 else stated)
    return halves


def _squeeze(trace: Trace, node: Node) -> None:
    carried, dims = trace.flow(node.input(0)), trace.dims(node.input(0))
    axes = _axes(trace, node)
    if axes is None and dims is not None and not node.input(1) and None not in dims:
        axes = tuple(axis for axis, dim in enumerate(dims) if dim == 1)
    if axes is None or dims is None or any(carried.ids.shape[axis] != 1 for axis in axes):
        trace.refuse(node, "its axes are computed, or carry neurons")
        return
    trace.put(node, 0, carried.moved(lambda array: array.squeeze(axes)))


def _rewrite_squeeze(cut: Cut, node: Node) -> None:
    """A Squeeze that names no axes would take an axis away of which one neuron is left: it names them from now on."""
    if (
        node.input(1)
        or node.integers("axes") is not None
        or all(keep.sum() > 1 for keep in cut.keep(node.input(0)).values())
    ):
        return
    axes = [axis for axis, dim in enumerate(cut.trace.dims(node.input(0)) or ()) if dim == 1]
    if node.opset < 13:
        cut.set_attribute(node, "axes", axes)
    else:
        cut.set_input(node, 1, np.array(axes, np.int64))


def _unsqueeze(trace: Trace, node: Node) -> None:
    carried, dims = trace.flow(node.input(0)), trace.dims(node.input(0))
    axes = _axes(trace, node)
    if axes is None or dims is None:
        trace.refuse(node, "its axes are computed, or the rank of its input is not known")
        return
    trace.put(node, 0, carried.moved(lambda array: np.expand_dims(array, axes)))


def _axes(trace: Trace, node: Node) -> tuple[int, ...] | None:
    given = node.integers("axes")
    if given is not None:
        return given
    found = trace.exact(node.input(1))
    return None if found is None else tuple(int(axis) for axis in found.reshape(-1))


RULES: Rules = {
    **onnx_rules("Transpose", Rule(_transpose, moves=True)),
    **onnx_rules("Reshape", Rule(_reshape, _rewrite_reshape, moves=True, follows=(0, 1))),
    **onnx_rules("Flatten", Rule(_flatten)),
    **onnx_rules("Squeeze", Rule(_squeeze, _rewrite_squeeze, moves=True, follows=(0,))),
    **onnx_rules("Unsqueeze", Rule(_unsqueeze, moves=True, follows=(0,))),
}
