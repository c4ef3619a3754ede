"""LSTM, GRU and RNN: hidden units are neurons, X's features are read by W.

Unit j is row j of every gate of W, R and B (and of the peepholes), column j of R, and entry j of the initial states:
all are united, over both directions of a bidirectional layer. R reads what the layer itself makes. A unit is the
constant 0 when its rows of the candidate gate and their biases are zero and its initial states are absent or zero:
then the cell stays 0 in every step. An initial state that is zero everywhere is dropped rather than cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..classes import Ids
from ..cut import Cut
from ..flow import Flow
from ..graph import Node
from ..readers import read, summed
from ..records import Producer, Site
from ..rule import Rule, Rules, onnx_rules
from ..slices import BoolArray
from ..trace import Trace

_BOUNDED = {"sigmoid", "hardsigmoid", "tanh", "softsign"}
"""Activations of gates: finite, so that a gate times 0 is 0."""
_KEEP_ZERO = {"tanh", "relu", "leakyrelu", "thresholdedrelu", "scaledtanh", "elu", "softsign"}
"""Activations that map 0 to 0."""
_W, _R, _B, _LENGTHS, _H, _C, _P = range(1, 8)


@dataclass(frozen=True)
class _Kind:
    """One op: how many gates, which of them is the candidate, its activations, and where 0 has to stay 0."""

    gates: int
    candidate: int
    activations: tuple[str, ...]
    keep_zero: tuple[int, ...]

    def stays_zero(self, node: Node) -> bool:
        """True when a unit whose candidate gate sees 0 stays 0, by the activations of `node`."""
        given = node.attributes.get("activations")
        names = [name.decode().lower() for name in given] if given else list(self.activations)
        each = [names[start : start + len(self.activations)] for start in range(0, len(names), len(self.activations))]
        return all(
            name in (_KEEP_ZERO if place in self.keep_zero else _BOUNDED)
            for one in each
            for place, name in enumerate(one)
        )


_KINDS = {
    "LSTM": _Kind(4, 3, ("sigmoid", "tanh", "tanh"), (1, 2)),
    "GRU": _Kind(3, 2, ("sigmoid", "tanh"), (1,)),
    "RNN": _Kind(1, 0, ("tanh",), (0,)),
}


def _flow(trace: Trace, node: Node) -> None:
    kind = _KINDS[node.op_type]
    constants = [trace.constant(node.input(index)) for index in (_W, _R, _B, _P) if node.input(index)]
    if any(const is None for const in constants):
        trace.refuse(node, "its weights or biases are computed")
        return
    shape, r_shape = (trace.graph.constants[node.input(index)].shape for index in (_W, _R))
    if len(shape) != 3 or len(r_shape) != 3 or shape[1] != r_shape[1] or r_shape[1] != kind.gates * r_shape[2]:
        trace.refuse(node, f"its weights {list(shape)} and {list(r_shape)} do not have {kind.gates} gates of one size")
        return
    carried = trace.flow(node.input(0))
    if set(carried.axes) - {2}:
        trace.refuse(node, "it reads neurons along another axis than the features")
        carried = Flow.empty(3)
    border = f"behind {node} does not fold into its gates"
    read(trace, node, (_W, 2, 1), (node.input(0), summed(carried, 2)), border=border)
    units, zero = _units(trace, node, kind)
    recurrent = trace.graph.constants[node.input(_R)]
    values = np.zeros(zero.shape, np.float32)
    trace.sites.append(Site(node, _R, 2, 1, units, trace.zero_slices(recurrent, 2), zero, values, border=border))
    weight = trace.graph.constants[node.input(_W)]
    trace.producers.append(Producer(node, weight.key, weight.axes[1], units, zero, kind.gates))
    for index in range(3):
        shape = (1,) * (3 if index == 0 else 2) + (-1,)
        trace.put(node, index, Flow(units.reshape(shape), zero.reshape(shape), values.reshape(shape)))


def _units(trace: Trace, node: Node, kind: _Kind) -> tuple[Ids, BoolArray]:
    """The ids of the hidden units, everything that belongs to one united, and where a unit is 0 in every step."""
    units = trace.axis_ids(node, _R, 2)
    zero: BoolArray = np.full(units.size, kind.stays_zero(node), np.bool_)
    for index, axis in ((_W, 1), (_R, 1), (_B, 1), (_P, 1)):
        if not node.input(index):
            continue
        own = trace.axis_ids(node, index, axis)
        trace.unite(node, own, np.tile(units, own.size // units.size), "a layer keeps its only unit")
        if index != _P:
            rows = trace.zero_slices(trace.graph.constants[node.input(index)], axis).reshape(-1, units.size)
            zero = zero & rows[kind.candidate :: kind.gates].all(axis=0)
    for index in (_H, _C):
        if node.input(index) and not _is_zero(trace, node.input(index)):
            zero = zero & _state(trace, node, index, units)
    return units, zero


def _state(trace: Trace, node: Node, index: int, units: Ids) -> BoolArray:
    """Unite the initial state `index` with the units; where it is 0."""
    const, name = trace.constant(node.input(index)), node.input(index)
    if const is not None:
        trace.unite(node, units, trace.axis_ids(node, index, 2))
        return trace.zero_slices(const, 2)
    carried = trace.flow(name)
    if set(carried.axes) - {2} or carried.ids.shape[-1] not in (1, units.size):
        trace.pin(carried.ids, node, "its initial state carries neurons along another axis than its units")
        carried = Flow.empty(3)
    state = summed(carried.along({2}), 2)
    trace.unite(node, units, state.ids, f"its initial state '{name}' carries no neurons")
    return np.broadcast_to(state.known & (state.values == 0), units.shape)


def _is_zero(trace: Trace, name: str) -> bool:
    """True when an initial state is 0 everywhere, and no neuron."""
    const = trace.constant(name)
    if const is not None:
        return bool(trace.zero_slices(const, 2).all())
    carried = trace.flow(name)
    return not carried.carries and bool((carried.known & (carried.values == 0)).all())


def _rewrite(cut: Cut, node: Node) -> None:
    """The number of units follows; zero initial states, which name the old one, are dropped: absent means 0."""
    keep = cut.keep(node.input(_R)).get(2)
    if keep is None:
        return
    cut.set_attribute(node, "hidden_size", int(keep.sum()))
    for index in (_H, _C):
        if node.input(index) and _is_zero(cut.trace, node.input(index)):
            cut.drop_input(node, index)


RULES: Rules = onnx_rules("LSTM GRU RNN", Rule(_flow, _rewrite, follows=(0, _W, _R, _B, _H, _C, _P)))
