"""Signals that arrive where Python drops exceptions."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from onnxprune.cli import interrupt
from onnxprune.cli.progress import progress_bar


@pytest.fixture
def listening() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupt.listen()
    yield
    interrupt.listen()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_swallowed_signal_comes_back_at_the_next_step(number: int, raised: type[BaseException]) -> None:
    with progress_bar(quiet=True) as progress:
        progress("load", 0, 2)
        with pytest.raises(raised):
            signal.raise_signal(number)
        with pytest.raises(raised):
            progress("prune", 1, 2)


@pytest.mark.usefixtures("listening")
def test_without_a_signal_steps_go_on() -> None:
    with progress_bar(quiet=True) as progress:
        progress("load", 0, 1)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
