"""What the teacher says of samples that never change, asked once for all epochs and all rounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxprune.samples.arrays import ArraySamples
from onnxprune.torch.train.batches import Rows, tensors_of
from onnxprune.torch.train.teacher import Feeds, Teacher

if TYPE_CHECKING:
    from onnxprune.samples import Samples

LIMIT = 256 * 2**20
"""The most bytes of answers that are kept for one set of samples."""
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of a teacher by samples, for trainings that have teacher and samples in common.

    Only those of arrays in memory are kept, which give the same for a row whenever they are asked, and only where one
    sample's answer is one row of the teacher's, all of which fit in `limit` bytes. The samples are asked in their own
    order, so that answers do not depend on where a training was resumed.
    """

    limit: int = LIMIT
    _kept: dict[int, tuple[Samples, Tensor | None]] = field(default_factory=dict)

    def of(self, teacher: Teacher, samples: Samples, rows: Rows, feeds: Feeds) -> Tensor:
        """The teacher's answers for `rows`, whose inputs are `feeds`, on their device."""
        if id(samples) not in self._kept:
            self._kept[id(samples)] = samples, self._all(teacher, samples)
        known = self._kept[id(samples)][1]
        if known is None:
            return teacher(feeds)
        return known[torch.from_numpy(rows)].to(next(iter(feeds.values())).device)

    def _all(self, teacher: Teacher, samples: Samples) -> Tensor | None:
        """The answers for all samples, on the CPU; None where they are not kept."""
        if not isinstance(samples, ArraySamples) or samples.layout.stacked or not len(samples):
            return None
        pieces: list[Tensor] = []
        for start in range(0, len(samples), _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, len(samples)))
            feeds, _ = tensors_of(samples, rows, torch.device("cpu"))
            found = teacher(feeds).cpu()
            too_much = found.numel() * found.element_size() * len(samples) > self.limit * len(rows)
            if found.shape[:1] != (len(rows),) or too_much:
                return None
            pieces.append(found)
        return torch.cat(pieces)
