"""Which weights a pass works on: globs over their keys, and values of their own for some."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from .errors import SelectionError


def matches(key: str, pattern: str) -> bool:
    """True when `pattern` is the key itself, or a case-sensitive glob (`*`, `?`, `[…]`) over the whole of it."""
    return key == pattern or fnmatchcase(key, pattern)


def selected(keys: Iterable[str], only: Sequence[str], skip: Sequence[str]) -> tuple[str, ...]:
    """The keys that match one of `only` (all when it is empty) and none of `skip`, in their order.

    Raises:
        SelectionError: a glob matches nothing, or nothing is left.
    """
    all_keys = tuple(keys)
    require_matches(all_keys, (*only, *skip))
    chosen = tuple(
        key
        for key in all_keys
        if (not only or any(matches(key, glob) for glob in only)) and not any(matches(key, glob) for glob in skip)
    )
    if all_keys and not chosen:
        raise SelectionError(f"--only and --skip leave none of the {len(all_keys)} weights: drop one of them")
    return chosen


def require_matches(keys: Sequence[str], globs: Iterable[str]) -> None:
    """Raise SelectionError when one of `globs` matches none of `keys`."""
    for glob in globs:
        if not any(matches(key, glob) for key in keys):
            known = ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
            raise SelectionError(
                f"{glob!r} matches none of the {len(keys)} prunable weights ({known}); "
                "see them with `onnxprune inspect`"
            )


def own_values(keys: Sequence[str], layers: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Key → the value of the last glob of `layers` that matches it. Raises SelectionError when a glob matches
    nothing.
    """
    require_matches(keys, [glob for glob, _ in layers])
    return {key: value for glob, value in layers for key in keys if matches(key, glob)}
