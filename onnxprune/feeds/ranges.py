"""How many rows an integer input may index: following its values forward to the Gather that reads them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import inliner

# Ops whose output holds values of the inputs named here, unchanged.
_KEEPS_VALUES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Cast", "Identity", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"), (0,)),
    **dict.fromkeys(("Expand", "Slice", "Split", "Tile", "Pad", "Gather"), (0,)),
    "Where": (1, 2),
    "Concat": tuple(range(64)),
}
_KEEPS_SHAPE = ("Cast", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear")


def gather_rows(path: str | Path, inputs: Iterable[str]) -> dict[str, int]:
    """Rows of the tables that integer inputs index.

    An input is followed through ops that pass values on (Cast, Reshape, Unsqueeze, Concat…), into the bodies of If,
    Loop and Scan and into model-local functions, to every Gather whose indices it reaches; of several tables the
    shortest counts. The table's size on the gathered axis comes from its initializer, Constant or value_info.

    Args:
        path: the model file; external data is not read.
        inputs: names of graph inputs.

    Returns:
        Input name -> rows, for the inputs that reach at least one Gather with a table of known size.
    """
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    if model.functions:
        model = inliner.inline_local_functions(model)
    graphs = list(_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    for node in nodes:
        for position, name in enumerate(node.input):
            readers[name].append((node, position))
    shapes = _shapes(graphs, nodes)
    rows = {name: _shortest_table(name, readers, shapes) for name in inputs}
    return {name: count for name, count in rows.items() if count is not None}


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every body inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(body)


def _shapes(graphs: list[onnx.GraphProto], nodes: list[onnx.NodeProto]) -> dict[str, tuple[int, ...]]:
    """Static shapes of tensors: initializers, Constants, value_info, and what keeps or permutes them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for graph in graphs:
        for info in graph.value_info:
            dims = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
            if dims and min(dims) > 0:
                shapes[info.name] = tuple(dims)
        shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
        shapes.update({sparse.values.name: tuple(sparse.dims) for sparse in graph.sparse_initializer})
    for node in nodes:
        if node.op_type == "Constant":
            shapes.update((node.output[0], tuple(item.t.dims)) for item in node.attribute if item.name == "value")
        elif node.op_type in _KEEPS_SHAPE and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
        elif node.op_type == "Transpose" and node.input[0] in shapes:
            source = shapes[node.input[0]]
            order = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
            shapes[node.output[0]] = tuple(source[axis] for axis in order) if order else source[::-1]
    return shapes


def _shortest_table(
    start: str, readers: dict[str, list[tuple[onnx.NodeProto, int]]], shapes: dict[str, tuple[int, ...]]
) -> int | None:
    """The fewest rows among the Gathers that the values named `start` index; None when they index no known table."""
    rows: list[int] = []
    seen, waiting = {start}, deque([start])
    while waiting:
        for node, position in readers[waiting.popleft()]:
            if node.op_type == "Gather" and position == 1 and node.input[0] in shapes:
                axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
                shape = shapes[node.input[0]]
                if -len(shape) <= axis < len(shape):
                    rows.append(shape[axis])
            elif position in _KEEPS_VALUES.get(node.op_type, ()):
                fresh = [name for name in node.output if name and name not in seen]
                seen.update(fresh)
                waiting.extend(fresh)
    return min((count for count in rows if count > 0), default=None)
