"""Give nodes new constant inputs, or an addition behind them, through graphsurgeon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..arrays import NDArray
from ..edit import edit
from ..model import Model
from .bodies import body_of, placed, with_body

BEHIND = -1
"""As `New.index`: the constant is added to the node's first output, or `New.op` is done with both."""
INITIALIZERS_ALONE = 4
"""The IR version from which initializers need not be graph inputs; before it, new constants are Constant nodes."""


@dataclass(frozen=True, eq=False)
class New:
    """A new constant: input `index` of the node that makes `output`, or added behind it; a `beta` becomes 1.

    Its name is that of the output and `what`.
    """

    output: str
    index: int
    values: NDArray
    what: str
    op: str = "Add"


def rewire(model: Model, new: Sequence[New]) -> Model:
    """`model` with the new constants in place; the same object when there are none."""
    if not new:
        return model
    prefixes = {name: one.prefix for one in placed(model.skeleton) for name in one.proto.output}
    for prefix in dict.fromkeys(prefixes[one.output] for one in new):
        here = [one for one in new if prefixes[one.output] == prefix]
        inside = [replace(one, output=one.output.removeprefix(prefix)) for one in here]
        taken = _names(model.graph)
        if prefix:
            model = with_body(model, prefix, _rewired(body_of(model, prefix), inside, taken))
        else:
            model = _rewired(model, inside, taken)
    return model


def _rewired(model: Model, new: Sequence[New], taken: set[str]) -> Model:
    """The same in the main graph of `model`; `taken`: names that new values must not have."""
    as_nodes = model.skeleton.ir_version < INITIALIZERS_ALONE

    def change(graph: gs.Graph) -> None:
        makers = {tensor.name: node for node in graph.nodes for tensor in node.outputs}
        for one in new:
            node = makers[one.output]
            constant = _constant(graph, _free(f"{one.output}.{one.what}", taken), one.values, as_nodes)
            if one.index == BEHIND:
                _put_behind(graph, node, constant, _free(f"{one.output}.product", taken), one.op)
                continue
            while len(node.inputs) <= one.index:
                node.inputs.append(gs.Variable.empty())
            node.inputs[one.index] = constant
            if "beta" in node.attrs:
                node.attrs["beta"] = 1.0

    return edit(model, change)


def _constant(graph: gs.Graph, name: str, values: NDArray, as_node: bool) -> gs.Tensor:
    if not as_node:
        return gs.Constant(name, np.asarray(values, order="C"))
    variable = gs.Variable(name, dtype=values.dtype, shape=values.shape)
    graph.nodes.insert(
        0, gs.Node("Constant", attrs={"value": gs.Constant(name, np.asarray(values, order="C"))}, outputs=[variable])
    )
    return variable


def _put_behind(graph: gs.Graph, node: gs.Node, constant: gs.Tensor, name: str, op: str) -> None:
    after = node.outputs[0]
    product = gs.Variable(name, dtype=after.dtype)
    node.outputs[0] = product
    place = next(index for index, other in enumerate(graph.nodes) if other is node)
    graph.nodes.insert(place + 1, gs.Node(op, name=f"{name}.{op.lower()}", inputs=[product, constant], outputs=[after]))


def _names(graph: onnx.GraphProto) -> set[str]:
    """The names that `graph` and the bodies below it use for values."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update((*node.input, *node.output))
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                names |= _names(body)
    return names


def _free(wanted: str, taken: set[str]) -> str:
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name
