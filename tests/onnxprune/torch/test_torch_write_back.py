"""Values go back into the same graph: only what changed; and onnxruntime computes what torch does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, load, save, to_proto

from onnxprune.torch import module_from_model, name_from_key, run_module, write_back

Array = npt.NDArray[Any]
Make = Callable[..., Model]
Run = Callable[[Model, Mapping[str, Array]], dict[str, Array]]


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def model(make: Make) -> Model:
    body = (
        "a = Conv<pads = [1, 1]>(x, w, b) n = BatchNormalization(a, s, t, m, v) h = Relu(n) f = Flatten(h)"
        " k = Constant<value = float[2] {1.0, 2.0}>() g = Gemm<transB = 1>(f, fc, c) y = Mul(g, k)"
    )
    named = {"w": weights(4, 3, 3), **{name: weights(4, seed=at) for at, name in enumerate("bstm")}}
    named["v"] = weights(4) ** 2 + np.float32(0.5)
    named |= {"fc": weights(2, 32), "c": weights(2), "nobody": weights(70)}
    proto = to_proto(make(body, "float[N, 3, 8] x", "float[N, 2] y", named))
    proto.producer_name, proto.doc_string = "somebody", "a model"
    proto.metadata_props.add(key="k", value="v")
    proto.graph.doc_string = "a graph"
    proto.graph.node[0].doc_string = "a node"
    proto.graph.value_info.add(name="h").type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return from_proto(proto)


def trained(model: Model, masks: Masks | None = None, **options: Any) -> Any:
    """The module after three steps of SGD."""
    module = module_from_model(model, masks, **options)
    optimizer = torch.optim.SGD([one for one in module.parameters() if one.requires_grad], lr=1e-3)
    torch.manual_seed(0)
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.randn(5, 3, 8))[0].square().mean().backward()
        optimizer.step()
    return module


def test_nothing_changed_gives_the_same_object(model: Model) -> None:
    assert write_back(module_from_model(model), model) is model


def test_everything_but_the_values_is_identical(model: Model) -> None:
    after = to_proto(write_back(trained(model), model))
    before = to_proto(model)
    changed = {
        old.name
        for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True)
        if old.raw_data != new.raw_data
    }
    assert changed == {"w", "b", "s", "t", "fc", "c"}
    for proto in (before, after):
        for tensor in proto.graph.initializer:
            tensor.ClearField("raw_data")
        constant = next(node for node in proto.graph.node if node.op_type == "Constant")
        constant.attribute[0].t.ClearField("float_data")
        constant.attribute[0].t.ClearField("raw_data")
    assert before == after


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_onnxruntime_computes_what_torch_does(
    model: Model, ort: Run, distance: Callable[[Array, Array], float], batch_norm: str
) -> None:
    module = trained(model, batch_norm=batch_norm)
    after = write_back(module, model)
    feeds = {"x": weights(6, 3, 8, seed=5)}
    expected = run_module(module, feeds)["y"]
    assert distance(expected, ort(after, feeds)["y"]) <= 1e-5
    assert distance(ort(model, feeds)["y"], expected) > 1e-4
    moved = not np.array_equal(after.initializers["m"], model.initializers["m"])
    assert moved == (batch_norm == "train")
    again = run_module(module_from_model(after), feeds)["y"]
    assert np.array_equal(again, expected)


def test_only_changed_tensors_are_replaced(model: Model) -> None:
    module = module_from_model(model)
    with torch.no_grad():
        module.get_parameter(name_from_key("fc"))[0, 0] += 1
    after = write_back(module, model)
    for key in model.initializers:
        assert (after.initializers.source(key) is model.initializers.source(key)) == (key != "fc")


def test_constant_nodes_are_written(model: Model) -> None:
    module = module_from_model(model)
    with torch.no_grad():
        module.get_parameter(name_from_key("k")).copy_(torch.tensor([5.0, 7.0]))
    node = next(one for one in to_proto(write_back(module, model)).graph.node if one.op_type == "Constant")
    assert onnx.numpy_helper.to_array(node.attribute[0].t).tolist() == [5.0, 7.0]


def test_pruned_entries_are_plus_zero(model: Model) -> None:
    keep = np.random.default_rng(1).random((2, 32)) < 0.3
    module = trained(model, Masks({"fc": keep}))
    with torch.no_grad():
        module.get_parameter(name_from_key("fc"))[0] = -0.0
        module.get_parameter(name_from_key("fc"))[1] = float("nan")
    after = write_back(module, model).initializers["fc"]
    assert not after[~keep].view(np.uint32).any()
    assert np.isnan(after[1][keep[1]]).all()


def test_external_data_goes_through_the_writer(model: Model, tmp_path: Path) -> None:
    path = save(model, tmp_path / "model.onnx")
    large = load(path).with_initializers({"fc": np.tile(model.initializers["fc"], 1)})
    path = save(large, tmp_path / "external.onnx", external=True)
    module = trained(load(path))
    after = save(write_back(module, load(path)), tmp_path / "after.onnx")
    x = weights(6, 3, 8, seed=5)
    assert np.array_equal(run_module(module_from_model(load(after)), {"x": x})["y"], run_module(module, {"x": x})["y"])


def test_another_model_is_refused(model: Model, make: Make) -> None:
    module = trained(model)
    other = make("y = Relu(x)", "float[2] x", "float[2] y")
    with pytest.raises(ModelError, match="the model has no tensor 'w', which the module trained"):
        write_back(module, other)
    with pytest.raises(ModelError, match=r"'fc' has shape \[2, 16\] in the model and \[2, 32\] in the module"):
        write_back(module, model.with_initializers({"fc": weights(2, 16)}))
