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

from .errors import ModelError
from .model import Model
from .storage.keys import first_output, tensors_of_graph

gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.ERROR


def edit(model: Model, change: Callable[[gs.Graph], None]) -> Model:
    """`model` after `change` has been run on its main graph.

    `change` gets a graphsurgeon graph of the skeleton: weights show their shape and dtype, not their values; new
    tensors are given as `gs.Constant`. Nodes that no graph output depends on any more, and initializers that nothing
    reads any more, go. The graph's inputs and outputs, its functions and its operator sets stay as they are.

    Raises:
        ModelError: `change` took away or renamed a graph output, or an input that no initializer stands behind.
    """
    imported = onnx.ModelProto()
    imported.CopyFrom(model.skeleton)  # graphsurgeon writes into what it imported
    graph = gs.import_onnx(imported)
    before = onnx.GraphProto()
    before.CopyFrom(_exported(graph))
    change(graph)
    graph.cleanup(remove_unused_graph_inputs=False, recurse_subgraphs=False)  # bodies stay as they are
    if not _in_order(graph):
        graph.toposort()
    after = _exported(graph)
    _require_interface(before, after)
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    _merge_nodes(skeleton.graph, before, after)
    _merge_initializers(skeleton.graph, before, after)
    drop_unread(skeleton.graph)
    drop_stale_value_info(skeleton.graph, model.graph)
    return model.with_skeleton(skeleton)


def _merge_nodes(graph: onnx.GraphProto, before: onnx.GraphProto, after: onnx.GraphProto) -> None:
    """The nodes of `after` into `graph`, each as it was where it equals that of `before`."""
    untouched = {first_output(node): node for node in before.node}
    originals = {first_output(node): node for node in graph.node}
    nodes = []
    for node in after.node:
        old, original = untouched.get(first_output(node)), originals.get(first_output(node))
        if old is None or original is None or old.op_type != node.op_type:
            nodes.append(node)
        else:
            nodes.append(original if old == node else _updated(original, old, node))
    del graph.node[:]
    graph.node.extend(nodes)


def _updated(original: onnx.NodeProto, before: onnx.NodeProto, after: onnx.NodeProto) -> onnx.NodeProto:
    """`original` with the differences between `before` and `after`, which lack what graphsurgeon drops."""
    node = onnx.NodeProto()
    node.CopyFrom(original)
    for field in ("input", "output"):
        node.ClearField(field)
        getattr(node, field).extend(getattr(after, field))
    if before.name != after.name:
        node.name = after.name
    if before.domain != after.domain:
        node.domain = after.domain
    old, new = ({attribute.name: attribute for attribute in side.attribute} for side in (before, after))
    kept = [a for a in original.attribute if old.get(a.name) == new.get(a.name)]
    same = {attribute.name for attribute in kept}
    node.ClearField("attribute")
    node.attribute.extend(kept)
    node.attribute.extend(attribute for name, attribute in new.items() if name not in same)
    return node


def _merge_initializers(graph: onnx.GraphProto, before: onnx.GraphProto, after: onnx.GraphProto) -> None:
    """The initializers of `after` that are new, or not what they were in `before`, into `graph`."""
    old = {tensor.name: tensor for tensor in before.initializer}
    changed = {tensor.name: tensor for tensor in after.initializer if old.get(tensor.name) != tensor}
    for tensor in graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(changed.pop(tensor.name))
    graph.initializer.extend(changed.values())


def _require_interface(before: onnx.GraphProto, after: onnx.GraphProto) -> None:
    stored = {tensor.name for tensor in before.initializer}
    for what, old, new in (("output", before.output, after.output), ("input", before.input, after.input)):
        names = {value.name for value in new}
        gone = [value.name for value in old if value.name not in names and value.name not in stored]
        if gone:
            raise ModelError(
                f"the edit takes away the graph {what} {gone[0]!r}, which is the model's interface: keep it"
            )


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
    """The values that nodes of `graph`, of the bodies below it, its outputs or its quantization annotations read."""
    read = {value.name for value in graph.output}
    for annotation in graph.quantization_annotation:
        read.update(entry.value for entry in annotation.quant_parameter_tensor_names)
    for node in graph.node:
        read.update(node.input)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                read |= names_read(body)
    return read


def _exported(graph: gs.Graph) -> onnx.GraphProto:
    exported: onnx.GraphProto = gs.export_onnx(graph, do_type_check=False).graph
    for _, tensor in tensors_of_graph(exported, ""):
        if not tensor.external_data:  # graphsurgeon leaves the mark of a stub on new values
            tensor.ClearField("data_location")
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
