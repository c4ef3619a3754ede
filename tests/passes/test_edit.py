from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from builders import body, everything, proto, ramp, stored, value
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnxprune_passes.edit import drop_unread, edit
from onnxprune_passes.errors import ModelError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, load, to_proto


def nothing(_: gs.Graph) -> None:
    """An edit that changes nothing."""


def node_of(graph: gs.Graph, output: str) -> gs.Node:
    return next(node for node in graph.nodes if output in [tensor.name for tensor in node.outputs])


def read_everything() -> onnx.ModelProto:
    """`everything`, with all its initializers read, so that an edit may drop none."""
    model = everything()
    names = [tensor.name for tensor in model.graph.initializer] + ["const", "sparse_const", "custom"]
    names.append(model.graph.sparse_initializer[0].values.name)
    model.graph.node.append(helper.make_node("Reader", names, ["z"], domain="my.domain"))
    model.graph.output.append(value("z", None))
    return model


def chained() -> Model:
    """x @ w, Relu, @ v, with a doc string or metadata wherever graphsurgeon drops them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first", doc_string="the first"),
        helper.make_node("Relu", ["a"], ["b"], "act"),
        helper.make_node("MatMul", ["b", "v"], ["y"], "second"),
    ]
    nodes[2].metadata_props.add(key="from", value="layer 2")
    model = proto(
        nodes,
        [stored("w", ramp(9, 9)), stored("v", ramp(9, 8)), stored("unread", ramp(80)), stored("scale", ramp(2))],
        inputs=[value("x", ["N", 9]), value("unread", [80])],
        outputs=[value("y", ["N", 8])],
    )
    graph = model.graph
    graph.value_info.extend([value("a", ["N", 9]), value("b", ["N", 9])])
    graph.quantization_annotation.add(tensor_name="a").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="scale"
    )
    graph.metadata_props.add(key="g", value="h")
    model.producer_version, model.model_version, model.doc_string = "3.1", 4, "kept"
    return from_proto(model)


def without_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    return rest


def test_an_edit_that_changes_nothing_changes_nothing() -> None:
    model = read_everything()
    loaded = from_proto(model)
    before = loaded.skeleton.SerializeToString()
    assert to_proto(edit(loaded, nothing)) == model
    assert loaded.skeleton.SerializeToString() == before


@pytest.mark.corpus
def test_an_edit_that_changes_nothing_leaves_the_corpus_as_it_is(corpus_path: Path) -> None:
    loaded = load(corpus_path)
    expected = to_proto(loaded)
    before = loaded.skeleton.SerializeToString()
    drop_unread(expected.graph)
    dropped = len(loaded.graph.initializer) - len(expected.graph.initializer)
    assert (dropped > 0) == (corpus_path.stem == "version-RFB-320")
    assert to_proto(edit(loaded, nothing)) == expected
    assert loaded.skeleton.SerializeToString() == before


def test_a_node_and_an_initializer_can_be_put_in() -> None:
    def shift(graph: gs.Graph) -> None:
        second = node_of(graph, "y")
        shifted = gs.Variable("shifted", np.float32)
        offset = gs.Constant("offset", ramp(1, 9))
        graph.nodes.append(gs.Node("Add", "add", inputs=[second.inputs[0], offset], outputs=[shifted]))
        second.inputs[0] = shifted

    model = chained()
    after = edit(model, shift)
    assert [node.op_type for node in after.graph.node] == ["MatMul", "Relu", "Add", "MatMul"]
    x = ramp(3, 9)
    (found,) = ReferenceEvaluator(to_proto(after)).run(None, {"x": x})
    assert np.array_equal(found, (np.maximum(x @ ramp(9, 9), 0) + ramp(1, 9)) @ ramp(9, 8))
    assert np.shares_memory(after.initializers["w"], model.initializers["w"])
    assert without_graph(after.skeleton) == without_graph(model.skeleton)
    assert after.graph.quantization_annotation == model.graph.quantization_annotation
    assert after.graph.metadata_props == model.graph.metadata_props
    assert after.graph.value_info == model.graph.value_info
    assert after.graph.node[0] == model.graph.node[0]


def test_a_changed_node_keeps_what_graphsurgeon_does_not_know() -> None:
    def swap(graph: gs.Graph) -> None:
        second = node_of(graph, "y")
        second.inputs[0] = node_of(graph, "a").outputs[0]
        second.name = "renamed"

    after = edit(chained(), swap)
    (first, second) = after.graph.node
    assert list(second.input) == ["a", "v"]
    assert second.name == "renamed"
    assert second.metadata_props[0].value == "layer 2"
    assert first.doc_string == "the first"
    assert [entry.name for entry in after.graph.value_info] == ["a"]


def test_what_nothing_reads_goes_with_its_input_and_the_interface_stays() -> None:
    after = edit(chained(), nothing)
    assert list(after.initializers) == ["w", "v", "scale"]  # `scale` is read by an annotation
    assert [entry.name for entry in after.graph.input] == ["x"]
    model = proto([helper.make_node("Relu", ["x"], ["y"])], inputs=[value("x"), value("unused")], outputs=[value("y")])
    assert [entry.name for entry in edit(from_proto(model), nothing).graph.input] == ["x", "unused"]


def test_attributes_change_one_by_one() -> None:
    sparse = helper.make_sparse_tensor(stored("s", ramp(2)), stored("", np.array([3, 60], np.int64)), [80])
    node = helper.make_node("Other", ["x"], ["y"], domain="o", big=stored("big", ramp(80)), gone=1, k=2, sparse=sparse)
    node.overload = "kept"

    def change(graph: gs.Graph) -> None:
        attributes = node_of(graph, "y").attrs
        attributes["k"] = 3
        attributes["new"] = [1, 2]
        del attributes["gone"]

    model = from_proto(proto([node], inputs=[value("x")], outputs=[value("y")]))
    after = edit(model, change)
    found = {attribute.name: attribute for attribute in after.graph.node[0].attribute}
    assert set(found) == {"big", "k", "new", "sparse"}
    assert (found["k"].i, list(found["new"].ints)) == (3, [1, 2])
    assert found["sparse"].sparse_tensor == sparse  # graphsurgeon drops it
    assert after.graph.node[0].overload == "kept"
    assert np.array_equal(after.initializers["y.big"], ramp(80))


def test_bodies_stay_intact_when_the_node_around_them_changes() -> None:
    inner = body("inner", [helper.make_node("Add", ["outer", "own"], ["r"])], [stored("own", ramp(80))])
    inner.doc_string = "a body"
    inner.node[0].doc_string = "in a body"
    nodes = [
        helper.make_node("Identity", ["p"], ["q"]),
        helper.make_node("If", ["q"], ["y"], then_branch=inner, else_branch=inner),
    ]
    model = from_proto(proto(nodes, [stored("outer", ramp(80))], inputs=[value("p", [])], outputs=[value("y", None)]))

    def skip_identity(graph: gs.Graph) -> None:
        node_of(graph, "y").inputs[0] = graph.inputs[0]

    after = edit(model, skip_identity)
    (node,) = after.graph.node
    assert list(node.input) == ["p"]
    assert to_proto(after).graph.node[0].attribute == to_proto(model).graph.node[1].attribute
    assert set(after.initializers) == {
        "outer",
        "y.then_branch/own",
        "y.else_branch/own",
    }  # `outer` is not copied inside


def test_a_change_in_a_body_comes_through() -> None:
    inner = body("inner", [helper.make_node("Add", ["outer", "own"], ["r"])], [stored("own", ramp(80))])
    nodes = [helper.make_node("If", ["p"], ["y"], then_branch=inner, else_branch=inner)]
    model = from_proto(proto(nodes, [stored("outer", ramp(80))], inputs=[value("p", [])], outputs=[value("y", None)]))

    def negate(graph: gs.Graph) -> None:
        then_branch = node_of(graph, "y").attrs["then_branch"]
        then_branch.nodes[0].op = "Sub"

    branches = {attribute.name: attribute.g for attribute in to_proto(edit(model, negate)).graph.node[0].attribute}
    assert branches["then_branch"].node[0].op_type == "Sub"
    assert branches["else_branch"] == inner


def test_values_given_to_a_constant_are_taken() -> None:
    def double(graph: gs.Graph) -> None:
        tensors = graph.tensors()
        tensors["small"].values = tensors["small"].values * 2
        tensors["big"].values = ramp(80) * 2

    tensors = [stored("small", ramp(3)), stored("big", ramp(80)), stored("other", ramp(80))]
    model = from_proto(proto([helper.make_node("Sum", ["small", "big", "other"], ["y"])], tensors))
    after = edit(model, double)
    assert after.initializers["small"].tolist() == [2, 4, 6]
    assert np.array_equal(after.initializers["big"], ramp(80) * 2)
    assert np.array_equal(after.initializers["other"], ramp(80))
    assert np.array_equal(from_proto(to_proto(after)).initializers["big"], ramp(80) * 2)
    assert np.array_equal(model.initializers["big"], ramp(80))


def test_a_renamed_weight_keeps_its_values_and_the_input_model_its_name() -> None:
    def rename(graph: gs.Graph) -> None:
        graph.tensors()["w"].name = "renamed"

    model = chained()
    before = model.skeleton.SerializeToString()
    after = edit(model, rename)
    assert np.array_equal(after.initializers["renamed"], ramp(9, 9))
    assert "w" not in after.initializers
    assert model.skeleton.SerializeToString() == before


def test_nodes_put_in_anywhere_come_out_in_order() -> None:
    def prepend(graph: gs.Graph) -> None:
        relu = node_of(graph, "b")
        graph.nodes.append(gs.Node("Neg", inputs=[relu.inputs[0]], outputs=[gs.Variable("n")]))
        relu.inputs[0] = graph.nodes[-1].outputs[0]

    onnx.checker.check_model(to_proto(edit(chained(), prepend)))


@pytest.mark.parametrize("what", ["output", "input"])
def test_the_interface_cannot_be_taken_away(what: str) -> None:
    def cut(graph: gs.Graph) -> None:
        if what == "output":
            graph.outputs = [node_of(graph, "b").outputs[0]]
        else:
            graph.inputs.clear()

    with pytest.raises(ModelError, match=f"takes away the graph {what}"):
        edit(chained(), cut)
