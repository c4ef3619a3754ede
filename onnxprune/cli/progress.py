"""A progress bar on stderr, where stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..steps import Progress, silent
from .interrupt import raise_received


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """A callback that moves a bar; nothing is shown with `quiet`, or when stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield _watchful(silent)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(bar_width=24), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(name: str, done: int, total: int) -> None:
            bar.update(task, description=name, completed=done, total=total)

        yield _watchful(show)


def _watchful(progress: Progress) -> Progress:
    """`progress`, which first ends the run when a signal asked for that."""

    def step(name: str, done: int, total: int) -> None:
        raise_received()
        progress(name, done, total)

    return step
