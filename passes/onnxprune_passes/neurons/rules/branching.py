"""If: what its two branches give out is united coordinate by coordinate, and known where both give the same constant.

The nodes of both branches run before the If here, which reads their outputs behind its condition (bodies.py).
"""

from __future__ import annotations

import numpy as np

from ..flow import Flow
from ..graph import Node
from ..operands import operand, united
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace


def _if(trace: Trace, node: Node) -> None:
    count = len(node.proto.output)
    if len(node.proto.input) != 1 + 2 * count:
        trace.refuse(node, f"its branches do not give out {count} values each")
        return
    for index in range(count):
        _either(trace, node, index, (1 + index, 1 + count + index))


def _either(trace: Trace, node: Node, index: int, given: tuple[int, int]) -> None:
    """Output `index` of `node`: one of its inputs `given`."""
    flows = [trace.flow(node.input(one)) for one in given]
    shapes = [trace.dims(node.input(one)) for one in given]
    axes = {axis for flow in flows for axis in flow.axes}
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
        why = "its branches give out values of unknown or different rank"
    elif any(shapes[0][axis] != shapes[1][axis] or _sizes(flows, axis) > 1 for axis in axes):
        why = "its branches give out different numbers of neurons"
    else:
        parts = [part for one in given if (part := operand(trace, node, one, len(shapes[0]), axes)) is not None]
        if len(parts) == 2:
            ids = united(trace, node, parts)
            same = parts[0].known & parts[1].known & (parts[0].values == parts[1].values)
            trace.put(node, index, Flow.of(ids).with_known(np.asarray(same), parts[0].values))
            return
        why = "what one of its branches gives out carries no neuron where the other does"
    for flow in flows:
        trace.pin(flow.ids, node, why)


def _sizes(flows: list[Flow], axis: int) -> int:
    """How many different numbers of neurons lie along `axis`."""
    return len({flow.ids.shape[axis] for flow in flows} - {1})


RULES: Rules = onnx_rules("If", Rule(_if, any_rank=True))
