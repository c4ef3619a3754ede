"""Two models timed in turn, so that whatever else the machine does hits both.

A pair is a few runs of each, back to back, of which the fastest counts: what else runs on the machine only ever adds
time. Every other pair runs them the other way round. The ratio of a pair does not see how fast the machine happens to
be, and the median of many pairs does not see outliers. Its interval holds whatever the distribution of the times is
(order statistics: Conover, Practical Nonparametric Statistics, 3.2).

Denormal numbers are taken for 0, or a model whose activations die out is timed by them. onnxruntime 1.31 listens to
`session.set_denormal_as_zero` in the first session of a process only, and leaves the thread so. Hence a process of its
own.
"""

from __future__ import annotations

import json
import math
import pickle
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from onnxprune_passes.errors import OnnxPruneError, VerifyError

from onnxprune.runtime.child import run_child
from onnxprune.runtime.session import Array, Session, open_session, run

CONFIDENCE = 0.95
FEWEST = 6
"""With fewer pairs no interval of the median has the confidence wanted: 1 - 2 / 2^6 is 0.969."""
_LEAST_RUNS, _LEAST_SECONDS = 3, 0.005
"""In a pair a model is run so often, and for so long."""
_CHILD = "import sys; from onnxprune.runtime import timing; timing.main()"


@dataclass(frozen=True)
class PairTiming:
    """How long `after` takes beside `before`.

    Attributes:
        pairs: how many were timed.
        before_ms, after_ms: milliseconds of one run, the median over the pairs.
        ratio: after / before, the median over the pairs.
        low, high: an interval that holds the true median ratio with a confidence of 95 % or more.
    """

    pairs: int
    before_ms: float
    after_ms: float
    ratio: float
    low: float
    high: float


def time_pair(
    before: str | Path,
    after: str | Path,
    feeds: Mapping[str, Array],
    *,
    threads: int = 1,
    pairs: int = 60,
    seconds: float = 10.0,
) -> PairTiming:
    """Time two model files on the same inputs, at onnxruntime's default level of optimisation.

    Args:
        before, after: the models; both take `feeds`.
        threads: threads inside one operator.
        pairs: how many pairs, at least 6.
        seconds: fewer pairs, though never fewer than 6, when they would take longer than this.

    Raises:
        VerifyError: onnxruntime does not load or run one of them; the message says which.
    """
    wanted = pickle.dumps((str(before), str(after), dict(feeds), threads, pairs, seconds))
    done = run_child(_CHILD, stdin=wanted)
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise VerifyError(f"{after} cannot be timed beside {before}: {lines[-1]}")
    return PairTiming(**json.loads(done.stdout))


def main() -> None:
    """The child: reads what to time from standard input, writes the timing to standard output as JSON."""
    before, after, feeds, threads, pairs, seconds = pickle.load(sys.stdin.buffer)
    try:
        with (
            open_session(before, optimize=True, threads=threads, flush_denormals=True) as one,
            open_session(after, optimize=True, threads=threads, flush_denormals=True) as other,
        ):
            found = timed(one, other, feeds, pairs=pairs, seconds=seconds)
    except OnnxPruneError as error:
        sys.exit(" ".join(str(error).split()))
    sys.stdout.write(json.dumps(asdict(found)))


def timed(before: Session, after: Session, feeds: Mapping[str, Array], *, pairs: int, seconds: float) -> PairTiming:
    """`time_pair` of two open sessions, in this process."""
    both = (before, after)
    for session in both:
        run(session, feeds)
    each = [_fastest(session, feeds, _LEAST_RUNS) for session in both]
    repeats = [max(_LEAST_RUNS, math.ceil(_LEAST_SECONDS / one)) for one in each]
    one_pair = sum(one * count for one, count in zip(each, repeats, strict=True))
    count = max(FEWEST, min(pairs, int(seconds / one_pair)))
    times: list[tuple[float, float]] = []
    for index in range(count):
        found = [0.0, 0.0]
        for at in (0, 1) if index % 2 == 0 else (1, 0):
            found[at] = _fastest(both[at], feeds, repeats[at])
        times.append((found[0], found[1]))
    ratios = [after_time / before_time for before_time, after_time in times]
    low, high = median_interval(ratios)
    return PairTiming(
        pairs=count,
        before_ms=1000 * median(before_time for before_time, _ in times),
        after_ms=1000 * median(after_time for _, after_time in times),
        ratio=median(ratios),
        low=low,
        high=high,
    )


def median_interval(values: list[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median of what `values` are drawn from, at 95 %.

    Raises ValueError when there are fewer than 6.
    """
    count = len(values)
    if count < FEWEST:
        raise ValueError(f"{count} values: give at least {FEWEST}")
    outside, skipped = 0.0, 0
    while True:
        outside += 2 * math.comb(count, skipped) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        skipped += 1
    ranked = sorted(values)
    return ranked[skipped - 1], ranked[count - skipped]


def _fastest(session: Session, feeds: Mapping[str, Array], runs: int) -> float:
    """The seconds of the fastest of so many runs."""
    best = math.inf
    for _ in range(runs):
        start = time.perf_counter()
        run(session, feeds)
        best = min(best, time.perf_counter() - start)
    return max(best, 1e-9)
