"""Teachers in onnxruntime and in torch give the same targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnxprune_passes.errors import DataError, ModelError, SelectionError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import save

from onnxprune.torch import module_from_model
from onnxprune.torch.train.losses import loss_from
from onnxprune.torch.train.teacher import KINDS, teacher_from

Make = Callable[..., Model]


@pytest.fixture
def path(convnet: Model, tmp_path: Path) -> Path:
    return save(convnet, tmp_path / "dense.onnx")


def batch(count: int = 6) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0)), "other": torch.zeros(count)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", [None, "l", "h", "y"])
def test_it_gives_the_dense_models_value(convnet: Model, path: Path, kind: str, output: str | None) -> None:
    expected = module_from_model(convnet, outputs=[output or "l"]).eval()(batch()["x"])[0].detach()
    teacher = teacher_from(path, kind, output)
    for _ in range(2):
        found = teacher(batch())
        assert not found.requires_grad
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    probability = teacher_from(path, kind, "y")(batch())
    torch.testing.assert_close(probability.sum(1), torch.ones(6))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_of_file", [1, 3, 4])
def test_a_file_with_another_batch_runs_in_pieces(
    make: Make, tmp_path: Path, weights: Callable[..., Any], kind: str, batch_of_file: int
) -> None:
    body = "r = Reshape(x, dims) l = Gemm(r, w) y = Softmax(l)"
    named = {"dims": np.array([batch_of_file, 6]), "w": weights(6, 3)}
    size = f"float[{batch_of_file}"
    dense = save(make(body, f"{size}, 2, 3] x", f"{size}, 3] y", named), tmp_path / "dense.onnx")
    x = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
    found = teacher_from(dense, kind)({"x": x})
    torch.testing.assert_close(found, x.reshape(12, 6) @ torch.from_numpy(named["w"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_last_piece_that_is_too_short_is_filled_up(
    make: Make, tmp_path: Path, weights: Callable[..., Any], kind: str
) -> None:
    named = {"w": weights(6, 3)}
    dense = save(make("y = Gemm(x, w)", "float[4, 6] x", "float[4, 3] y", named), tmp_path / "dense.onnx")
    for count in (2, 7):
        x = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
        found = teacher_from(dense, kind)({"x": x})
        torch.testing.assert_close(found, x @ torch.from_numpy(named["w"]), rtol=1e-4, atol=1e-5)


def test_external_data_is_found(convnet: Model, path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save(
        onnx.load(path), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    expected = module_from_model(convnet, outputs=["l"]).eval()(batch()["x"])[0].detach()
    for kind in KINDS:
        for output in ("l", "y"):
            found = teacher_from(folder / "model.onnx", kind, output)(batch())
            if output == "l":
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_learns_from_it(convnet: Model, path: Path, kind: str) -> None:
    """Towards the teacher, without labels."""
    teacher, loss = teacher_from(path, kind), loss_from("distill", weight=1.0)
    module = module_from_model(convnet, outputs=["l"])
    with torch.no_grad():
        module.get_parameter("t:u").mul_(0.5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        found = loss(module(batch()["x"])[0], None, teacher(batch()))
        torch.autograd.backward(found)
        optimizer.step()
        losses.append(found.item())
    assert losses[-1] < 0.5 * losses[0]


def test_what_cannot_be(path: Path, tmp_path: Path) -> None:
    with pytest.raises(SelectionError, match="teacher in 'jax' is unknown; choose one of onnxruntime, torch"):
        teacher_from(path, "jax")
    for kind in KINDS:
        with pytest.raises(SelectionError, match="'nobody' is no value"):
            teacher_from(path, kind, "nobody")
        with pytest.raises(ModelError):
            teacher_from(tmp_path / "missing.onnx", kind)
        with pytest.raises(DataError, match="input x is not in the batch"):
            teacher_from(path, kind)({"z": torch.zeros(1, 1, 4, 4)})
