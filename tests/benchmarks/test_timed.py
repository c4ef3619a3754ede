"""Quotients of times with their intervals, and models that take turns."""

from __future__ import annotations

import time
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from latency import Files, row
from timed import LEAST, WARM_UP, in_turn, models_in_turn, quotient

LENET = Path(__file__).resolve().parents[2] / "models" / "lenet_5.onnx"


def test_the_interval_of_the_median() -> None:
    rng = np.random.default_rng(1)
    over = rng.uniform(0.9, 1.1, 400)
    times = over * rng.normal(0.8, 0.1, 400)
    found = quotient(times, over)
    assert found.low < found.median < found.high
    assert found.median == pytest.approx(0.8, abs=0.02)
    # 95 % of the time the true median lies between the order statistics 200 +- 1.96 x sqrt(400) / 2
    ordered = np.sort(times / over)
    assert ordered[176] <= found.low <= ordered[185]
    assert ordered[215] <= found.high <= ordered[224]
    assert found.verdict == "faster"


def test_the_quotient_is_of_pairs_not_of_medians() -> None:
    slow = np.array([1.0, 10.0] * 20)
    assert quotient(slow * 0.5, slow).low == quotient(slow * 0.5, slow).high == 0.5


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, "faster"), (1.0, "no difference"), (1.1, "slower")])
def test_a_verdict_needs_the_whole_interval(factor: float, verdict: str) -> None:
    spread = np.linspace(0.98, 1.02, 31)
    assert quotient(spread * factor, np.ones(31)).verdict == verdict


def test_each_is_first_in_turn_and_a_sample_lasts() -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(LEAST)

    def fast() -> None:
        calls.append("fast")
        time.sleep(LEAST / 4)

    times = in_turn([slow, fast], 4)
    assert times.shape == (4, 2)
    assert (times[:, 0] > times[:, 1]).all()
    repeats = len(calls[4 * WARM_UP :]) // 8
    assert repeats * np.median(times[:, 1]) >= LEAST
    turns = [name for name, _ in groupby(calls[-8 * repeats :])]
    assert turns == ["slow", "fast", "slow", "fast", "slow"]


def test_a_line_of_the_table() -> None:
    times = models_in_turn([LENET, LENET], 1, 2)
    assert times.shape == (4, 2)
    line = row(Files("LeNet-5", "layer", LENET, LENET, "not run"), 1, np.tile([2e-3, 1e-3], (30, 1)), None)
    assert "| LeNet-5 | layer | 1 | 2.29 → 2.29 |" in line
    assert "| 2.000 → 1.000 | 0.500 (0.500 to 0.500) | faster | not run | - | - | - | 30 |" in line
    both = Files("LeNet-5", "layer", LENET, LENET, LENET)
    line = row(both, 1, np.tile([2e-3, 1e-3], (30, 1)), np.tile([1e-3, 2e-3], (30, 1)))
    assert "| +0.0% | 2.000 | 0.500 (0.500 to 0.500) | faster | 30 |" in line
