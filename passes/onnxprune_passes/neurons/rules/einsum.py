"""Einsum of two operands: a weight that sums over one label, or a product of two computed values.

With a constant operand it is a MatMul whose axes have names: the label that both have and the result lacks is read,
the label that only the weight has is made. With two computed ones it is a batched MatMul.
"""

from __future__ import annotations

from ..flow import Flow
from ..graph import Dim, Node
from ..readers import made, make, read, summed
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace
from .product import contracted


def _einsum(trace: Trace, node: Node) -> None:
    terms = _terms(node)
    if terms is None or [len(term) for term in terms[:2]] != [trace.flow(name).rank for name in node.proto.input]:
        trace.refuse(node, "only products of two operands with one letter an axis are followed")
        return
    weight = next((index for index in (1, 0) if trace.constant(node.input(index)) is not None), None)
    if weight is None:
        _computed(trace, node, *terms)
    else:
        _weighted(trace, node, weight, *terms)


def _terms(node: Node) -> tuple[str, str, str] | None:
    """The letters of both operands and of the result; None for other equations."""
    equation = node.text("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = (*left.split(","), result)
    plain = all(term.isalpha() or not term for term in terms) and all(len(set(term)) == len(term) for term in terms)
    return (terms[0], terms[1], terms[2]) if arrow and len(terms) == 3 and plain else None


def _weighted(trace: Trace, node: Node, weight: int, one: str, other: str, result: str) -> None:
    own, computed = (other, one) if weight else (one, other)
    name = node.input(1 - weight)
    carried = trace.flow(name)
    shared = [label for label in own if label in computed]
    new = [label for label in own if label not in computed and label in result]
    if len(shared) != 1 or len(new) != 1 or len(own) != 2 or shared[0] in result:
        trace.refuse(node, "its constant operand is not a matrix that sums over one axis")
        return
    at = computed.index(shared[0])
    if set(computed) - set(result) - set(shared):
        trace.refuse(node, "it sums over an axis that its constant operand does not have")
    elif not set(carried.axes) - {at}:
        axes = (weight, own.index(shared[0]), own.index(new[0]))
        border = f"behind {node} has no bias to fold into"
        read(trace, node, axes, (name, summed(carried, at)), border=border)
        trace.put(node, 0, made(make(trace, node, weight, axes[2]), len(result), result.index(new[0])))
    elif at in carried.axes:
        trace.refuse(node, "its weight reads along several axes that carry neurons")
    else:
        trace.put(node, 0, _turned(carried.only_zeros(), computed.replace(shared[0], new[0]), result))


def _computed(trace: Trace, node: Node, one: str, other: str, result: str) -> None:
    """As MatMul: letters of both and the result are batch axes, one is summed over, one is each operand's own."""
    batch = "".join(label for label in result if label in one and label in other)
    inner = [label for label in one if label in other and label not in result]
    rows, columns = ([label for label in term if label not in batch and label not in inner] for term in (one, other))
    if not len(inner) == len(rows) == len(columns) == 1 or set(rows + columns) - set(result):
        trace.refuse(node, "it is not a batched product of two matrices")
        return
    layouts = (batch + rows[0] + inner[0], batch + inner[0] + columns[0])
    flows = [
        _turned(trace.flow(name), term, to)
        for name, term, to in zip(node.proto.input, (one, other), layouts, strict=True)
    ]
    dims: list[tuple[Dim, ...]] = []
    for name, term, to in zip(node.proto.input, (one, other), layouts, strict=True):
        shape = trace.dims(name) or ()
        dims.append(tuple(shape[term.index(label)] for label in to))
    if flows[0].rank - 2 in flows[0].axes and flows[1].rank - 1 not in flows[1].axes:
        flows, dims = [_swapped(flow) for flow in flows[::-1]], [(*shape[:-2], *shape[:-3:-1]) for shape in dims[::-1]]
        rows, columns = columns, rows
    after = contracted(trace, node, flows[0], flows[1], dims)
    if after is not None:
        trace.put(node, 0, _turned(after, batch + rows[0] + columns[0], result))


def _turned(flow: Flow, before: str, after: str) -> Flow:
    """`flow`, whose axes are the letters `before`, with its axes in the order `after`."""
    return flow.moved(lambda array: array.transpose([before.index(label) for label in after]))


def _swapped(flow: Flow) -> Flow:
    return flow.moved(lambda array: array.swapaxes(-1, -2))


RULES: Rules = onnx_rules("Einsum", Rule(_einsum))
