"""Walk the graph once, bodies included, and let every op's rule say what it does to the ids that reach it.

The walk itself knows no op. It collects: which ids were united, which are pinned and by whom, where a weight reads a
neuron and where one makes it (records.py). `decide` draws the conclusion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import NDArray
from .classes import Ids
from .flow import Flow, evaluate
from .graph import Dim, Graph, Node
from .joint import Joint, pin_joint
from .known import SMALL, compute, learn
from .records import Pin, Producer, Site, Sum, Tie
from .slices import BoolArray, ZeroSlices
from .views import NO_AXIS, Const

if TYPE_CHECKING:
    from .rule import Rule


class Trace:
    """What flows where. Rules call its methods; `run` walks the graph."""

    def __init__(self, graph: Graph, zeros: ZeroSlices) -> None:
        self.graph = graph
        self.count = 0
        self.flows: dict[str, Flow] = {}
        self.pairs: list[tuple[Ids, Ids]] = []
        self.pins: list[Pin] = []
        self.ties: list[Tie] = []
        self.sites: list[Site] = []
        self.sums: list[Sum] = []
        self.producers: list[Producer] = []
        self.bases: dict[tuple[str, int], Ids] = {}
        self.dim_axes: dict[int, Ids] = {}
        self.frozen: dict[str, frozenset[int]] = {}
        self.joints: dict[str, Joint] = {}
        self.parted: set[int] = set()
        self.learned: dict[str, tuple[Dim, ...]] = {}
        self._same: dict[str, str] = {}
        self._claims: set[tuple[str, int, int, int]] = set()
        self._zeros = zeros

    # what rules ask for

    def dims(self, value: str) -> tuple[Dim, ...] | None:
        """The shape of `value` as far as it is known; None when its rank is not."""
        found, flow, const = self.stated(value), self.flows.get(value), self.constant(value)
        if const is not None:
            return const.shape
        if flow is not None and flow.whole:
            return flow.ids.shape
        if flow is None:
            return found
        stated = found or (None,) * flow.rank
        return tuple(
            size if size > 1 and not isinstance(dim, int) else dim
            for size, dim in zip(flow.ids.shape, stated, strict=True)
        )

    def stated(self, value: str) -> tuple[Dim, ...] | None:
        """The shape of `value` by the file and by inference; symbolic sizes that are the same have one name."""
        found = self.learned.get(value, self.graph.dims(value))
        return tuple(map(self._named, found)) if found and self._same else found

    def constant(self, value: str) -> Const | None:
        """The tensor that `value` shows; None when it is computed."""
        return self.graph.constants.get(value)

    def flow(self, value: str, rank: int = 0) -> Flow:
        """What `value` carries; a small constant carries its own values, entry by entry.

        `rank`: the number of axes when nothing else tells.
        """
        found = self.flows.get(value)
        if found is None:
            const = self.constant(value)
            if const is not None and self.graph.source(const).size <= SMALL:
                return Flow.exact(self.graph.array(const))
            dims = self.dims(value)
            return Flow.empty(rank if dims is None else len(dims))
        return found

    def arrays(self) -> list[Ids]:
        """The ids of every value and tensor: each can lose whole slices only, and not all."""
        carried = [*self.flows.values(), *(joint.flow for joint in self.joints.values())]
        return [flow.ids for flow in carried] + list(self.bases.values())

    def exact(self, value: str) -> NDArray | None:
        """The values of `value` when it is a small constant, given or computed from constants; None otherwise."""
        if not value:
            return None
        flow, dims = self.flow(value), self.dims(value)
        return flow.values if flow.ids.shape == dims and flow.known.all() and not flow.carries else None

    def axis_ids(self, node: Node, index: int, axis: int) -> Ids:
        """The ids of axis `axis` of constant input `index`; the axis is then cut together with them. Int64 [size]."""
        name = node.input(index)
        const = self.graph.constants[name]
        tensor_axis = const.axes[axis]
        if tensor_axis == NO_AXIS:
            return self.new_ids(1)
        self._claims.add((name, node.index, index, tensor_axis))
        size = self.graph.source(const).shape[tensor_axis]
        own = self._base(const.key, tensor_axis, size)
        if const.steps is not None and const.steps.axis == tensor_axis and size > 1:
            for key in filter(None, (const.steps.scale, const.steps.zero_point)):
                self.pairs.append((own, self._base(key, 0, size)))
        return const.spread(own, axis)

    def zero_slices(self, const: Const, axis: int) -> BoolArray:
        """Along axis `axis` of the value that `const` is: True where its slice is all zero.

        Where stored axes were merged, where the whole stored slice is.
        """
        own, zero_point = const.axes[axis], self.graph.zero_point(const)
        if own == NO_AXIS:
            return np.array([not (self.graph.source(const).array() != zero_point).any()])
        return const.spread(self._zeros.of(self.graph.source(const), zero_point)[own], axis)

    # what rules say

    def new_ids(self, count: int) -> Ids:
        """`count` fresh ids; -1 for a single one, since an axis never loses its only neuron."""
        if count == 1:
            return np.full(1, -1, np.int64)
        self.count += count
        return np.arange(self.count - count, self.count, dtype=np.int64)

    def unite(self, node: Node, one: Ids, other: Ids, why: str = "the other operand carries no neuron there") -> Ids:
        """Unite two arrays coordinate by coordinate, broadcasting; an id that meets none is pinned, with `why`."""
        if one is other:
            return one
        first, second = np.broadcast_arrays(one, other)
        both = (first >= 0) & (second >= 0)
        self.pairs.append((first[both], second[both]))
        if both.all():
            return first
        self.pin(np.where(both, -1, np.maximum(first, second)), node, why)
        return np.where(both, first, -1)

    def pin(self, ids: Ids, by: Node | str, why: str) -> None:
        """Keep all these ids: `by` (a node) is in the way, for the reason `why`."""
        ids = ids[ids >= 0]
        if ids.size:
            self.pins.append(Pin(ids, f"blocked by {by}: {why}"))

    def refuse(self, node: Node, why: str) -> None:
        """Pin all that reaches `node`; its outputs carry nothing."""
        for name in dict.fromkeys(node.proto.input):
            if name:
                self.pin(self.flow(name).ids, node, why)

    def name_alike(self, old: str, new: str) -> None:
        """Call the symbolic size `old` as `new` is called from now on: they are the same."""
        first, second = self._named(old), self._named(new)
        if isinstance(first, str) and isinstance(second, str) and first != second:
            self._same[first] = second

    def measure(self, ids: Ids) -> int:
        """A fresh id that stands for the size of the axis along which `ids` lie."""
        self.count += 1
        self.dim_axes[self.count - 1] = ids
        return self.count - 1

    def measures(self, ids: Ids) -> bool:
        """True when every id in `ids` stands for a size."""
        return all(one in self.dim_axes for one in ids[ids >= 0].tolist())

    def put(self, node: Node, index: int, flow: Flow) -> None:
        """What output `index` of `node` carries; refused when it does not fit the shape that the file states."""
        name = node.output(index)
        if not name:
            return
        dims = self.stated(name)
        if dims is not None and not _fits(flow, dims):
            stated = list(dims)
            self.pin(flow.ids, node, f"the stated shape {stated} of its output '{name}' does not fit what it computes")
            flow = Flow.empty(len(dims))
        self.flows[name] = flow

    def evaluated(self, node: Node, inputs: list[NDArray | None]) -> tuple[NDArray, ...] | None:
        """The outputs of `node` on small arrays that stand for its inputs; None when they cannot be computed."""
        typed = [
            array if array is None else array.astype(self.graph.dtype(name) or array.dtype, copy=False)
            for name, array in zip(node.proto.input, inputs, strict=True)
        ]
        return evaluate(node, self.graph.opsets, typed)

    # the walk

    def run(self, rules: Mapping[tuple[str, str], Rule]) -> None:
        """Walk the graph by `rules`, (domain, op type) → rule."""
        for node in self.graph.nodes:
            if node.output(0) in self.graph.constants:
                continue
            rule = rules.get((node.domain, node.op_type))
            learn(self, node)
            if compute(self, node, moves=rule is not None and rule.moves):
                continue
            if rule is None and node.has_body:
                self.refuse(node, "neurons are not followed from step to step of its body")
            elif rule is None:
                self.refuse(node, "no rule says what this op does to neurons")
            elif not rule.any_rank and any(self.dims(name) is None for name in node.proto.input if name):
                self.refuse(node, "the rank of an input is not known")
            else:
                self._pin_aside(node, rule)
                rule.flow(self, node)
        for name in self.graph.outputs:
            self.pin(self.flow(name).ids, f"graph output '{name}'", "the interface never changes")
        pin_joint(self)
        self._pin_unclaimed()
        self._pin_measured()

    def _named(self, dim: Dim) -> Dim:
        while isinstance(dim, str) and dim in self._same:
            dim = self._same[dim]
        return dim

    def _base(self, key: str, axis: int, size: int) -> Ids:
        if (key, axis) not in self.bases:
            self.bases[key, axis] = self.new_ids(size)
        return self.bases[key, axis]

    def _pin_aside(self, node: Node, rule: Rule) -> None:
        """Pin what reaches inputs that the rule does not follow, and sizes of axes where they are computed with."""
        sizes = np.fromiter(self.dim_axes, np.int64, len(self.dim_axes))
        for index, name in enumerate(node.proto.input):
            ids = self.flow(name).ids.reshape(-1) if name else sizes[:0]
            if rule.follows and index not in rule.follows:
                self.pin(ids, node, f"it reads '{name}' as sizes, positions or options")
            elif not rule.moves and sizes.size:
                self.pin(ids[np.isin(ids, sizes)], node, "it computes with the size of the axis")

    def _pin_unclaimed(self) -> None:
        """Pin the axes of tensors that some reader uses in a way no rule has claimed."""
        for name, const in self.graph.constants.items():
            for axis in range(len(const.stored)):
                ids = self.bases.get((const.key, axis))
                if ids is None:
                    continue
                for node, index in self.graph.readers.get(name, []):
                    shown = node.output(0) in self.graph.constants
                    if not shown and (name, node.index, index, axis) not in self._claims:
                        self.pin(ids, node, f"it also reads '{const.key}', in another way")
                if name in self.graph.outputs:
                    self.pin(ids, f"graph output '{name}'", "the interface never changes")

    def _pin_measured(self) -> None:
        """Where the size of an axis was pinned, pin the axis."""
        for pin in tuple(self.pins):
            for size in np.intersect1d(pin.ids, np.fromiter(self.dim_axes, np.int64, len(self.dim_axes))):
                self.pins.append(Pin(self.dim_axes[int(size)], pin.reason))


def _fits(flow: Flow, dims: tuple[Dim, ...]) -> bool:
    """True when the arrays have the rank, and on each axis size 1 or the true one."""
    return flow.rank == len(dims) and all(
        size == 1 or not isinstance(dim, int) or dim == size for size, dim in zip(flow.ids.shape, dims, strict=True)
    )
