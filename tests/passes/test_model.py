from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from builders import body, constant, everything, matmuls, proto, ramp, stored, value
from hypothesis import given
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, keys, to_proto
from strategies import models


def shape_in(model: Model, name: str) -> dict[str, list[int]]:
    """Where a value of the main graph has its shape written, and the shape there."""
    graph = model.graph
    found = {}
    for place in ("input", "output", "value_info"):
        for entry in getattr(graph, place):
            if entry.name == name:
                found[place] = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    for tensor in graph.initializer:
        if tensor.name == name:
            found["initializer"] = list(tensor.dims)
    return found


@given(models())
def test_new_values_come_out_and_nothing_else_moves(model: onnx.ModelProto) -> None:
    before = from_proto(model)
    written = before.skeleton.SerializeToString(), {key: array.copy() for key, array in before.initializers.items()}
    changes = {key: np.flip(array) for key, array in before.initializers.items()}
    after = before.with_initializers(changes)
    again = from_proto(to_proto(after))
    for key, array in changes.items():
        assert np.array_equal(after.initializers[key], array)
        assert np.array_equal(again.initializers[key], array)
        assert after.initializers[key].dtype == array.dtype
    assert before.skeleton.SerializeToString() == written[0]
    for key, array in written[1].items():
        assert np.array_equal(before.initializers[key], array)
    whole = to_proto(after)
    for (_, tensor), (_, original) in zip(keys.tensors(whole), keys.tensors(model), strict=True):
        assert (tensor.name, tensor.dims, tensor.data_type) == (original.name, original.dims, original.data_type)
        assert tensor.doc_string == original.doc_string
        tensor.CopyFrom(original)
    assert whole == model  # all but the values


def test_what_was_not_replaced_is_shared() -> None:
    model = from_proto(everything())
    after = model.with_initializers({"w": ramp(13, 5) * 2})
    assert np.shares_memory(after.initializers["float"], model.initializers["float"])
    assert after.skeleton is model.skeleton  # a big tensor of the same shape: the skeleton says the same
    assert len(after.initializers) == len(model.initializers)


@pytest.mark.parametrize("sizes", [(80, 70), (80, 64), (64, 80), (3, 80), (80, 3), (80, 0), (5, 4)])
@pytest.mark.parametrize("store", ["raw", "float_data"])
def test_dims_follow_wherever_they_are_written(sizes: tuple[int, int], store: str) -> None:
    before, after = sizes
    tensor = stored("w", ramp(before), store)
    tensor.doc_string = "kept"
    typed = [value("w", [before])]
    model = from_proto(
        proto([helper.make_node("Relu", ["w"], ["y"])], [tensor], inputs=typed, outputs=[*typed, value("y", ["n"])])
    )
    model.graph.value_info.append(value("w", [before]))
    new = model.with_initializers({"w": ramp(after, start=5)})
    for which, size in ((new, after), (model, before)):
        assert shape_in(which, "w") == {"input": [size], "output": [size], "value_info": [size], "initializer": [size]}
    assert new.graph.output[1].type.tensor_type.shape.dim[0].dim_param == "n"
    whole = to_proto(new)
    assert numpy_helper.to_array(whole.graph.initializer[0]).tolist() == ramp(after, start=5).tolist()
    assert whole.graph.initializer[0].doc_string == "kept"
    assert from_proto(whole).initializers["w"].tolist() == ramp(after, start=5).tolist()


def test_an_input_without_a_shape_gets_none() -> None:
    model = from_proto(
        proto([helper.make_node("Relu", ["w"], ["y"])], [stored("w", ramp(80))], inputs=[value("w", None)])
    )
    new = model.with_initializers({"w": ramp(70)})
    assert not new.graph.input[0].type.tensor_type.HasField("shape")


def test_dims_in_bodies_follow_and_those_of_the_same_name_elsewhere_do_not() -> None:
    branches = {}
    for name in ("then_branch", "else_branch"):
        branches[name] = body(name, [helper.make_node("Relu", ["w"], ["r"])], [stored("w", ramp(80))])
        branches[name].value_info.append(value("w", [80]))
    model = from_proto(proto([helper.make_node("If", ["p"], ["y"], **branches)], [stored("w", ramp(80))]))
    model.graph.value_info.append(value("w", [80]))
    new = model.with_initializers({"y.else_branch/w": ramp(66)})
    shapes = {
        attribute.name: (
            list(attribute.g.initializer[0].dims),
            attribute.g.value_info[0].type.tensor_type.shape.dim[0].dim_value,
        )
        for attribute in new.graph.node[0].attribute
    }
    assert shapes == {"else_branch": ([66], 66), "then_branch": ([80], 80)}
    assert shape_in(new, "w") == {"initializer": [80], "value_info": [80]}


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.float16, ml_dtypes.bfloat16, np.uint8, np.float64])
@pytest.mark.parametrize("size", [3, 64, 65, 100])
def test_every_type_is_rewritten(dtype: Any, size: int) -> None:
    before = (np.arange(size) % 2).astype(dtype)
    model = from_proto(proto([helper.make_node("Identity", ["w"], ["y"])], [stored("w", before)]))
    new = model.with_initializers({"w": 1 - before if dtype != np.bool_ else ~before})
    found = numpy_helper.to_array(to_proto(new).graph.initializer[0])
    assert found.dtype == before.dtype
    assert np.array_equal(found.astype(np.float64), 1 - before.astype(np.float64))


