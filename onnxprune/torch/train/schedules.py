"""Learning rate schedules: step → the factor on the learning rate.

The learning rate itself is by default a tenth of the one that the dense network was trained with, as Han et al. 2015
(section 3.4) retrain the LeNets: `default_rate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnxprune_passes.errors import SelectionError

Factor = Callable[[int], float]
"""The number of steps already taken → the factor on the learning rate of the next one."""

SCHEDULES = ("constant", "cosine", "step", "rewind")
ORIGINAL_RATES = {"sgd": 0.01, "adamw": 0.001}
"""The learning rates that dense networks are taken to have been trained with, where nobody says."""
_TENTH = 0.1


def default_rate(optimizer: str, original: float | None = None) -> float:
    """The learning rate to retrain with: a tenth of the original one (Han et al. 2015, section 3.4).

    Args:
        optimizer: `sgd` or `adamw`; says what the original rate was where `original` does not.
        original: the rate that the dense network was trained with.

    Raises:
        SelectionError: the optimizer is unknown, or the original rate is not positive.
    """
    if optimizer not in ORIGINAL_RATES:
        raise SelectionError(f"no learning rate is known for {optimizer!r}: name one of {', '.join(ORIGINAL_RATES)}")
    if original is not None and not original > 0:
        raise SelectionError(f"the original learning rate is {original}: give one above 0")
    return _TENTH * (ORIGINAL_RATES[optimizer] if original is None else original)


def factor_from(
    name: str,
    steps_total: int,
    *,
    warmup: int = 0,
    floor: float | None = None,
    milestones: Sequence[int] = (),
    gamma: float | None = None,
    original: str | None = None,
    original_steps: int | None = None,
) -> Factor:
    """The schedule `name` over `steps_total` optimizer steps.

    - `constant`: 1.
    - `cosine`: floor + (1 - floor) · (1 + cos(π · t)) / 2, t from 0 to 1 behind the warm-up (Loshchilov and Hutter
      2017, equation 5, one period).
    - `step`: gamma to the number of milestones that have been reached.
    - `rewind`: the last `steps_total` steps of the original schedule, once more (learning rate rewinding, Renda,
      Frankle and Carbin 2020, section 2): the factor of the original one at original_steps - steps_total + step.

    Each of them but `rewind` begins with a linear warm-up: the factor of step k < warmup is multiplied by
    (k + 1) / (warmup + 1) and a cosine begins to fall behind it. In a rewound schedule the options below describe the
    original one. Behind its last step a schedule keeps that step's factor.

    Args:
        name: one of `SCHEDULES`.
        steps_total: how many optimizer steps there will be.
        warmup: steps of the linear warm-up.
        floor: where a cosine ends, from 0 to 1; 0 when not given.
        milestones: numbers of steps at which a step schedule multiplies by gamma, rising.
        gamma: what it multiplies by; 0.1 when not given.
        original: the original schedule that `rewind` replays: constant, cosine or step (when not given: cosine).
        original_steps: how many steps that one had; `rewind` needs it.

    Raises:
        SelectionError: a name is unknown, a number is out of range, or an option is given that the schedule does
            not read.
    """
    if name not in SCHEDULES:
        raise SelectionError(f"schedule {name!r} is unknown; choose one of {', '.join(SCHEDULES)}")
    if steps_total < 1:
        raise SelectionError(f"a schedule over {steps_total} steps: give at least 1")
    if name != "rewind":
        _refuse_given(name, {"original": original, "original_steps": original_steps})
        return _plain(name, steps_total, warmup, floor, tuple(milestones), gamma)
    if original_steps is None or original_steps < steps_total:
        raise SelectionError(
            f"rewind replays the last {steps_total} steps of the original schedule, which has {original_steps}: give "
            "original_steps, at least as many as the retraining takes"
        )
    shape = "cosine" if original is None else original
    if shape not in SCHEDULES or shape == "rewind":
        raise SelectionError(f"the original schedule {shape!r} is unknown; choose constant, cosine or step")
    whole, skipped = (
        _plain(shape, original_steps, warmup, floor, tuple(milestones), gamma),
        original_steps - steps_total,
    )
    return lambda step: whole(skipped + step)


def _plain(
    name: str, steps_total: int, warmup: int, floor: float | None, milestones: tuple[int, ...], gamma: float | None
) -> Factor:
    """The factor of a schedule that is not replayed."""
    if not 0 <= warmup < steps_total:
        raise SelectionError(f"a warm-up of {warmup} of {steps_total} steps: give from 0 to {steps_total - 1}")
    if name != "cosine":
        _refuse_given(name, {"floor": floor})
    if name != "step":
        _refuse_given(name, {"milestones": milestones or None, "gamma": gamma})
    shape: Factor = lambda _: 1.0  # noqa: E731  # the constant one
    if name == "cosine":
        shape = _cosine(warmup, steps_total, 0.0 if floor is None else floor)
    elif name == "step":
        shape = _steps(milestones, 0.1 if gamma is None else gamma)

    def factor(step: int) -> float:
        at = min(step, steps_total - 1)
        return shape(at) * min(1.0, (at + 1) / (warmup + 1))

    return factor


def _cosine(warmup: int, steps_total: int, floor: float) -> Factor:
    if not 0 <= floor <= 1:
        raise SelectionError(f"a cosine ends at floor = {floor}: give a factor from 0 to 1")
    falling = max(steps_total - warmup - 1, 1)
    return lambda step: floor + (1 - floor) * (1 + math.cos(math.pi * max(step - warmup, 0) / falling)) / 2


def _steps(milestones: tuple[int, ...], gamma: float) -> Factor:
    if not milestones or list(milestones) != sorted(set(milestones)) or milestones[0] < 1:
        raise SelectionError(f"a step schedule needs milestones, rising numbers of steps from 1 on; found {milestones}")
    if not gamma > 0:
        raise SelectionError(f"a step schedule multiplies by gamma = {gamma}: give a factor above 0")
    return lambda step: float(gamma ** sum(step >= one for one in milestones))


def _refuse_given(name: str, options: dict[str, object]) -> None:
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise SelectionError(f"the schedule {name!r} does not read {', '.join(given)}: leave it out")
