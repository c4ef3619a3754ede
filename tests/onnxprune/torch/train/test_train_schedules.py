"""Learning rate schedules against torch's own, and every option read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from onnxprune_passes.errors import SelectionError

from onnxprune.torch.train.schedules import Factor, default_rate, factor_from


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def played(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    """The learning rates of the steps that a scheduler of torch gives."""
    found = []
    for _ in range(steps):
        found.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return found


def factors(factor: Factor, steps: int) -> list[float]:
    return [factor(step) for step in range(steps)]


def test_the_learning_rate_is_a_tenth_of_the_original() -> None:
    assert default_rate("sgd") == pytest.approx(0.001)
    assert default_rate("adamw") == pytest.approx(0.0001)
    assert default_rate("sgd", 0.2) == pytest.approx(0.02)
    with pytest.raises(SelectionError, match="no learning rate is known for 'lion'"):
        default_rate("lion")
    with pytest.raises(SelectionError, match="original learning rate is 0"):
        default_rate("sgd", 0.0)


def test_constant() -> None:
    assert factors(factor_from("constant", 5), 7) == [1.0] * 7


def test_cosine_is_torchs() -> None:
    expected = played(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), T_max=19), 20)
    assert factors(factor_from("cosine", 20), 20) == pytest.approx(expected)
    assert factor_from("cosine", 20)(19) == pytest.approx(0)
    assert factor_from("cosine", 20)(99) == pytest.approx(0), "behind the end it stays"
    floored = factors(factor_from("cosine", 20, floor=0.1), 20)
    assert floored == pytest.approx([0.1 + 0.9 * one for one in expected])


def test_a_warm_up_rises_to_the_whole_rate() -> None:
    found = factors(factor_from("cosine", 24, warmup=4), 24)
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[4:] == pytest.approx(factors(factor_from("cosine", 20), 20))
    assert factors(factor_from("constant", 5, warmup=3), 5) == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert factors(factor_from("step", 6, warmup=1, milestones=[3]), 6) == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.1])


def test_milestones_are_torchs() -> None:
    torchs = torch.optim.lr_scheduler.MultiStepLR(optimizer(), milestones=[3, 7], gamma=0.5)
    assert factors(factor_from("step", 10, milestones=[3, 7], gamma=0.5), 10) == pytest.approx(played(torchs, 10))
    assert factor_from("step", 10, milestones=[3])(3) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("original", "options"),
    [("cosine", {"warmup": 3, "floor": 0.2}), ("step", {"milestones": [8, 12], "gamma": 0.3}), ("constant", {})],
)
def test_rewinding_replays_the_last_part(original: str, options: dict[str, Any]) -> None:
    whole = factors(factor_from(original, 20, **options), 20)
    for steps in (5, 12, 20):
        again = factor_from("rewind", steps, original=original, original_steps=20, **options)
        assert factors(again, steps) == pytest.approx(whole[-steps:])


def test_rewinding_takes_a_cosine_unless_told() -> None:
    assert factor_from("rewind", 5, original_steps=20)(0) == pytest.approx((1 + math.cos(math.pi * 15 / 19)) / 2)


def test_one_step_is_a_schedule_too() -> None:
    for name in ("constant", "cosine"):
        assert factor_from(name, 1)(0) == 1.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("linear", {}, "schedule 'linear' is unknown; choose one of constant, cosine, step, rewind"),
        ("constant", {"floor": 0.1}, "'constant' does not read floor"),
        ("constant", {"milestones": [3]}, "'constant' does not read milestones"),
        ("cosine", {"gamma": 0.1}, "'cosine' does not read gamma"),
        ("step", {"milestones": [3], "floor": 0.0}, "'step' does not read floor"),
        ("cosine", {"original": "step"}, "'cosine' does not read original"),
        ("step", {"original_steps": 20}, "'step' does not read original_steps"),
        ("rewind", {}, "which has None: give original_steps"),
        ("rewind", {"original_steps": 5}, "replays the last 10 steps of the original schedule, which has 5"),
        ("rewind", {"original_steps": 20, "original": "rewind"}, "original schedule 'rewind' is unknown"),
        ("rewind", {"original_steps": 20, "original": "step"}, "needs milestones"),
        ("rewind", {"original_steps": 20, "milestones": [3]}, "'cosine' does not read milestones"),
        ("cosine", {"warmup": 10}, "a warm-up of 10 of 10 steps"),
        ("cosine", {"floor": 1.5}, "floor = 1.5"),
        ("step", {"milestones": [5, 3]}, "rising numbers of steps"),
        ("step", {"milestones": [3], "gamma": 0.0}, "gamma = 0.0"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        factor_from(name, 10, **options)


def test_no_steps() -> None:
    with pytest.raises(SelectionError, match="a schedule over 0 steps"):
        factor_from("constant", 0)
