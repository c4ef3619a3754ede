"""Change the topology of a graph with onnx-graphsurgeon, and keep everything that graphsurgeon would drop.

graphsurgeon gets the skeleton, so no bulk weight passes through it. From what it gives back only the differences are
taken: new and changed nodes, new initializers, and what is gone. Every node, initializer, value_info and metadata
entry that the change did not touch stays the very same protobuf (graphsurgeon 0.6.1 loses metadata_props, doc
strings, overloads, training_info, quantization annotations, producer and model version, the order of inputs, and
copies outer initializers into bodies).
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_graphsurgeon as gs

from .model import Model
from .storage.keys import first_output

gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.ERROR


def edit(model: Model, change: Callable[[gs.Graph], None]) -> Model:
    """`model` after `change` has been run on its main graph.

    `change` gets a graphsurgeon graph of the skeleton: weights show their shape and dtype, not their values; new
    tensors are given as `gs.Constant`. Nodes that no graph output depends on any more, and initializers that nothing
    reads any more, go.
    """
    before = gs.import_onnx(model.skeleton)
    untouched = {first_output(node): node for node in _exported(before).node}
    change(before)
    before.cleanup(remove_unused_graph_inputs=False)
    if not _in_order(before):
        before.toposort()
    after = _exported(before)
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    originals = {first_output(node): node for node in model.graph.node}
    del skeleton.graph.node[:]
    for node in after.node:
        same = untouched.get(first_output(node)) == node
        skeleton.graph.node.append(originals[first_output(node)] if same else node)
    known = {tensor.name for tensor in skeleton.graph.initializer}
    skeleton.graph.initializer.extend(tensor for tensor in after.initializer if tensor.name not in known)
    drop_unread(skeleton.graph)
    drop_stale_value_info(skeleton.graph, model.graph)
    return model.with_skeleton(skeleton)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove, in place, the initializers of `graph` that nothing reads, with their entries among the inputs.

    A graph input that no initializer stands behind stays: it is the model's interface.
    """
    read = names_read(graph)
    gone = {tensor.name for tensor in graph.initializer if tensor.name not in read}
    _keep(graph.initializer, lambda tensor: tensor.name in read)
    _keep(graph.input, lambda value: value.name not in gone)


def drop_stale_value_info(graph: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Remove, in place, the value_infos of values that `before` made and `graph` makes no more."""
    gone = _made(before) - _made(graph)
    _keep(graph.value_info, lambda value: value.name not in gone)


def names_read(graph: onnx.GraphProto) -> set[str]:
    """The values that nodes of `graph`, of the bodies below it, or its outputs read."""
    read = {value.name for value in graph.output}
    for node in graph.node:
        read.update(node.input)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                read |= names_read(body)
    return read


def _exported(graph: gs.Graph) -> onnx.GraphProto:
    exported: onnx.GraphProto = gs.export_onnx(graph, do_type_check=False).graph
    return exported


def _made(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}


def _in_order(graph: gs.Graph) -> bool:
    """True when every node of the main graph comes after those that make its inputs."""
    waiting = {id(tensor) for node in graph.nodes for tensor in node.outputs}
    for node in graph.nodes:
        if any(id(tensor) in waiting for tensor in node.inputs):
            return False
        waiting.difference_update(id(tensor) for tensor in node.outputs)
    return True


def _keep(repeated: object, wanted: Callable[[onnx.TensorProto], bool]) -> None:
    kept = [entry for entry in repeated if wanted(entry)]  # type: ignore[attr-defined]
    del repeated[:]  # type: ignore[attr-defined]
    repeated.extend(kept)  # type: ignore[attr-defined]
