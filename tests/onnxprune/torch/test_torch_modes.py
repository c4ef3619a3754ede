"""Dropout by name, BatchNormalization frozen or trained, and batches of another size than the file's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.encode import densify, encode_model
from onnxprune_passes.errors import DataError, ModelError, SelectionError
from onnxprune_passes.model import Model

from onnxprune.torch import module_from_model, run_module

Array = npt.NDArray[Any]
Make = Callable[..., Model]


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def mlp(make: Make) -> Model:
    body = "a = Gemm<transB = 1>(x, w, b) h = Relu(a) y = Gemm<transB = 1>(h, v, c)"
    named = {"w": weights(5, 3), "b": weights(5), "v": weights(2, 5), "c": weights(2)}
    return make(body, "float[N, 3] x", "float[N, 2] y", named)


def test_dropout_by_name_of_a_value(mlp: Model) -> None:
    module = module_from_model(mlp, dropout={"h": 0.5}, outputs=["h"])
    torch.manual_seed(0)
    x = torch.ones(2000, 3)
    plain = module.eval()(x)[0]
    dropped = module.train()(x)[0]
    alive = plain > 0
    assert abs(float((dropped[alive] == 0).float().mean()) - 0.5) < 0.03
    assert torch.equal(dropped[dropped != 0], (plain * 2)[dropped != 0])
    module.set_dropout({"x": 0.25})
    torch.manual_seed(0)
    masked = torch.nn.functional.dropout(x, 0.25)
    torch.manual_seed(0)
    assert torch.equal(module(x)[0], module.eval()(masked)[0])
    module.train().set_dropout({})
    assert torch.equal(module(x)[0], plain)


@pytest.mark.parametrize(("chosen", "message"), [({"q": 0.5}, "computes no value"), ({"h": 1.0}, "from 0 to below 1")])
def test_dropout_that_cannot_be(mlp: Model, chosen: dict[str, float], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        module_from_model(mlp).set_dropout(chosen)


def norm_model(make: Make, training_mode: int = 0) -> Model:
    mode = f"<training_mode = {training_mode}>" if training_mode else ""
    outputs = "y, rm, rv" if training_mode else "y"
    named = {"s": weights(3), "b": weights(3, seed=1), "m": weights(3, seed=2), "v": abs(weights(3, seed=3)) + 0.5}
    return make(
        f"{outputs} = BatchNormalization{mode}(x, s, b, m, v)", "float[N, 3, 4] x", "float[N, 3, 4] y", named, opset=15
    )


def test_batch_norm_is_frozen_unless_trained(make: Make) -> None:
    model = norm_model(make)
    x = torch.from_numpy(weights(8, 3, 4, seed=9)) * 2 + 1
    frozen, trained = module_from_model(model), module_from_model(model, batch_norm="train")
    assert torch.equal(frozen(x)[0], frozen.eval()(x)[0])
    assert np.array_equal(frozen.get_buffer("t:m").numpy(), model.initializers["m"])
    native = torch.nn.BatchNorm1d(3, momentum=0.1)
    for name, key in (("weight", "s"), ("bias", "b"), ("running_mean", "m"), ("running_var", "v")):
        getattr(native, name).data.copy_(torch.from_numpy(model.initializers[key].copy()))
    torch.testing.assert_close(trained(x)[0], native(x))
    torch.testing.assert_close(trained.get_buffer("t:m"), native.running_mean)
    torch.testing.assert_close(trained.get_buffer("t:v"), native.running_var)
    assert torch.equal(trained.eval()(x)[0], native.eval()(x))
    trained.train().batch_norm_momentum = 1.0
    trained(x)
    torch.testing.assert_close(trained.get_buffer("t:m"), x.mean((0, 2)))
    with pytest.raises(SelectionError, match="'half' is unknown; choose one of frozen, train"):
        trained.batch_norm = "half"


def test_training_mode_in_the_file_is_honoured(make: Make) -> None:
    module = module_from_model(norm_model(make, training_mode=1)).eval()
    x = torch.from_numpy(weights(8, 3, 4, seed=9)) * 3
    y = module(x)[0].detach()
    bias = torch.from_numpy(weights(3, seed=1))
    torch.testing.assert_close(y.mean((0, 2)), bias, atol=1e-5, rtol=1e-5)


def static_batch(make: Make, target: list[int], weight: Array, size: int = 1) -> Model:
    body = "r = Reshape(x, to) y = MatMul(r, w)"
    dims = ", ".join(map(str, target[:-1]))
    arrays = {"to": np.array(target), "w": weight}
    return make(body, f"float[{size}, 4, 6] x", f"float[{dims}, 2] y", arrays)


@pytest.mark.parametrize(
    ("target", "rows", "size"),
    [([1, 24], 24, 1), ([1, 4, -1], 6, 1), ([4, 6], 6, 1), ([2, 12, 2], 2, 2), ([8, 6], 6, 2)],
)
def test_other_batches_run_where_the_file_says_one(make: Make, target: list[int], rows: int, size: int) -> None:
    module = module_from_model(static_batch(make, target, weights(rows, 2), size))
    assert module.batch_problem is None
    x = torch.randn(3 * size, 4, 6)
    apart = torch.cat([module(x[at : at + size])[0] for at in range(0, 3 * size, size)])
    assert torch.equal(module(x)[0].reshape(apart.shape), apart)
    if size > 1:
        with pytest.raises(DataError, match="a batch of 3 is not a multiple of the 2"):
            module(x[:3])


def test_a_batch_that_cannot_grow_is_refused(make: Make) -> None:
    arrays = {"c": weights(1, 3), "two": np.array(2, np.float32)}
    model = make("y = Concat<axis = 1>(x, c)", "float[1, 3] x", "float[1, 6] y", arrays)
    module = module_from_model(model)
    assert module.batch_problem is not None
    with pytest.raises(DataError, match="the model runs batches of 1 only"):
        module(torch.ones(2, 3))
    mixed = make("m = ReduceMean<keepdims = 1>(x) y = Sub(x, m)", "float[1, 3] x", "float[1, 3] y")
    assert "other answers" in str(module_from_model(mixed).batch_problem)


def test_run_module_gives_arrays_and_keeps_the_mode(mlp: Model) -> None:
    module = module_from_model(mlp)
    found = run_module(module, {"x": weights(4, 3)})
    assert list(found) == ["y"]
    assert found["y"].dtype == np.float32
    assert module.training


def test_models_without_kernels_in_onnxruntime_are_checked_in_float32(make: Make) -> None:
    """onnxruntime has no Conv in double."""
    named = {"w": weights(4, 3, 2).astype(np.float64)}
    model = make("y = Conv(x, w)", "double[N, 3, 5] x", "double[N, 4, 4] y", named)
    module = module_from_model(model)
    assert module.check is not None
    assert module.check.max_error < 1e-6
    assert module(torch.ones(1, 3, 5, dtype=torch.float64))[0].dtype == torch.float64


def test_encoded_weights_are_refused(make: Make) -> None:
    sparse = np.where(np.arange(4096).reshape(64, 64) % 17 == 0, np.float32(0.5), np.float32(0))
    model = encode_model(make("y = MatMul(x, w)", "float[N, 64] x", "float[N, 64] y", {"w": sparse})).model
    with pytest.raises(ModelError, match=r"1 tensors of the model are stored encoded \(w\): make them dense first"):
        module_from_model(model)
    assert [row.key for row in module_from_model(densify(model)).rows] == ["w"]


def test_outputs_by_name_and_as_text(mlp: Model) -> None:
    module = module_from_model(mlp, outputs=["h", "y"])
    found = module.named(x=torch.ones(2, 3))
    assert list(found) == ["h", "y"]
    assert torch.equal(found["h"], module(torch.ones(2, 3))[0])
    assert repr(module) == "OnnxModule(x -> h, y; 4 trained tensors)"
