"""The teacher's answers are asked for once, and are those it would give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import save

from onnxprune.samples import Samples
from onnxprune.torch.retrain import Retrain
from onnxprune.torch.train import setup
from onnxprune.torch.train.answers import Answers
from onnxprune.torch.train.teacher import Feeds, teacher_from
from onnxprune.train_recipe import TrainRecipe


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples the teacher was asked about, call by call."""
    counts: list[int] = []

    def counting(*args: Any, **options: Any) -> Any:
        teacher = teacher_from(*args, **options)

        def one(feeds: Feeds) -> torch.Tensor:
            counts.append(len(next(iter(feeds.values()))))
            return teacher(feeds)

        return one

    monkeypatch.setattr(setup, "teacher_from", counting)
    return counts


def recipe(teacher: Path, epochs: int = 3) -> TrainRecipe:
    return TrainRecipe(data="digits", epochs=epochs, lr=0.05, batch_size=32, keep="last", teacher=str(teacher))


def test_each_sample_is_asked_once_for_all_trainings(
    pruned: State, digits: Samples, asked: list[int], tmp_path: Path
) -> None:
    dense = save(pruned.model, tmp_path / "dense.onnx")
    first = Retrain(recipe(dense), digits)
    kept = first(pruned)
    assert sum(asked) == len(digits)
    replace(first, recipe=recipe(dense, 1))(pruned)
    assert sum(asked) == len(digits)
    asked.clear()
    again = Retrain(recipe(dense), digits, answers=Answers(limit=0))(pruned)
    assert sum(asked) > 3 * len(digits)
    for key in kept.model.initializers:
        torch.testing.assert_close(
            torch.from_numpy(kept.model.initializers[key].copy()),
            torch.from_numpy(again.model.initializers[key].copy()),
            rtol=1e-3,
            atol=1e-4,
        )


def test_samples_that_may_change_are_asked_each_time(
    pruned: State, digits: Samples, asked: list[int], tmp_path: Path
) -> None:
    class Changing:
        note = "another picture each time"

        def __len__(self) -> int:
            return len(digits)

        def batch(self, rows: Any) -> Any:
            return digits.batch(rows)

    Retrain(recipe(save(pruned.model, tmp_path / "dense.onnx")), Changing())(pruned)
    assert sum(asked) > 3 * len(digits) * 0.9
