"""Ctrl-C and SIGTERM: both unwind the run, so that nothing is left behind.

Python drops an exception that a signal raises while an object is being destroyed (it is "ignored in" there), and
with it the signal. So a signal is remembered too, and raised again when the next step begins.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
_received: list[int] = []


def listen() -> None:
    """Handle SIGINT and SIGTERM from now on."""
    _received.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)


def raise_received() -> None:
    """Raise again what a signal raised before; nothing when there was none."""
    if signal.SIGTERM in _received:
        sys.exit(TERMINATED)
    if _received:
        raise KeyboardInterrupt


def _note(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    raise_received()
