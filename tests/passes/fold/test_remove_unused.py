"""What no output depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnxprune_passes.fold import RemoveUnused
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import from_proto

Case = tuple[str, dict[str, Any], dict[str, Any]]
VECTOR = [1.0, 2.0, 3.0, 4.0]

GOLDENS: dict[str, Case] = {
    "unused_nodes": (
        "g (float[N,4] x) => (float[N,4] y) { a = Add(x, w) b = Mul(a, v) c = Neg(b) d = Shape(x) y = Relu(a) }",
        {"w": VECTOR, "v": VECTOR, "u": VECTOR},
        {},
    ),
    "unused_in_bodies": (
        "g (float[N,4] x, bool c) => (float[N,4] y) { a = Relu(x) b = Neg(x) d = Abs(x) y = If (c) <"
        "then_branch = t () => (float[N,4] o1) <float[4] v = {1,2,3,4}, float[4] u = {1,2,3,4}> "
        "{ e = Neg(d) o1 = Add(b, v) }, "
        "else_branch = e () => (float[N,4] o2) { o2 = Add(a, w) }> }",
        {"w": VECTOR},
        {},
    ),
    "unused_if": (
        "g (float[N,4] x, bool c) => (float[N,4] y) { a = Relu(x) y = Neg(x) z = If (c) <"
        "then_branch = t () => (float[N,4] o1) { o1 = Neg(a) }, "
        "else_branch = e () => (float[N,4] o2) { o2 = Abs(a) }> }",
        {},
        {},
    ),
    "unused_random": (
        "g (float[N,4] x) => (float[N,4] y) { r = RandomNormal<shape=[4]>() s = RandomNormalLike(x) y = Neg(x) }",
        {},
        {},
    ),
    "unused_positions": ("g (float[N,4] x) => (float[N,4] y) { y, m = Dropout(x) i = Identity(m) }", {}, {}),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(RemoveUnused(), name, *GOLDENS[name])


def names(model: Model) -> list[str]:
    return [tensor.name for tensor in model.graph.initializer]


def test_everything_used_is_the_same_object(build: Callable[..., Model]) -> None:
    text = (
        "g (float[N,4] x, bool c) => (float[N,4] y, float[4] z) { y = If (c) <"
        "then_branch = t () => (float[N,4] o1) { o1 = Add(x, w) }, "
        "else_branch = e () => (float[N,4] o2) { o2 = Abs(x) }> }"
    )
    vector = np.ones(4, np.float32)
    state = State(build(text, {"w": vector, "z": vector}))
    assert RemoveUnused()(state) is state


def test_a_graph_input_with_a_default_is_interface(build: Callable[..., Model]) -> None:
    text = "g (float[N,4] x, float[4] w, float[4] free) => (float[N,4] y) { y = Relu(x) }"
    before = State(build(text, {"w": np.ones(4, np.float32), "u": np.ones(4, np.float32)}))
    after = RemoveUnused()(before).model
    assert names(after) == ["w"]
    assert [value.name for value in after.graph.input] == ["x", "w", "free"]


def test_old_files_have_to_list_initializers_as_inputs(
    build: Callable[..., Model], folded: Callable[..., State]
) -> None:
    weights = {"w": np.ones(4, np.float32), "u": np.ones(4, np.float32)}
    after = folded(RemoveUnused(), build("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }", weights, 8, 3)).model
    assert names(after) == ["w"]
    assert [value.name for value in after.graph.input] == ["x", "w"]


def test_operators_that_may_do_more_stay(build: Callable[..., Model]) -> None:
    text = "g (float[N,4] x) => (float[N,4] y) { a = Relu(x) p = my.Print(a) y = Neg(x) b = Abs(x) }"
    after = RemoveUnused()(State(build(text, domains=', "my": 1'))).model
    assert [node.op_type for node in after.graph.node] == ["Relu", "Print", "Neg"]


FUNCTIONS = """<ir_version: 8, opset_import: ["": 17, "my": 1]>
g (float[N,4] x) => (float[N,4] y) { y = my.Outer(x) z = my.Alone(x) }
<domain: "my", opset_import: ["": 17, "my": 1]> Outer (a) => (b) { b = my.Inner(a) }
<domain: "my", opset_import: ["": 17]> Inner (a) => (b) { b = Neg(a) }
<domain: "my", opset_import: ["": 17]> Alone (a) => (b) { b = Abs(a) }
<domain: "my", opset_import: ["": 17, "other": 1]> Never (a) => (b) { b = other.Print(a) }
"""


def test_functions_that_nothing_calls_go(folded: Callable[..., State]) -> None:
    after = folded(RemoveUnused(), from_proto(onnx.parser.parse_model(FUNCTIONS))).model
    assert [node.op_type for node in after.graph.node] == ["Outer"]
    assert [function.name for function in after.skeleton.functions] == ["Outer", "Inner"]


def test_a_function_that_may_do_more_is_called() -> None:
    model = from_proto(onnx.parser.parse_model(FUNCTIONS.replace("my.Alone(x)", "my.Never(x)")))
    after = RemoveUnused()(State(model)).model
    assert [node.op_type for node in after.graph.node] == ["Outer", "Never"]


def test_what_quantization_annotations_name_stays(build: Callable[..., Model]) -> None:
    model = build("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {"s": np.ones(1, np.float32)})
    annotation = model.skeleton.graph.quantization_annotation.add(tensor_name="y")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    state = State(model)
    assert RemoveUnused()(state) is state


def test_sparse_initializers_go_too(build: Callable[..., Model]) -> None:
    model = build("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    sparse = model.skeleton.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, np.int64)))
    assert not RemoveUnused()(State(model)).model.graph.sparse_initializer


def test_masks_of_what_went_go(build: Callable[..., Model]) -> None:
    ones = np.ones(4, np.float32)
    model = build("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }", {"w": ones, "u": ones})
    after = RemoveUnused()(State(model, Masks({"w": ones > 0, "u": ones > 0})))
    assert list(after.masks) == ["w"]


def test_training_graphs_are_refused(build: Callable[..., Model], reasons: Callable[..., list[str]]) -> None:
    model = build("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {"u": np.ones(4, np.float32)})
    model.skeleton.training_info.add()
    assert reasons(RemoveUnused()(State(model))) == ["the graph: it holds training graphs, which would no longer fit"]
