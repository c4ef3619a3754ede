"""From the final target to the target of each round."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from onnxprune_passes.errors import SelectionError

Rising = Literal["sparsity", "quality", "threshold"]
RISING: tuple[Rising, ...] = ("sparsity", "quality", "threshold")
"""The units of targets that can rise from round to round."""


def targets_from(final: float, rounds: int, schedule: str = "constant", *, unit: Rising) -> tuple[float, ...]:
    """The targets of `rounds` rounds, the last of which is `final`.

    Args:
        final: a sparsity, a quality parameter or a threshold.
        rounds: how many, at least 1.
        schedule: "constant": each round keeps the same share of what the one before kept, so that density falls
            geometrically; other units rise by equal steps. "cubic": much at first, ever less towards the end,
            s_k = S (1 - (1 - k/N)^3), eq. 1 of Zhu and Gupta 2017, "To prune, or not to prune". Or the targets
            themselves, such as "0.5,0.8,0.9".

    Raises:
        SelectionError: no such schedule, or a list that is not `rounds` rising targets up to `final`.
    """
    shares = [number / rounds for number in range(1, rounds + 1)]
    if schedule == "constant":
        if unit == "sparsity":
            return (*(1 - (1 - final) ** share for share in shares[:-1]), final)
        return (*(final * share for share in shares[:-1]), final)
    if schedule == "cubic":
        return (*(final * (1 - (1 - share) ** 3) for share in shares[:-1]), final)
    try:
        listed = tuple(float(text) for text in schedule.split(","))
    except ValueError:
        raise SelectionError(
            f"--rounds-schedule {schedule!r} is unknown: give constant, cubic, or the targets, such as 0.5,0.8,0.9"
        ) from None
    rising = all(one < other for one, other in pairwise(listed))
    if len(listed) != rounds or not rising or listed[-1] != final or listed[0] < 0:
        raise SelectionError(
            f"--rounds-schedule {schedule}: found {len(listed)} targets, expected {rounds} rising ones up to the final "
            f"{unit}, {final:g}"
        )
    return listed


def epochs_from(listed: str | None, rounds: int, each: int) -> tuple[int, ...]:
    """The epochs of each of `rounds` rounds: those of a list such as "5,5,20", or `each`.

    Raises:
        SelectionError: it is not a list of `rounds` whole numbers from 1 on.
    """
    if listed is None:
        return (each,) * rounds
    try:
        found = tuple(int(text) for text in listed.split(","))
    except ValueError:
        found = ()
    if len(found) != rounds or min(found) < 1:
        raise SelectionError(
            f"--rounds-epochs {listed!r} is not a number of epochs for each of {rounds} rounds, such as "
            f"{','.join(['5'] * rounds)}"
        )
    return found
