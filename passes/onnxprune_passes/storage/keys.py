"""The key of every tensor of a model: its name in the main graph, a path everywhere else.

    conv1.weight                        an initializer of the main graph
    /fc/Constant_output_0               the `value` of a Constant node: the name of its output
    out.then_branch/conv1.weight        in the body `then_branch` of the node whose first output is `out`
    my.domain::Block/weight             in the model-local function `Block`
    y.value                             a tensor attribute of another node whose first output is `y`
    my.domain::Block/@alpha             the default of an attribute of the function `Block`

Node names may be missing or double; first outputs are unique in their graph, and stay when other nodes go.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Each tensor of `model` with its key, in file order; sparse tensors are not among them."""
    yield from tensors_of_graph(model.graph, "")
    for index, info in enumerate(model.training_info):
        yield from tensors_of_graph(info.initialization, f"training_info[{index}].initialization/")
        yield from tensors_of_graph(info.algorithm, f"training_info[{index}].algorithm/")
    for function in model.functions:
        prefix = function_prefix(function)
        for node in function.node:
            yield from _tensors_of_node(node, prefix)
        for attribute in function.attribute_proto:
            yield from _tensors_of_attribute(attribute, f"{prefix}@{attribute.name}")


def tensors_of_graph(graph: onnx.GraphProto, prefix: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Each tensor of `graph` and of the bodies below it, keys starting with `prefix`."""
    for tensor in graph.initializer:
        yield prefix + tensor.name, tensor
    for node in graph.node:
        yield from _tensors_of_node(node, prefix)


def function_prefix(function: onnx.FunctionProto) -> str:
    """What the keys of a model-local function's tensors start with."""
    overload = f":{function.overload}" if function.overload else ""
    return f"{function.domain}::{function.name}{overload}/"


def body_prefix(prefix: str, node: onnx.NodeProto, attribute: str) -> str:
    """What the keys start with in the body that `node` holds as `attribute`."""
    return f"{prefix}{first_output(node)}.{attribute}/"


def first_output(node: onnx.NodeProto) -> str:
    """The name of the first output that `node` has: what identifies it in its graph."""
    return next((name for name in node.output if name), node.name)


def is_constant(node: onnx.NodeProto) -> bool:
    """True for a Constant of the ONNX domain."""
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx")


def _tensors_of_node(node: onnx.NodeProto, prefix: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    for attribute in node.attribute:
        whole = is_constant(node) and attribute.name == "value"
        yield from _tensors_of_attribute(
            attribute, prefix + first_output(node) + ("" if whole else f".{attribute.name}")
        )


def _tensors_of_attribute(attribute: onnx.AttributeProto, key: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    if attribute.HasField("t"):  # whatever `type` says: the oldest files do not set it
        yield key, attribute.t
    for index, tensor in enumerate(attribute.tensors):
        yield f"{key}[{index}]", tensor
    if attribute.HasField("g"):
        yield from tensors_of_graph(attribute.g, f"{key}/")
    for index, graph in enumerate(attribute.graphs):
        yield from tensors_of_graph(graph, f"{key}[{index}]/")
