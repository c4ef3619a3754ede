"""From measured curves to what to prune with: the sparsest point within an allowed drop."""

from __future__ import annotations

from collections.abc import Sequence

from .records import Point, Suggestion

_ROUNDING = 1e-12


def drop(dense: float, metric: float, *, larger_is_better: bool) -> float:
    """How much worse `metric` is than `dense`, in the metric's own unit; below 0 when it is better."""
    return dense - metric if larger_is_better else metric - dense


def suggest(points: Sequence[Point], dense: float, max_drop: float, *, larger_is_better: bool) -> Suggestion | None:
    """The last of `points` (densest first) before the first one that is more than `max_drop` worse than `dense`.

    A sparser point that happens to be good again behind a bad one is not trusted. None when the first is bad already.
    """
    best = None
    for point in points:
        if not drop(dense, point.metric, larger_is_better=larger_is_better) <= max_drop + _ROUNDING:
            break
        best = Suggestion(density=point.density, quality=point.quality, metric=point.metric)
    return best
