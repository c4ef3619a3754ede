"""What a retraining trains and learns from: narrow files, other outputs, teachers, data without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import save
from onnxprune_passes.thresholds import Sparsity

from onnxprune.runtime import input_specs
from onnxprune.samples import read_samples
from onnxprune.torch import hold_masks, module_from_model, write_back
from onnxprune.torch.retrain import Retrain, Retrained
from onnxprune.train_recipe import TrainRecipe

Make = Callable[..., Model]
NARROW = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def narrow_net(make: Make, weights: Callable[..., Any], name: str) -> Model:
    body = "h = Gemm<transB = 1>(x, w, b) r = Relu(h) l = Gemm<transB = 1>(r, u) y = Softmax(l)"
    named = {"w": weights(16, 64) / 8, "b": np.zeros(16), "u": weights(10, 16, seed=1) / 4}
    arrays = {key: one.astype(NARROW[name]) for key, one in named.items()}
    return make(body, f"{name}[N, 64] x", f"{name}[N, 10] y", arrays)


@pytest.mark.parametrize("name", NARROW)
def test_wide_parameters_train_and_are_rounded_back(make: Make, weights: Callable[..., Any], name: str) -> None:
    """Steps far below the distance of two float16 numbers add up."""
    state = MagnitudePrune(Sparsity(0.5))(State(narrow_net(make, weights, name)))
    module = module_from_model(state.model, state.masks, outputs=["l"], wide=True, check=name == "float16")
    assert all(one.dtype == torch.float32 for one in module.parameters())
    assert write_back(module, state.model).initializers["w"].tobytes() == state.model.initializers["w"].tobytes()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)
    hold = hold_masks(module, optimizer)
    x = torch.randn(8, 64).to(torch.float16 if name == "float16" else torch.bfloat16)
    for _ in range(100):
        optimizer.zero_grad()
        (module(x)[0].float() - 3).square().sum().backward()
        optimizer.step()
    hold.check()
    after = write_back(module, state.model)
    assert after.initializers["w"].dtype == NARROW[name]
    keep = state.masks["w"]
    assert not after.initializers["w"].astype(np.float32)[~keep].any()
    moved = (after.initializers["w"] != state.model.initializers["w"])[keep]
    assert moved.mean() > 0.3
    again = module_from_model(after, state.masks, outputs=["l"], check=False)
    assert torch.equal(again.eval()(x)[0], module.eval()(x)[0]), "it computes with the rounded values"


def flat_digits(folder: Path, dtype: Any, labels: bool = True, wide: bool = False) -> Path:
    """The first 200 digits of 64 pixels; with `labels` their classes, with `wide` as ten numbers 0 or 1 each."""
    from sklearn.datasets import load_digits

    found = load_digits()
    classes = np.eye(10, dtype=np.float32)[found.target] if wide else found.target
    arrays = {"x": (found.data[:200] / 16).astype(dtype)} | ({"labels": classes[:200]} if labels else {})
    np.savez(folder / "digits.npz", **arrays)
    return folder / "digits.npz"


def retrained(model: Model, data: Path, **options: Any) -> Retrained:
    path = save(model, data.with_name("trained.onnx"))
    samples = read_samples(str(data), input_specs(path))
    recipe = TrainRecipe(data=str(data), threads=1, batch_size=32, keep="last", **options)
    return Retrain(recipe, samples, validation=samples).run(State(model))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_float16_file_learns(make: Make, weights: Callable[..., Any], tmp_path: Path, optimizer: str) -> None:
    state = MagnitudePrune(Sparsity(0.5))(State(narrow_net(make, weights, "float16")))
    data = flat_digits(tmp_path, np.float16)
    found = retrained(state.model, data, epochs=4, optimizer=optimizer, lr=0.005 if optimizer == "adamw" else 0.1)
    epochs = found.training.epochs
    assert epochs[-1].metric is not None
    assert epochs[0].metric is not None
    assert epochs[-1].metric > epochs[0].metric + 0.3
    after = found.state.model.initializers["w"]
    assert after.dtype == np.float16
    assert not after[state.model.initializers["w"] == 0].any()


@pytest.fixture
def two_heads(make: Make, weights: Callable[..., Any]) -> Model:
    """Two heads of ten scores, each behind a Sigmoid."""
    body = (
        "h = Gemm<transB = 1>(x, w) a = Gemm<transB = 1>(h, u) b = Gemm<transB = 1>(h, v) y = Sigmoid(a) z = Sigmoid(b)"
    )
    named = {"w": weights(16, 64) / 8, "u": weights(10, 16, seed=1) / 4, "v": weights(10, 16, seed=2) / 4}
    return make(body, "float[N, 64] x", "float[N, 10] y, float[N, 10] z", named)


def halved(model: Model, key: str) -> Model:
    return model.with_initializers({key: model.initializers[key] / 2})


@pytest.mark.parametrize("kind", ["onnxruntime", "torch"])
def test_the_teacher_gives_the_output_that_is_trained(two_heads: Model, tmp_path: Path, kind: str) -> None:
    """At `b`: the teacher's own first head would be another target of the same shape."""
    dense = save(two_heads, tmp_path / "dense.onnx")
    data = flat_digits(tmp_path, np.float32, labels=False)
    options = {"output_name": "b", "hard_loss": "mse", "teacher": str(dense), "teacher_in": kind}
    epochs = retrained(halved(two_heads, "v"), data, epochs=8, lr=0.1, **options).training.epochs
    with np.load(data) as file:
        scores = file["x"] @ two_heads.initializers["w"].T @ two_heads.initializers["v"].T
    expected = float(np.square(scores / 2).mean())
    assert epochs[0].validation_loss == pytest.approx(expected, rel=1e-4)
    assert epochs[-1].validation_loss is not None
    assert epochs[-1].validation_loss < 0.2 * expected


