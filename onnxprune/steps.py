"""The steps of a run: what is under way, for a progress bar, and how long each took, for the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called when a step begins: its name, how many were done before it, and how many there are at most."""


def silent(_name: str, _done: int, _total: int) -> None:
    """A progress that shows nothing."""


class Steps:
    """Times the steps of one run and tells `progress` of each. `seconds`: step → wall time."""

    def __init__(self, total: int, progress: Progress = silent) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._total = total
        self._done = 0

    @contextmanager
    def step(self, name: str, detail: str = "") -> Iterator[None]:
        """Count and time what happens within under `name`; `detail` is shown beside it."""
        self._progress(f"{name} {detail}".rstrip(), self._done, max(self._total, self._done + 1))
        self._done += 1
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
