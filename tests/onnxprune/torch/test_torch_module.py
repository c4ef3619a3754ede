"""The module as a user meets it: inputs, outputs, names, the table, roles, and the ways torch handles modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnxprune_passes.errors import DataError, ModelError, SelectionError, VerifyError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, to_proto

from onnxprune.torch import OnnxModule, key_from_name, module_from_model, name_from_key, unwrapped

Array = npt.NDArray[Any]
Make = Callable[..., Model]


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def mlp(make: Make) -> Model:
    body = "a = Gemm<transB = 1>(x, fc1.w, fc1.b) h = Relu(a) y = Gemm<transB = 1>(h, fc2.w, fc2.b)"
    named = {"fc1.w": weights(5, 3), "fc1.b": weights(5), "fc2.w": weights(2, 5), "fc2.b": weights(2)}
    text = body.replace("fc1.", "fc1").replace("fc2.", "fc2")
    rename = {name.replace(".", ""): name for name in named}
    return make(text, "float[N, 3] x", "float[N, 2] y", named, rename=rename)


@pytest.fixture
def two_inputs(make: Make) -> OnnxModule:
    return module_from_model(
        make("d = Sub(x, z) s = Add(x, z)", "float[N, 2] x, float[N, 2] z", "float[N, 2] d, float[N, 2] s")
    )


def test_inputs_by_place_and_by_name(two_inputs: OnnxModule) -> None:
    x, z = torch.ones(1, 2), torch.full((1, 2), 3.0)
    for found in (two_inputs(x, z), two_inputs(x, z=z), two_inputs(z=z, x=x)):
        assert [one.tolist() for one in found] == [[[-2.0, -2.0]], [[4.0, 4.0]]]
    assert two_inputs.input_names == ("x", "z")
    assert two_inputs.output_names == ("d", "s")


@pytest.mark.parametrize(
    ("inputs", "named", "message"),
    [
        ((1,), {}, "1 inputs were given; the model takes 2: x, z"),
        ((1, 2), {"z": 3}, "input z is unknown or given twice; the model takes x, z"),
        ((1,), {"w": 2}, "input w is unknown or given twice"),
        ((1, 2, 3), {}, "3 inputs were given"),
    ],
)
def test_inputs_that_do_not_fit(
    two_inputs: OnnxModule, inputs: tuple[int, ...], named: dict[str, int], message: str
) -> None:
    one = torch.ones(1, 2)
    with pytest.raises(DataError, match=message):
        two_inputs(*(one for _ in inputs), **dict.fromkeys(named, one))


def test_dims_that_do_not_fit(two_inputs: OnnxModule) -> None:
    with pytest.raises(DataError, match=r"input 'z' has shape \[1, 3\]; the model takes \[\?, 2\]"):
        two_inputs(torch.ones(1, 2), torch.ones(1, 3))


def test_chosen_outputs_leave_out_the_rest(mlp: Model) -> None:
    module = module_from_model(mlp, outputs=["h", "a"])
    h, a = module(torch.ones(4, 3))
    assert torch.equal(h, a.relu())
    assert [key_from_name(name) for name, _ in module.named_parameters()] == ["fc1.w", "fc1.b"]
    with pytest.raises(SelectionError, match="output 'nothing' is no value"):
        module_from_model(mlp, outputs=["nothing"])


def test_names_are_escaped_and_back(mlp: Model) -> None:
    module = module_from_model(mlp)
    assert [name for name, _ in module.named_parameters()] == ["t:fc1%2Ew", "t:fc1%2Eb", "t:fc2%2Ew", "t:fc2%2Eb"]
    for key in ("a.b", "a%2Eb", "%", ".", "", "a/b:0", "y.then_branch/v"):
        assert key_from_name(name_from_key(key)) == key
        assert "." not in name_from_key(key)
    assert key_from_name("module.t:fc1%2Ew") == "fc1.w"
    with pytest.raises(ValueError, match="is not the name of an ONNX tensor"):
        key_from_name("fc1.weight")


def test_state_dict_holds_what_trains(make: Make, tmp_path: Path) -> None:
    body = "a = Conv(x, w) b = BatchNormalization(a, s, t, m, v) c = Clip(b, low) f = Sub(c, big) y = Mul(f, half)"
    arrays = {
        **{"w": weights(2, 3, 1), "s": weights(2), "t": weights(2), "m": weights(2), "v": abs(weights(2))},
        **{"low": np.array(-1, np.float32), "half": np.array(0.5, np.float32), "big": weights(1, 2, 100)},
    }
    model = make(body, "float[N, 3, 100] x", "float[N, 2, 100] y", arrays)
    module = module_from_model(model)
    assert {key_from_name(name) for name in module.state_dict()} == {"w", "s", "t", "m", "v"}
    assert {row.key: row.kind for row in module.rows} == {
        **dict.fromkeys(("w", "s", "t"), "parameter"),
        **dict.fromkeys(("m", "v"), "statistics"),
        **dict.fromkeys(("low", "half"), "host"),
        "big": "buffer",
    }
    other = module_from_model(model.with_initializers({"w": arrays["w"] * 2}))
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    x = torch.randn(2, 3, 100)
    assert torch.equal(other(x)[0], module(x)[0])


def test_the_table_says_what_became_of_each(mlp: Model) -> None:
    lines = module_from_model(mlp, frozen=["fc1.*"]).parameters_table().splitlines()
    assert lines[0].split() == ["tensor", "is", "trained", "roles", "shape", "type", "note"]
    assert lines[1].split() == [
        "fc1.w",
        "parameter",
        "no",
        "Gemm",
        "weight",
        "5x3",
        "float32",
        "frozen",
        "by",
        "request",
    ]
    assert lines[4].split() == ["fc2.b", "parameter", "yes", "Gemm", "bias", "2", "float32"]


def test_trainable_and_frozen_override_the_roles(make: Make) -> None:
    model = make(
        "a = MatMul(x, w) y = Sub(a, c)", "float[2, 3] x", "float[2, 3] y", {"w": weights(3, 3), "c": weights(3)}
    )
    plain = module_from_model(model)
    assert [key_from_name(name) for name, _ in plain.named_parameters()] == ["w"]
    module = module_from_model(model, trainable=["c"], frozen=["w*"])
    assert {key_from_name(name): one.requires_grad for name, one in module.named_parameters()} == {
        "w": False,
        "c": True,
    }
    with pytest.raises(SelectionError, match="'fc9' matches none of the 2 tensors"):
        module_from_model(model, trainable=["fc9"])


def test_masked_tensors_are_parameters_and_start_masked(make: Make) -> None:
    model = make("y = Sub(x, c)", "float[2, 4] x", "float[2, 4] y", {"c": np.ones(4, np.float32)})
    keep = np.array([True, False, True, False])
    module = module_from_model(model, Masks({"c": keep}))
    assert module.get_parameter("t:c").tolist() == [1.0, 0.0, 1.0, 0.0]


def test_fixed_transforms_are_frozen_unless_asked_for(make: Make) -> None:
    at = np.arange(64)
    basis = np.stack([np.cos(2 * np.pi * at * turn / 64) for turn in range(1, 25)], 1).astype(np.float32)
    model = make("y = MatMul(x, w)", "float[2, 64] x", "float[2, 24] y", {"w": basis})
    module = module_from_model(model)
    assert not module.get_parameter("t:w").requires_grad
    assert "sinusoids" in module.rows[0].note
    assert module_from_model(model, trainable=["w"]).get_parameter("t:w").requires_grad


def test_masks_and_numbers_that_nobody_learned_stay_buffers(make: Make) -> None:
    causal = np.triu(np.full((12, 12), -1e9, np.float32), 1)
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12))).astype(np.float32)[0]
    body = "a = Add(x, causal) b = Mul(a, grid) c = Add(b, inf) y = Add(c, learned)"
    arrays = {"causal": causal, "grid": grid, "inf": np.full(12, np.inf, np.float32), "learned": weights(12, 12)}
    model = make(body, "float[12, 12] x", "float[12, 12] y", arrays)
    module = module_from_model(model, check=False)
    assert [key_from_name(name) for name, _ in module.named_parameters()] == ["learned"]


def test_a_wrong_operator_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "leaky_relu", lambda x, slope: x * slope)
    model = make("a = Add(x, w) y = LeakyRelu(a)", "float[2, 3] x", "float[2, 3] y", {"w": weights(3)})
    with pytest.raises(VerifyError, match=r"differ: output y: error .* first at output LeakyRelu node 'y'"):
        module_from_model(model)
    module_from_model(model, check=False)


def test_feeds_are_used_for_the_check(mlp: Model) -> None:
    with pytest.raises(DataError, match="x"):
        module_from_model(mlp, feeds={"z": weights(2, 3)})
    assert module_from_model(mlp, feeds={"x": weights(7, 3)}).check is not None
    assert module_from_model(mlp, check=False).check is None


def test_old_opsets_are_refused(make: Make) -> None:
    with pytest.raises(ModelError, match="opset 6, the torch adapter knows opset 7 and newer: convert it"):
        module_from_model(make("y = Relu(x)", "float[2] x", "float[2] y", opset=6))


def test_torch_handles_it_like_any_module(mlp: Model) -> None:
    module = module_from_model(mlp)
    x = torch.randn(4, 3)
    expected = module(x)[0]
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.get_parameter(name_from_key("fc1.w")).zero_()
    assert torch.equal(module(x)[0], expected)
    assert not torch.equal(twin(x)[0], expected)
    doubled = copy.deepcopy(module).double()
    assert doubled(x.double())[0].dtype == torch.float64
    swapped = {name: torch.zeros_like(one) for name, one in module.named_parameters()}
    assert not torch.func.functional_call(module, swapped, (x,))[0].any()
    assert unwrapped(torch.nn.Sequential(module)) is module
    with pytest.raises(ModelError, match="Linear holds 0 modules"):
        unwrapped(torch.nn.Linear(1, 1))


def test_it_compiles_whole_with_open_sizes(make: Make) -> None:
    body = (
        "s = Shape(x) n = Gather<axis = 0>(s, zero) m = Mul(n, two) u = Reshape(m, rest) t = Concat<axis = 0>(u, rest)"
        " r = Reshape(x, t) a = MatMul(r, w) y = Relu(a)"
    )
    arrays = {"zero": np.array(0), "two": np.array([2]), "rest": np.array([-1]), "w": weights(2, 3)}
    module = module_from_model(make(body, "float[N, 4] x", "float[M, 3] y", arrays))
    compiled = torch.compile(module, backend="eager", fullgraph=True, dynamic=True)
    for size in (2, 5, 9):
        x = torch.randn(size, 4)
        assert torch.equal(compiled(x)[0], module(x)[0])


def test_half_and_bfloat16_weights(make: Make) -> None:
    proto = to_proto(make("y = MatMul(x, w)", "float[2, 3] x", "float[2, 4] y", {"w": weights(3, 4)}))
    for element, dtype in ((onnx.TensorProto.FLOAT16, torch.float16), (onnx.TensorProto.BFLOAT16, torch.bfloat16)):
        half = onnx.ModelProto()
        half.CopyFrom(proto)
        array = proto_array(half).astype(onnx.helper.tensor_dtype_to_np_dtype(element))
        half.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, "w"))
        for value in (*half.graph.input, *half.graph.output):
            value.type.tensor_type.elem_type = element
        module = module_from_model(from_proto(half))
        assert module.check is not None
        assert module.get_parameter("t:w").dtype == dtype
        y = module(torch.ones(2, 3, dtype=dtype))[0]
        torch.testing.assert_close(
            y.float(), torch.ones(2, 3) @ torch.from_numpy(array.astype(np.float32)), rtol=0.02, atol=0.02
        )


def proto_array(proto: onnx.ModelProto) -> Array:
    return np.asarray(onnx.numpy_helper.to_array(proto.graph.initializer[0]))