def test_numbers_are_distilled_behind_the_sigmoid(two_heads: Model, tmp_path: Path) -> None:
    """Labels from 0 to 1 belong to `y`, not to the scores before it."""
    dense = save(two_heads, tmp_path / "dense.onnx")
    data = flat_digits(tmp_path, np.float32, wide=True)
    options = {"teacher": str(dense), "epochs": 1, "lr": 1e-6, "distill_weight": 0.25}
    found = retrained(two_heads, data, hard_loss="mse", **options)
    assert found.training.notes[0] == "loss distill (mse) at 'y'"
    first = found.training.epochs[0].validation_loss
    assert first is not None
    assert first < 0.75, "the mean of squares of numbers from 0 to 1; that of scores is larger"
    found = retrained(two_heads, data, **options)
    assert found.training.notes[0] == "loss distill (bce) at 'a', before the Sigmoid of 'y'"


def test_without_labels_numbers_and_classes_are_told_apart(
    make: Make, weights: Callable[..., Any], tmp_path: Path
) -> None:
    body = "l = Gemm<transB = 1>(x, w) y = Reshape(l, dims)"
    model = make(body, "float[N, 64] x", "float[N, 2, 5] y", {"w": weights(10, 64) / 8, "dims": np.array([-1, 2, 5])})
    dense, data = save(model, tmp_path / "dense.onnx"), flat_digits(tmp_path, np.float32, labels=False)
    with pytest.raises(SelectionError, match="may hold classes or numbers: say --hard-loss ce or --hard-loss mse"):
        retrained(model, data, teacher=str(dense), epochs=1)
    found = retrained(halved(model, "w"), data, teacher=str(dense), hard_loss="mse", epochs=8, lr=0.1)
    assert found.training.epochs[-1].loss is not None
    assert found.training.epochs[1].loss is not None
    assert found.training.epochs[-1].loss < 0.3 * found.training.epochs[1].loss


@pytest.mark.parametrize("batch", ["N", "4"])
def test_a_sample_may_have_several_rows_of_scores(
    make: Make, weights: Callable[..., Any], tmp_path: Path, batch: str
) -> None:
    """Three positions a sample: logits [N * 3, 10] beside labels [N, 3]; the last batch of four is filled up."""
    body = "f = Reshape(x, dims) y = Gemm<transB = 1>(f, w)"
    named = {"w": weights(10, 64) / 8, "dims": np.array([-1, 64])}
    size = "M" if batch == "N" else "12"
    model = make(body, f"float[{batch}, 3, 64] x", f"float[{size}, 10] y", named)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((38, 3, 64)).astype(np.float32), rng.integers(0, 10, (38, 3))
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    scores = x.astype(np.float64) @ named["w"].T.astype(np.float64)
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    loss = -np.take_along_axis(logs, labels[..., None], -1).mean()
    first = retrained(model, tmp_path / "data.npz", epochs=1).training.epochs[0]
    assert first.validation_loss == pytest.approx(loss, rel=1e-5)
    assert first.metric == pytest.approx((scores.argmax(-1) == labels).mean())
