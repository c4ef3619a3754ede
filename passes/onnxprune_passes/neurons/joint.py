"""Heads that share an axis with a batch of unknown size: [L, N, 64] to [L, N x 4, 16], as torch exports attention.

Along the joint axis the heads repeat as often as the batch is long, which no array of ids says. Such a value is noted
apart, as what it is with batch and heads on two axes, until a Reshape takes them apart again; only Transpose and Shape
may read it before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .flow import Flow
from .graph import Dim
from .regroup import regrouped

if TYPE_CHECKING:
    from .trace import Trace

WHY = "it merges neurons with an axis of unknown size"


@dataclass(frozen=True, eq=False)
class Joint:
    """A value with a joint axis.

    Attributes:
        flow: what it carries with batch and heads on axes of their own, the heads behind the batch.
        dims: the shape of that.
        axis: where the batch stands in it, and the joint axis in the value.
    """

    flow: Flow
    dims: tuple[Dim, ...]
    axis: int

    def lies_on(self, axis: int) -> tuple[int, ...]:
        """The axes of `flow` that axis `axis` of the value is."""
        return (axis, axis + 1) if axis == self.axis else (axis + (axis > self.axis),)

    def turned(self, perm: Sequence[int]) -> Joint:
        """After a Transpose of the value."""
        whole = [one for axis in perm for one in self.lies_on(axis)]
        dims = tuple(self.dims[one] for one in whole)
        return replace(
            self, flow=self.flow.moved(lambda array: array.transpose(whole)), dims=dims, axis=whole.index(self.axis)
        )


def joined(carried: Flow, before: Sequence[Dim], after: Sequence[Dim]) -> Joint | None:
    """What a Reshape from `before` to `after` gives when it moves heads of the last axis to the batch before it.

    None where it does something else: [..., N, heads x size] to [..., N x heads, size] alone is followed, N the only
    axis of unknown size.
    """
    axis = len(before) - 2
    if len(before) != len(after) or axis < 0 or carried.axes != (axis + 1,):
        return None
    last, size = before[-1], after[-1]
    fixed = all(isinstance(dim, int) for dim in (*before[:axis], *after[:axis], last, size))
    if (
        not fixed
        or isinstance(before[axis], int)
        or isinstance(after[axis], int)
        or before[:axis] != tuple(after[:axis])
    ):
        return None
    if not isinstance(last, int) or not isinstance(size, int) or size < 1 or last % size:
        return None
    dims = (*before[:axis], "batch", last // size, size)
    flow = regrouped(carried, (*before[:axis], "batch", last), dims)
    return None if flow is None else Joint(flow, dims, axis)


def pin_joint(trace: Trace) -> None:
    """Pin what lies on a joint axis that something else reads than Transpose, Shape and the Reshape that parts it."""
    for name, joint in trace.joints.items():
        if name in trace.graph.outputs:
            trace.pin(joint.flow.ids, f"graph output '{name}'", "the interface never changes")
        for node, index in trace.graph.readers.get(name, ()):
            if index or not (node.output(0) in trace.joints or node.index in trace.parted):
                trace.pin(joint.flow.ids, node, WHY)
