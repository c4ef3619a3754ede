"""Models of an opset that has no sparse storage: converted first, or left dense with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper
from onnxprune_passes.encode import EncodedModel, encode_model
from onnxprune_passes.encode.upgrade import upgraded
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, Skip
from onnxprune_passes.storage import from_proto, to_proto

NDArray = npt.NDArray[Any]
Feeds = Mapping[str, NDArray]
Exact = Callable[[Model, EncodedModel, Feeds], None]
Build = Callable[..., Model]
Sparse = Callable[..., NDArray]

ENCODINGS = ("auto", "gaps", "bitmask", "coo")

GRAPHS = {
    "Clip": "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = Clip<min = -20.0, max = 20.0>(h) }",
    "Slice": """g (float[N,32] x) => (float[N,9] y) { h = MatMul(x, w)
        y = Slice<axes = [1], starts = [3], ends = [12]>(h) }""",
    "Dropout": "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = Dropout<ratio = 0.3>(h) }",
    "Pad": """g (float[N,32] x) => (float[N,36] y) { h = MatMul(x, w)
        y = Pad<mode = "constant", pads = [0, 1, 0, 3], value = 2.0>(h) }""",
    "Flatten": "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = Flatten<axis = 1>(h) }",
    "Constant": """g (float[N,32] x) => (float[N,32] y) { v = Constant <value = float[1] {0}> ()
        h = MatMul(x, w)
        y = MatMul(h, v) }""",
}


CASES = [(op_type, opset) for op_type in GRAPHS for opset in (7, 8, 9, 10) if (op_type, opset) != ("Slice", 10)]


@pytest.mark.parametrize(("op_type", "opset"), CASES)
def test_an_old_opset_is_converted(
    build: Build, sparse: Sparse, feed: Feeds, exact: Exact, op_type: str, opset: int
) -> None:
    found = {"w": sparse(32, 32)} | ({"v": sparse(32, 32, density=0.05)} if op_type == "Constant" else {})
    model = build(GRAPHS[op_type], found, opset=opset, ir=4)
    encoded = encode_model(model)
    assert encoded.model.opset == 11
    assert [entry.summary for entry in encoded.log if isinstance(entry, Change)] == [
        f"converted from opset {opset} to 11, the first with sparse storage",
        "raised the IR version from 4 to 8, which the stored tensors need",
    ]
    assert {tensor.key for tensor in encoded.tensors} == set(found)
    exact(model, encoded, feed)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any) -> None:
    model = build(GRAPHS["Clip"], {"w": sparse(32, 32)}, opset=9, ir=4)
    exact(model, encode_model(model, encoding), feed)


@pytest.mark.parametrize("taken", [True, False])
def test_bodies(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, taken: bool) -> None:
    text = """g (float[N,32] x, bool c) => (float[N,32] y) {
      h = MatMul(x, w)
      y = If (c) <then_branch = t () => (float[N,32] o1) { k = Constant <value = float[1] {0}> ()
                                                           o1 = MatMul(h, k) },
                  else_branch = e () => (float[N,32] o2) { i = MatMul(h, v)
                                                           o2 = Clip<min = -9.0, max = 9.0>(i) }>
    }"""
    found = {"w": sparse(32, 32), "y.then_branch/k": sparse(32, 32), "y.else_branch/v": sparse(32, 32, density=0.05)}
    model = build(text, found, opset=9, ir=4)
    encoded = encode_model(model)
    assert {tensor.key for tensor in encoded.tensors} == set(found)
    exact(model, encoded, {**feed, "c": np.array(taken)})


def test_initializers_that_are_inputs_too(build: Build, sparse: Sparse, feed: Feeds, exact: Exact) -> None:
    """IR version 3 asks for it; the IR version of the file is the one that is reported."""
    text = "g (float[N,32] x, float[32,32] w, float[32] b) => (float[N,32] y) { h = MatMul(x, w)\n y = Add(h, b) }"
    model = build(text, {"w": sparse(32, 32), "b": sparse(32, density=1.0)}, opset=8, ir=3)
    encoded = encode_model(model)
    assert [entry.summary for entry in encoded.log if isinstance(entry, Change)] == [
        "converted from opset 8 to 11, the first with sparse storage",
        "raised the IR version from 3 to 8, which the stored tensors need",
        "initializers that are no graph inputs any more: 2 (w, b)",
    ]
    assert [value.name for value in encoded.model.graph.input] == ["x"]
    exact(model, encoded, feed)
    assert encode_model(model, keep_inputs=True).model is model


def test_what_the_converter_drops_comes_back(build: Build, sparse: Sparse) -> None:
    text = """g (float[N,32] x, bool c) => (float[N,32] y) {
      h = MatMul(x, w)
      y = If (c) <then_branch = t () => (float[N,32] o1) { o1 = Neg(h) }, else_branch = e () => (float[N,32] o2) {
                  o2 = Identity(h) }>
    }"""
    proto = to_proto(build(text, {"w": sparse(32, 32)}, opset=9, ir=6))
    proto.producer_name, proto.producer_version, proto.domain, proto.model_version = "p", "1.2", "d", 7
    helper.set_model_props(proto, {"labels": "a,b"})
    body = next(each.g for each in proto.graph.node[1].attribute if each.name == "then_branch")
    for graph in (proto.graph, body):
        graph.doc_string = "a graph"
        graph.metadata_props.add(key="k", value="v")
        graph.node[0].name, graph.node[0].doc_string = "named", "a node"
        graph.node[0].metadata_props.add(key="n", value="v")
        graph.output[0].doc_string = "an output"
    proto.doc_string = proto.graph.input[0].doc_string = "text"
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 32]))
    proto.graph.initializer[0].doc_string = "a weight"
    proto.graph.quantization_annotation.add().tensor_name = "h"
    newer, reason = upgraded(from_proto(proto))
    assert reason == ""
    found = to_proto(newer)
    assert [entry.version for entry in found.opset_import] == [11]
    for graph in (found.graph, proto.graph):  # the converter sorts attributes
        attributes = sorted(graph.node[1].attribute, key=lambda attribute: attribute.name)
        del graph.node[1].attribute[:]
        graph.node[1].attribute.extend(attributes)
    found.opset_import[0].version = 9
    assert found == proto


def test_values_are_not_copied(build: Build, sparse: Sparse) -> None:
    model = build(GRAPHS["Clip"], {"w": sparse(32, 32)}, opset=9)
    newer, _ = upgraded(model)
    assert newer.initializers.source("w") is model.initializers.source("w")


FUNCTION = """<ir_version: 8, opset_import: ["": 9, "l": 1]>
g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = l.F(h) }
<domain: "l", opset_import: ["": 9]> F (a) => (b) { b = Neg(a) }"""

REFUSED = {
    "functions": (FUNCTION, "drops model-local functions"),
    "no such operator": (
        "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = NoSuchOperator(h) }",
        "cannot bring opset 9 to 11: ",
    ),
    "an attribute that went": (
        """g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)
        y = BatchNormalization<spatial = 0>(h, b, b, b, b) }""",
        "cannot bring opset 9 to 11: Unrecognized attribute: spatial",
    ),
    "a wrong output shape": (
        "g (float[N,32] x) => (float[N,32] y, int64[N,32] z) { h = MatMul(x, w)\n y, z = TopK<k = 3>(h) }",
        "cannot bring opset 9 to 11: [ShapeInferenceError]",
    ),
    "a value that nothing makes": (
        "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = Add(h, missing) }",
        "cannot bring opset 9 to 11: ",
    ),
    "an operator without its inputs": (
        "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = Upsample(h) }",
        "cannot bring opset 9 to 11: ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_converted_stays_dense(build: Build, sparse: Sparse, case: str) -> None:
    text, why = REFUSED[case]
    more = {"b": np.ones(32, np.float32)} if "b, b" in text else {}
    model = build(text, {"w": sparse(32, 32), **more}, opset=9)
    encoded = encode_model(model)
    assert encoded.model is model
    (skip,) = encoded.log
    assert isinstance(skip, Skip)
    assert skip.name == "the model"
    assert skip.reason.startswith("stays dense: onnx's version converter ")
    assert why in skip.reason
    assert "\n" not in skip.reason


def test_training_information_stays(build: Build, sparse: Sparse) -> None:
    proto = to_proto(build(GRAPHS["Clip"], {"w": sparse(32, 32)}, opset=9))
    proto.training_info.add().update_binding.add(key="other", value="new")
    model = from_proto(proto)
    assert encode_model(model).model is model


def test_operators_of_other_domains(build: Build, sparse: Sparse, feed: Feeds, exact: Exact) -> None:
    """Whatever the converter makes of them: the model is right or stays as it was."""
    text = """<ir_version: 6, opset_import: ["": 9, "com.microsoft": 1]>
    g (float[N,32] x) => (float[N,32] y) { y = com.microsoft.FusedMatMul <alpha = 2.0> (x, w) }"""
    model = build(text, {"w": sparse(32, 32)})
    encoded = encode_model(model)
    if encoded.model is model:
        assert [entry.name for entry in encoded.log if isinstance(entry, Skip)] == ["the model"]
    else:
        exact(model, encoded, feed)


def test_nothing_to_encode_is_not_converted(build: Build, sparse: Sparse) -> None:
    for text in (GRAPHS["Clip"], FUNCTION):
        model = build(text, {"w": sparse(32, 32, density=1.0, below=100_000)}, opset=9)
        assert (encode_model(model).model, encode_model(model).log) == (model, ())


def test_a_conversion_that_costs_more_than_it_saves_is_dropped(build: Build, sparse: Sparse) -> None:
    """Each Slice gets its attributes as four tensors."""
    steps = "\n".join(f"h{i + 1} = Slice<axes = [1], starts = [0], ends = [32]>(h{i})" for i in range(40))
    text = f"g (float[N,32] x) => (float[N,32] h40) {{ h0 = MatMul(x, w)\n {steps} }}"
    model = build(text, {"w": sparse(32, 32)}, opset=9)
    newer, reason = upgraded(model)
    assert reason == ""
    assert len(encode_model(newer).tensors) == 1
    assert encode_model(model).model is model


def test_a_model_without_ai_onnx(build: Build, sparse: Sparse) -> None:
    text = """<ir_version: 8, opset_import: ["com.microsoft": 1]>
    g (float[N,32] x) => (float[N,32] y) { y = com.microsoft.FusedMatMul <alpha = 2.0> (x, w) }"""
    model = build(text, {"w": sparse(32, 32)})
    encoded = encode_model(model)
    assert encoded.model is model
    assert [entry.name for entry in encoded.log if isinstance(entry, Skip)] == ["the model"]
