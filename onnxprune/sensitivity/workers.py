"""Points measured in parallel processes, each with one thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from onnxprune_passes.encode import densify
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load, save

from .evaluate import Evaluator, Task
from .records import Point
from .units import Unit, pruned_to


@dataclass(frozen=True)
class Setup:
    """What each process reads once: the dense model's file, what is measured, and a folder for the models it makes."""

    model: Path
    task: Task
    folder: Path


class Worker:
    """Makes and measures one point after the other."""

    def __init__(self, setup: Setup) -> None:
        self._model: Model = densify(load(setup.model))
        self._evaluate = Evaluator(setup.task, setup.model)
        self._folder = setup.folder

    def __call__(self, unit: Unit, density: float) -> Point:
        """The metric with `unit` pruned to `density`. Raises what pruning and measuring raise."""
        pruned = pruned_to(self._model, unit, density)
        path = self._folder / f"{os.getpid()}.onnx"
        try:
            metric = self._evaluate(save(pruned.model, path))
        finally:
            for left in self._folder.glob(f"{path.stem}.*"):
                left.unlink()
        return Point(wanted=density, density=pruned.density, metric=metric, quality=pruned.quality)


_worker: Worker | None = None


def _begin(setup: Setup) -> None:
    """Make this process's worker. Ctrl-C is the parent's to handle."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker = Worker(setup)


def _measure(unit: Unit, density: float) -> Point:
    assert _worker is not None  # _begin ran first
    return _worker(unit, density)


def measured(setup: Setup, tasks: Sequence[tuple[Unit, float]], jobs: int) -> Iterator[tuple[Unit, Point]]:
    """Each task's point, as they are ready. One job measures in this process.

    Raises:
        OnnxPruneError: what a process met; the others are stopped.
    """
    if jobs == 1:
        worker = Worker(setup)
        for unit, density in tasks:
            yield unit, worker(unit, density)
        return
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), _begin, (setup,))
    try:
        futures = {pool.submit(_measure, unit, density): unit for unit, density in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
