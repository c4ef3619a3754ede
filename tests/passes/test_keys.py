from __future__ import annotations

from typing import Any

import onnx
import pytest
from builders import body, constant, everything, proto, ramp, stored
from hypothesis import example, given
from onnx import AttributeProto, helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.storage import from_proto, keys, to_proto
from strategies import models


def test_every_place_has_the_documented_key() -> None:
    found = [key for key, _ in keys.tensors(everything())]
    assert len(found) == len(set(found))
    assert {
        "w",
        "const",
        "picked.then_branch/w",
        "picked.else_branch/w",
        "picked.then_branch/deep.else_branch/c",
        "looped.body/step",
        "custom.tables[1]",
        "my.domain::Block/k",
        "my.domain::Block:other/k",
        "my.domain::Block/@beta",
        "training_info[0].algorithm/rate",
    } <= set(found)


def dense_tensors(message: Any) -> int:
    """The number of TensorProtos anywhere in `message`, those of sparse tensors aside."""
    if isinstance(message, (onnx.TensorProto, onnx.SparseTensorProto)):
        return int(isinstance(message, onnx.TensorProto))
    count = 0
    for field, found in message.ListFields():
        if field.message_type is not None:
            count += sum(dense_tensors(one) for one in (found if hasattr(found, "__len__") else [found]))
    return count


@given(models())
@example(everything())
def test_keys_are_unique_and_reach_every_tensor(model: onnx.ModelProto) -> None:
    found = [key for key, _ in keys.tensors(model)]
    assert len(found) == len(set(found)) == dense_tensors(model)


def test_nodes_without_names_and_with_double_names_are_told_apart() -> None:
    nodes = [constant("a", ramp(2)), constant("b", ramp(2)), constant("c", ramp(2), "n"), constant("d", ramp(2), "n")]
    assert [key for key, _ in keys.tensors(proto(nodes))] == ["a", "b", "c", "d"]


def test_a_first_output_that_is_left_out_does_not_name_a_node() -> None:
    assert keys.first_output(helper.make_node("LSTM", ["x"], ["", "h"], "name")) == "h"
    assert keys.first_output(helper.make_node("Sink", ["x"], [], "name")) == "name"


def test_bodies_with_the_same_names_are_told_apart() -> None:
    branches = {
        name: body(name, [constant("c", ramp(70))], [stored("w", ramp(80))]) for name in ("then_branch", "else_branch")
    }
    model = from_proto(proto([helper.make_node("If", ["p"], [out], **branches) for out in ("a", "b")]))
    assert len(model.initializers) == 8
    assert model.initializers["b.else_branch/c"].shape == (70,)


def test_attributes_of_the_oldest_files_have_no_type() -> None:
    model = proto([constant("c", ramp(80)), helper.make_node("Relu", ["c"], ["y"])])
    model.graph.node[0].attribute[0].ClearField("type")
    assert model.graph.node[0].attribute[0].type == AttributeProto.UNDEFINED
    loaded = from_proto(model)
    assert list(loaded.initializers) == ["c"]
    assert to_proto(loaded) == model


@pytest.mark.parametrize("size", [3, 80])
def test_two_tensors_of_one_name_are_refused(size: int) -> None:
    model = proto([helper.make_node("Relu", ["w"], ["y"])], [stored("w", ramp(size)), stored("w", ramp(size) + 1)])
    with pytest.raises(ModelError, match="two tensors are named 'w'"):
        from_proto(model)


def test_names_that_look_like_the_loader_s_own_numbers_are_names() -> None:
    names = ["#2", "#0", "#1"]
    model = proto(
        [helper.make_node("Relu", ["#0"], ["y"])], [stored(name, ramp(80, start=i)) for i, name in enumerate(names)]
    )
    loaded = from_proto(model)
    assert [loaded.initializers[name][0] for name in names] == [0, 1, 2]
    assert to_proto(loaded) == model
