"""Products of two computed values: attention's scores (Q times K turned) and its sums over values (P times V).

The entries that a score sums over are united pair by pair; a pair is needed unless one of the two is known to be 0.
Batch axes stay as they are, except one along which neurons lie: its slices are heads. A head of scores goes exactly
when all pairs that it sums over go, or, at the values, exactly when all values of the head go.
"""

from __future__ import annotations

import numpy as np

from ..classes import Ids
from ..flow import Flow
from ..graph import Dim, Node
from ..records import Pin, Tie
from ..slices import BoolArray
from ..trace import Trace

_NEEDED = "it multiplies two computed values, neither of which is known to be 0"
_HEADS = "a head goes as a whole"


def product(trace: Trace, node: Node, turned: bool) -> None:
    """The rule of MatMul when neither operand is a constant; `turned`: the second is [..., columns, k]."""
    names = (node.input(0), node.input(1))
    shapes = [trace.dims(name) or () for name in names]
    rank = max(len(shape) for shape in shapes)
    if min(len(shape) for shape in shapes) < 2:
        trace.refuse(node, "an operand is a vector, or its rank is not known")
        return
    one, other = ((flow := trace.flow(name).aligned(rank)).along(flow.axes) for name in names)
    if turned:
        other, shapes[1] = other.moved(lambda array: array.swapaxes(-1, -2)), (*shapes[1][:-2], *shapes[1][:-3:-1])
    after = contracted(trace, node, one, other, [(1,) * (rank - len(shape)) + shape for shape in shapes])
    if after is not None:
        trace.put(node, 0, after)


def contracted(trace: Trace, node: Node, one: Flow, other: Flow, dims: list[tuple[Dim, ...]]) -> Flow | None:
    """What `one` [..., rows, k] times `other` [..., k, columns] carries: [..., rows, columns].

    None, with everything pinned, where neurons lie in a way that is not followed. `dims`: the shapes of the two.
    """
    rank = one.rank
    heads = sorted({axis for flow in (one, other) for axis in flow.axes if axis < rank - 2})
    summed = rank - 1 in one.axes or rank - 2 in other.axes
    if len(heads) > 1 or (summed and (rank - 2 in one.axes or rank - 1 in other.axes)) or rank - 2 in one.axes:
        trace.refuse(node, "both its operands are computed, and carry neurons along several axes")
        return None
    if heads and not _fit(one, other, dims, heads[0]):
        trace.refuse(node, "both its operands are computed, and only one carries neurons along a batch axis")
        return None
    if summed:
        return _scores(trace, node, one, other.moved(lambda array: array.swapaxes(-1, -2)), heads)
    return _values(trace, node, one, other, heads[0]) if heads else other.only_zeros()


def _fit(one: Flow, other: Flow, dims: list[tuple[Dim, ...]], axis: int) -> bool:
    """True when both operands can lose slices of the batch axis `axis` together."""
    sizes = {one.ids.shape[axis], other.ids.shape[axis]}
    return len(sizes) == 1 and dims[0][axis] == dims[1][axis]


def _scores(trace: Trace, node: Node, one: Flow, other: Flow, heads: list[int]) -> Flow:
    """Both summed along their last axis, along the axis `heads` (if any) one sum a slice."""
    rank = one.rank
    ids = trace.unite(node, one.ids, other.ids, "it multiplies them by a computed value that carries no neurons")
    zero = np.broadcast_to(_zero(one) | _zero(other), ids.shape)
    if not heads:
        trace.pin(ids[~zero], node, _NEEDED)
        return Flow.empty(rank)
    size = ids.shape[heads[0]]
    rows, zeros = ids.reshape(size, -1), zero.reshape(size, -1)
    names = trace.new_ids(size)
    needed = (rows >= 0) & ~zeros
    trace.pins.append(
        Pin(rows[needed], f"blocked by {node}: {_NEEDED}", np.broadcast_to(names[:, None], rows.shape)[needed])
    )
    trace.ties.append(Tie(rows, names, f"blocked by {node}: {_HEADS}"))
    known: BoolArray = np.asarray(zeros.all(axis=1))
    return _laid(names, known, rank, heads[0])


def _values(trace: Trace, node: Node, one: Flow, other: Flow, axis: int) -> Flow:
    """Weighted sums of the values `other`; along `axis` the slices of `one` are the weights of a head."""
    size = other.ids.shape[axis]
    names, rows = one.ids.reshape(size), other.ids.reshape(size, -1)
    zero = _zero(one) | _zero(other)
    if rows.shape[1] == 1:
        ids = trace.unite(node, names, rows[:, 0]).reshape(other.ids.shape)
    else:
        trace.ties.append(Tie(rows, names, f"blocked by {node}: {_HEADS}"))
        ids = other.ids
    return Flow.of(ids).with_known(np.broadcast_to(zero, ids.shape), np.zeros(ids.shape, np.float32))


def _zero(flow: Flow) -> BoolArray:
    return np.asarray(flow.known & (flow.values == 0))


def _laid(names: Ids, known: BoolArray, rank: int, axis: int) -> Flow:
    """One id a slice of axis `axis`, 0 where `known`."""
    shape = tuple(-1 if one == axis else 1 for one in range(rank))
    return Flow.of(names.reshape(shape)).with_known(
        known.reshape(shape), np.zeros(names.size, np.float32).reshape(shape)
    )
