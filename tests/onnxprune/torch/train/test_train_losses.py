"""Losses against numpy, and every option read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.errors import DataError, SelectionError

from onnxprune.torch.train.losses import LOSSES, loss_from

Array = npt.NDArray[Any]


def scores(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 2)


def log_softmax(x: Array) -> Array:
    """Over the last axis, in float64."""
    wide = x.astype(np.float64)
    return np.asarray(wide - np.log(np.exp(wide).sum(-1, keepdims=True)))


def cross_entropy(logits: Array, ids: Array, smoothing: float = 0.0) -> float:
    """Of logits [M, C] and ids [M], written out."""
    logs = log_softmax(logits)
    classes = logits.shape[1]
    wanted = np.eye(classes)[ids] * (1 - smoothing) + smoothing / classes
    return float(-(wanted * logs).sum(1).mean())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1), (6, 1, 5)])
def test_cross_entropy_of_a_class_a_sample(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    ids = np.array([0, 4, 2, 2, 1, 3])
    output = scores(*shape)
    expected = cross_entropy(output.numpy().reshape(6, 5), ids)
    for labels in (torch.from_numpy(ids), torch.from_numpy(ids).reshape(6, 1)):
        assert loss_from("ce")(output, labels.to(dtype), None).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("shape", "axis"), [((2, 5, 3), 1), ((2, 3, 5), 2), ((2, 5, 3, 4), 1), ((2, 3, 4, 5), 3)])
def test_cross_entropy_finds_the_axis_of_the_classes(shape: tuple[int, ...], axis: int) -> None:
    output = scores(*shape)
    positions = [size for index, size in enumerate(shape) if index != axis]
    ids = np.random.default_rng(1).integers(0, 5, positions)
    expected = cross_entropy(np.moveaxis(output.numpy(), axis, -1).reshape(-1, 5), ids.reshape(-1))
    assert loss_from("ce")(output, torch.from_numpy(ids), None).item() == pytest.approx(expected, rel=1e-6)


def test_a_flat_output_takes_labels_of_a_batch() -> None:
    """[N · L, C] logits of a network that reshapes, beside labels [N, L]."""
    output, ids = scores(6, 5), np.array([[0, 1, 2], [3, 4, 0]])
    expected = cross_entropy(output.numpy(), ids.reshape(-1))
    assert loss_from("ce")(output, torch.from_numpy(ids), None).item() == pytest.approx(expected, rel=1e-6)


def test_class_axis_decides_where_both_fit() -> None:
    output, labels = scores(2, 3, 3), torch.tensor([[0, 1, 2], [2, 2, 0]])
    with pytest.raises(DataError, match=r"fit two axes of an output of shape \[2, 3, 3\]"):
        loss_from("ce")(output, labels, None)
    first = cross_entropy(output.numpy().swapaxes(1, 2).reshape(-1, 3), labels.numpy().reshape(-1))
    last = cross_entropy(output.numpy().reshape(-1, 3), labels.numpy().reshape(-1))
    assert loss_from("ce", class_axis=1)(output, labels, None).item() == pytest.approx(first, rel=1e-6)
    assert loss_from("ce", class_axis=-1)(output, labels, None).item() == pytest.approx(last, rel=1e-6)
    assert abs(first - last) > 0.01


def test_label_smoothing() -> None:
    output, ids = scores(6, 5), np.array([0, 4, 2, 2, 1, 3])
    for smoothing in (0.0, 0.1, 0.5):
        found = loss_from("ce", label_smoothing=smoothing)(output, torch.from_numpy(ids), None).item()
        assert found == pytest.approx(cross_entropy(output.numpy(), ids, smoothing), rel=1e-6)


def test_labels_may_be_probabilities() -> None:
    output, wanted = scores(4, 3), torch.softmax(scores(4, 3, seed=1), 1)
    expected = float(-(wanted.numpy() * log_softmax(output.numpy())).sum(1).mean())
    assert loss_from("ce")(output, wanted, None).item() == pytest.approx(expected, rel=1e-6)
    planes, shares = scores(2, 3, 4), torch.softmax(scores(2, 3, 4, seed=1), 1)
    with pytest.raises(DataError, match="may count the classes: say which"):
        loss_from("ce")(planes, shares, None)
    logs = log_softmax(np.moveaxis(planes.numpy(), 1, -1))
    expected = float(-(np.moveaxis(shares.numpy(), 1, -1) * logs).sum(-1).mean())
    assert loss_from("ce", class_axis=1)(planes, shares, None).item() == pytest.approx(expected, rel=1e-6)


def test_positions_labelled_minus_100_do_not_count() -> None:
    output, ids = scores(2, 4, 5), torch.tensor([[0, 1, -100, -100], [2, -100, 3, 4]])
    flat, counts = output.reshape(-1, 5).numpy(), ids.reshape(-1).numpy() >= 0
    expected = cross_entropy(flat[counts], ids.reshape(-1).numpy()[counts])
    assert loss_from("ce")(output, ids, None).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(DataError, match="class ids run from -100 to -100"):
        loss_from("ce")(output, torch.full((2, 4), -100), None)


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((4, 3), torch.tensor([0, 1, 2, 3]), r"class ids run from 0 to 3, the output has 3 classes \(axis 1 of \[4, 3"),
        ((4, 3), torch.tensor([0, 1, -1, 2]), "class ids run from -1 to 2"),
        ((4, 3), torch.tensor([0, 1]), r"labels of shape \[2\] do not fit an output of shape \[4, 3\]"),
        ((4, 3, 2), torch.tensor([0, 1]), r"fit no axis of an output of shape \[4, 3, 2\]"),
        ((4, 3), torch.ones(4, 2), r"labels have shape \[4, 2\], the output \[4, 3\]"),
        ((4, 1), torch.tensor([0, 0, 0, 0]), "no axis behind the first counts classes"),
        ((4, 3), None, "the loss 'ce' needs labels"),
    ],
)
def test_labels_that_do_not_fit(shape: tuple[int, ...], labels: torch.Tensor | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loss_from("ce")(scores(*shape), labels, None)


def test_squared_difference_is_never_broadcast() -> None:
    output, labels = scores(4, 1), torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = float(((output.numpy().reshape(-1) - labels.numpy()).astype(np.float64) ** 2).mean())
    assert loss_from("mse")(output, labels, None).item() == pytest.approx(expected, rel=1e-6)
    assert loss_from("mse")(output, labels.long(), None).item() == pytest.approx(expected, rel=1e-6)
    with pytest.raises(DataError, match=r"labels have shape \[4\], the output \[4, 4\].*take the loss ce"):
        loss_from("mse")(scores(4, 4), labels, None)


def test_binary_cross_entropy_is_that_of_the_sigmoid() -> None:
    output, labels = scores(4, 3), torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    chance = 1 / (1 + np.exp(-output.numpy().astype(np.float64)))
    wanted = labels.numpy()
    expected = float(-(wanted * np.log(chance) + (1 - wanted) * np.log(1 - chance)).mean())
    assert loss_from("bce")(output, labels, None).item() == pytest.approx(expected, rel=1e-5)
    assert loss_from("bce")(output * 1000, (output > 0).int(), None).item() == pytest.approx(0, abs=1e-4)


def divergence(teacher: Array, student: Array, heat: float) -> float:
    """KL(teacher, student) at a temperature over the last axis: the mean over all the others."""
    theirs, ours = log_softmax(teacher / heat), log_softmax(student / heat)
    return float((np.exp(theirs) * (theirs - ours)).sum(-1).mean())


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (2.0, 0.0), (3.0, 1.0)])
def test_distillation_is_hintons(temperature: float, weight: float) -> None:
    output, teacher, ids = scores(6, 5), scores(6, 5, seed=1), np.array([0, 4, 2, 2, 1, 3])
    loss = loss_from("distill", temperature=temperature, weight=weight, label_smoothing=0.2)
    soft = temperature**2 * divergence(teacher.numpy(), output.numpy(), temperature)
    expected = weight * soft + (1 - weight) * cross_entropy(output.numpy(), ids, 0.2)
    assert loss(output, torch.from_numpy(ids), teacher).item() == pytest.approx(expected, rel=1e-5)


def test_distillation_takes_its_defaults() -> None:
    output, teacher, ids = scores(6, 5), scores(6, 5, seed=1), torch.tensor([0, 4, 2, 2, 1, 3])
    named = loss_from("distill", temperature=4.0, weight=0.9, hard="ce")
    assert torch.equal(loss_from("distill")(output, ids, teacher), named(output, ids, teacher))


def test_the_teacher_gets_no_gradient_and_its_copy_no_loss() -> None:
    output, teacher = scores(6, 5).requires_grad_(), scores(6, 5, seed=1).requires_grad_()
    torch.autograd.backward(loss_from("distill", weight=1.0)(output, None, teacher))
    assert teacher.grad is None
    assert output.grad is not None
    same = loss_from("distill", weight=1.0)(output, None, output.detach().clone())
    assert same.item() == pytest.approx(0, abs=1e-6)


def test_at_high_temperature_the_gradient_is_that_of_squared_differences() -> None:
    """Hinton et al. 2015, section 2.1: T² · KL tends to the squared difference of centred logits over 2 C."""
    output, teacher = scores(6, 5).requires_grad_(), scores(6, 5, seed=1)
    torch.autograd.backward(loss_from("distill", weight=1.0, temperature=500.0)(output, None, teacher))
    apart = (output - teacher).detach()
    expected = (apart - apart.mean(1, keepdim=True)) / 5 / 6
    assert output.grad is not None
    torch.testing.assert_close(output.grad, expected, rtol=0.02, atol=1e-3)


def test_distillation_of_independent_entries_and_of_numbers() -> None:
    output, teacher, labels = scores(4, 3), scores(4, 3, seed=1), torch.ones(4, 3)
    p, q = (1 / (1 + np.exp(-one.numpy().astype(np.float64) / 2)) for one in (teacher, output))
    soft = float((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean())
    hard = loss_from("bce")(output, labels, None).item()
    found = loss_from("distill", hard="bce", temperature=2.0, weight=0.7)(output, labels, teacher).item()
    assert found == pytest.approx(0.7 * 4 * soft + 0.3 * hard, rel=1e-5)
    squares = float(((output - teacher) ** 2).mean())
    hard = loss_from("mse")(output, labels, None).item()
    found = loss_from("distill", hard="mse", weight=0.7)(output, labels, teacher).item()
    assert found == pytest.approx(0.7 * squares + 0.3 * hard, rel=1e-5)


def test_distillation_leaves_ignored_positions_out() -> None:
    output, teacher = scores(2, 4, 5), scores(2, 4, 5, seed=1)
    ids = torch.tensor([[0, 1, -100, -100], [2, -100, 3, 4]])
    counts = ids.numpy() >= 0
    soft = 16 * divergence(teacher.numpy()[counts], output.numpy()[counts], 4.0)
    hard = cross_entropy(output.numpy()[counts], ids.numpy()[counts])
    found = loss_from("distill")(output, ids, teacher).item()
    assert found == pytest.approx(0.9 * soft + 0.1 * hard, rel=1e-5)


def test_distillation_that_cannot_be() -> None:
    output, labels = scores(4, 3), torch.tensor([0, 1, 2, 0])
    with pytest.raises(DataError, match="needs the teacher's output"):
        loss_from("distill")(output, labels, None)
    with pytest.raises(DataError, match=r"the teacher's output has shape \[4, 2\], the model's \[4, 3\]"):
        loss_from("distill")(output, labels, scores(4, 2))
    with pytest.raises(DataError, match="needs labels"):
        loss_from("distill")(output, None, scores(4, 3))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_narrow_outputs_are_widened(name: str, dtype: torch.dtype) -> None:
    """60,000 fits float16, the exponentials and squares do not."""
    output = torch.tensor([[60000.0, -60000.0], [1.0, 2.0]], dtype=dtype).requires_grad_()
    labels = torch.tensor([0, 1]) if name in ("ce", "distill") else torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = loss_from(name)(output, labels, output.detach())
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(found)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("huber", {}, "loss 'huber' is unknown; the losses are ce, bce, mse, distill and module:function"),
        ("distill", {"hard": "distill"}, "hard loss 'distill' is unknown"),
        ("mse", {"label_smoothing": 0.1}, "'mse' does not read label_smoothing"),
        ("bce", {"class_axis": 1}, "'bce' does not read class_axis"),
        ("ce", {"temperature": 2.0}, "'ce' does not read temperature"),
        ("ce", {"weight": 0.5, "hard": "ce"}, "does not read weight, hard"),
        ("distill", {"hard": "mse", "temperature": 2.0}, "does not read temperature"),
        ("distill", {"hard": "bce", "label_smoothing": 0.1}, "does not read label_smoothing"),
        ("os:getcwd", {"label_smoothing": 0.1}, "does not read label_smoothing"),
        ("ce", {"label_smoothing": 1.0}, "label_smoothing = 1.0"),
        ("distill", {"temperature": 0.0}, "temperature = 0.0"),
        ("distill", {"weight": 1.5}, "weight = 1.5"),
        ("nowhere:loss", {}, "'nowhere' cannot be imported"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        loss_from(name, **options)


def test_class_axis_out_of_range() -> None:
    with pytest.raises(SelectionError, match="class_axis = 2"):
        loss_from("ce", class_axis=2)(scores(4, 3), torch.zeros(4).long(), None)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of the user's in the working directory."""
    text = "def twice(output, labels, teacher):\n    return 2 * (output - labels).abs().mean() + teacher.sum()\n"
    (tmp_path / "own_losses.py").write_text(
        text + "def wrong(*_):\n    return 1.0\ndef wide(output, *_):\n    return output\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_losses", None)


@pytest.mark.usefixtures("own_module")
def test_a_function_of_the_users() -> None:
    output, labels = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    assert loss_from("own_losses:twice")(output, labels, torch.ones(3)).item() == 6.0
    with pytest.raises(DataError, match="'own_losses:wrong' gave float"):
        loss_from("own_losses:wrong")(output, labels, None)
    with pytest.raises(DataError, match=r"gave a tensor of shape \[1, 2\]"):
        loss_from("own_losses:wide")(output, labels, None)
