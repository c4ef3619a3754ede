"""Timing models against each other: onnxruntime sessions that take turns, and intervals of quotients of their times."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST = 1e-3
"""Seconds that one sample takes at least: a faster model runs several times."""
WARM_UP, ROUNDS = 5, 4


@dataclass(frozen=True)
class Quotient:
    """The median of quotients of times, and its 95 % interval."""

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the whole interval says."""
        return "faster" if self.high < 1 else "slower" if self.low > 1 else "no difference"

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def quotient(times: Floats, over: Floats) -> Quotient:
    """Of the pairs `times` / `over` (seconds, [pairs] each), from 10,000 seeded bootstrap samples."""
    found = times / over
    samples = np.random.default_rng(0).choice(found, (10_000, found.size))
    low, high = np.quantile(np.median(samples, axis=1), (0.025, 0.975))
    return Quotient(float(np.median(found)), float(low), float(high))


def in_turn(runs: Sequence[Callable[[], object]], count: int) -> Floats:
    """Seconds of each of `runs` [count, runs], one after the other, each first in turn; at least LEAST a sample."""
    for run in [*runs] * WARM_UP:
        run()
    fastest = min(min(_seconds(run, 1) for _ in range(WARM_UP)) for run in runs)
    repeats = max(1, math.ceil(LEAST / fastest))
    times = np.zeros((count, len(runs)))
    for row in range(count):
        for step in range(len(runs)):
            at = (row + step) % len(runs)
            times[row, at] = _seconds(runs[at], repeats)
    return times


def _seconds(run: Callable[[], object], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - begin) / repeats


def session_run(path: Path, threads: int) -> Callable[[], object]:
    """A run of a model on seeded numbers, batch 1, denormals flushed; its threads rest while another model runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    rng, feeds = np.random.default_rng(0), {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return lambda: session.run(None, feeds)


def models_in_turn(paths: Sequence[Path], threads: int, count: int) -> Floats:
    """Seconds of each model [at least count, models]; sessions are made anew ROUNDS times, since memory matters."""
    each = -(-count // ROUNDS)
    found = []
    for turn in range(ROUNDS):
        order = sorted(range(len(paths)), key=lambda index: (index + turn) % len(paths))  # each is made first in turn
        made = {index: session_run(paths[index], threads) for index in order}
        found.append(in_turn([made[index] for index in range(len(paths))], each))
    return np.concatenate(found)


def machine() -> str:
    """The processor, by its own name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} logical processors)" if names else platform.machine()
