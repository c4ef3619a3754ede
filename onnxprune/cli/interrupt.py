"""Ctrl-C and SIGTERM: both unwind the run, so that nothing is left behind.

Python drops an exception that a signal raises while an object is being destroyed (it is "ignored in" there), and
with it the signal. So a signal is remembered too, and raised again when the next step begins.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
_received: list[int] = []
_noting: list[bool] = []


def listen() -> None:
    """Handle SIGINT and SIGTERM from now on."""
    _received.clear()
    _noting.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)


def raise_received() -> None:
    """Raise again what a signal raised before; nothing when there was none."""
    if _noting:
        return
    if signal.SIGTERM in _received:
        sys.exit(TERMINATED)
    if _received:
        raise KeyboardInterrupt


def was_received() -> bool:
    """Whether a signal came."""
    return bool(_received)


def exit_code() -> int:
    """What a run that a signal ended exits with."""
    return TERMINATED if signal.SIGTERM in _received else 128 + signal.SIGINT


@contextmanager
def noting() -> Iterator[None]:
    """Within it the first signal is only remembered, for whoever asks `was_received`; a second one ends the run."""
    _noting.append(True)
    try:
        yield
    finally:
        _noting.clear()


def _note(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    if _noting and len(_received) > 1:
        _noting.clear()
    raise_received()