def test_a_wrong_type_or_name_is_refused() -> None:
    model = matmuls({"w": ramp(9, 9)})
    with pytest.raises(ModelError, match="tensor 'w' is float32, its new values are float64: cast them first"):
        model.with_initializers({"w": ramp(9, 9, dtype=np.float64)})
    with pytest.raises(ModelError, match="tensor 'v' is not in the model"):
        model.with_initializers({"v": ramp(9, 9)})
    assert to_proto(model) == to_proto(matmuls({"w": ramp(9, 9)}))


def test_arrays_in_any_layout_are_taken() -> None:
    model = matmuls({"w": ramp(9, 9)})
    for array in (
        ramp(9, 9).T,
        ramp(18, 18)[::2, ::2],
        ramp(9, 9).astype(">f4"),
        np.broadcast_to(np.float32(3), (9, 9)),
    ):
        after = from_proto(to_proto(model.with_initializers({"w": array})))
        assert np.array_equal(after.initializers["w"], array)


def test_initializers_are_a_read_only_mapping() -> None:
    initializers = matmuls({"w": ramp(9, 9), "v": ramp(3, 3)}).initializers
    assert list(initializers) == ["w", "v"]
    assert "w" in initializers
    assert "x0" not in initializers
    assert initializers.get("x0") is None
    assert not hasattr(initializers, "__setitem__")
    with pytest.raises(KeyError):
        initializers.source("x0")


def test_the_opset_is_that_of_the_standard_operators() -> None:
    model = matmuls({"w": ramp(9, 9)})
    assert model.opset == 18
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    del skeleton.opset_import[:]
    skeleton.opset_import.extend([helper.make_opsetid("org.example", 3), helper.make_opsetid("ai.onnx", 12)])
    assert model.with_skeleton(skeleton).opset == 12


# other skeletons


def test_a_new_skeleton_finds_its_tensors_by_their_stubs() -> None:
    model = matmuls({"w": ramp(9, 9), "v": ramp(9, 9) + 1})
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    for name, tensor in zip(("v", "new"), skeleton.graph.initializer, strict=True):
        tensor.name = name  # w is now called v, and v is called new
    skeleton.graph.node[0].input[1], skeleton.graph.node[1].input[1] = "v", "new"
    skeleton.graph.initializer.append(stored("big", ramp(100)))
    skeleton.graph.initializer.append(stored("small", ramp(2)))
    after = model.with_skeleton(skeleton)
    assert {key: array.reshape(-1)[0] for key, array in after.initializers.items()} == {
        "v": 1,
        "new": 2,
        "big": 1,
        "small": 1,
    }
    assert not after.graph.initializer[2].raw_data
    assert after.graph.initializer[3].raw_data
    again = from_proto(to_proto(after))
    assert np.array_equal(again.initializers["v"], ramp(9, 9))
    assert np.array_equal(again.initializers["new"], ramp(9, 9) + 1)


def test_a_new_skeleton_may_bring_sources() -> None:
    model = matmuls({"w": ramp(9, 9)})
    other = matmuls({"v": ramp(9, 9) + 5})
    after = model.with_skeleton(other.skeleton, {"v": other.initializers.source("v")})
    assert list(after.initializers) == ["v"]
    with pytest.raises(ModelError, match="tensor 'v' has no values: its stub points to 'v'"):
        model.with_skeleton(matmuls({"v": ramp(9, 9)}).skeleton)


def test_a_constant_that_leaves_the_skeleton_leaves_the_model() -> None:
    model = from_proto(
        proto([constant("c", ramp(80)), constant("d", ramp(80)), helper.make_node("Relu", ["d"], ["y"])])
    )
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    del skeleton.graph.node[0]
    assert list(model.with_skeleton(skeleton).initializers) == ["d"]
    assert list(model.initializers) == ["c", "d"]


def test_types_without_whole_bytes_cannot_be_asked_for() -> None:
    tensor = helper.make_tensor("n", TensorProto.INT4, [70], [1] * 70)
    model = from_proto(proto([helper.make_node("Identity", ["n"], ["y"])], [tensor]))
    assert "n" not in model.initializers
    with pytest.raises(KeyError):
        model.initializers["n"]
