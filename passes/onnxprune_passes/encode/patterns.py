"""Where kept entries lie within aligned runs of the flat tensor: what the sizes of 2:4 and block storage depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..arrays import NDArray, TensorSource

BLOCK_SIZES = (4, 8, 16, 32)
"""Lengths of a block that `count` counts kept blocks for."""

_ONES = np.unpackbits(np.arange(16, dtype=np.uint8)[:, None], axis=1).sum(axis=1)
_ODD_FOURS = np.array([_ONES[byte & 15] % 2 + _ONES[byte >> 4] % 2 for byte in range(256)])
"""Eight bits → how many of their halves have an odd number of ones."""


@dataclass(frozen=True)
class Patterns:
    """What is known of aligned runs of consecutive entries; the last run may be shorter.

    Attributes:
        odd_fours: runs of 4 with 1 or 3 kept entries.
        blocks: length of a run, of `BLOCK_SIZES` → runs with a kept entry.
    """

    odd_fours: int = 0
    blocks: Mapping[int, int] = field(default_factory=dict)


class PatternCounter:
    """Gathers `Patterns` from the chunks of a tensor."""

    def __init__(self) -> None:
        self._times = np.zeros(256, np.int64)  # how often each pattern of eight occurs, which says all of 4 and 8
        self._blocks = dict.fromkeys(BLOCK_SIZES[2:], 0)
        self._left = np.zeros(0, np.bool_)

    def add(self, kept: NDArray) -> None:
        """Take in which entries of the next chunk are kept, bool [n]."""
        if self._left.size:
            kept = np.concatenate((self._left, kept))
        whole = kept.size // BLOCK_SIZES[-1] * BLOCK_SIZES[-1]
        self._count(kept[:whole])
        self._left = kept[whole:]

    def _count(self, kept: NDArray) -> None:
        packed = np.packbits(kept)
        packed = np.concatenate((packed, np.zeros(-packed.size % 4, np.uint8))) if packed.size % 4 else packed
        self._times += np.bincount(packed, minlength=256)
        for length in self._blocks:
            self._blocks[length] += int(np.count_nonzero(packed.view(f"u{length // 8}")))

    def found(self) -> Patterns:
        """What was found in all chunks; none may follow."""
        self._count(self._left)
        self._left = self._left[:0]
        eights = int(self._times[1:].sum())
        both = sum(int(times) for byte, times in enumerate(self._times) if byte & 15 and byte >> 4)
        odd = int(self._times @ _ODD_FOURS)
        return Patterns(odd, {4: eights + both, 8: eights, **self._blocks})


def aligned(source: TensorSource, length: int) -> Iterator[NDArray]:
    """The entries of `source` in pieces of a multiple of `length`, the last one aside; copies only where its chunks
    are cut otherwise.
    """
    left: NDArray | None = None
    for chunk in source.chunks():
        piece = chunk if left is None else np.concatenate((left, chunk))
        whole = piece.size // length * length
        left = piece[whole:] if whole < piece.size else None
        if whole:
            yield piece[:whole]
    if left is not None:
        yield left
