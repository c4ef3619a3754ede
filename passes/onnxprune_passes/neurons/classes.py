"""Which ids were united: the connected components of a list of pairs, in numpy.

The rules only collect pairs while they run; nothing asks for a class before the whole graph was walked, so one pass
at the end does what a union-find would do step by step (Shiloach and Vishkin 1982: hook the larger root under the
smaller, then jump).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def classes(count: int, pairs: Sequence[tuple[Ids, Ids]]) -> Ids:
    """The class of each of `count` ids, named by its smallest member: int64 [count].

    `pairs`: arrays of equal shape; each id of the first is united with the one at its place in the second. All ≥ 0.
    """
    label = np.arange(count, dtype=np.int64)
    if not pairs:
        return label
    one = np.concatenate([first.reshape(-1) for first, _ in pairs])
    other = np.concatenate([second.reshape(-1) for _, second in pairs])
    while True:
        roots, other_roots = label[one], label[other]
        apart = roots != other_roots
        if not apart.any():
            return label
        low, high = np.minimum(roots, other_roots)[apart], np.maximum(roots, other_roots)[apart]
        np.minimum.at(label, high, low)
        label = _flat(label)


def _flat(label: Ids) -> Ids:
    """Labels that point to a root each: every chain followed to its end."""
    while True:
        jumped = label[label]
        if np.array_equal(jumped, label):
            return label
        label = jumped
