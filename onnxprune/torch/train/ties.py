"""Values that entries of a tensor share stay shared while they train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOST_VALUES = 256
"""The most values that entries of a tensor may share."""


@dataclass(frozen=True, eq=False)
class _Tie:
    """The places of entries that are not zero, and for each which value it holds, of so many."""

    places: tuple[Tensor, ...]
    which: Tensor
    counts: Tensor


class TieHold:
    """Ties held on parameters and an optimizer; `tie_values` makes it.

    Attributes:
        tied: parameter → how many values its entries share.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> None:
        self._parameters = dict(parameters)
        self._ties = {
            name: tie for name, parameter in parameters.items() if (tie := _tie(parameter.detach())) is not None
        }
        self._handle: Any = optimizer.register_step_post_hook(self._after_step)

    @property
    def tied(self) -> dict[str, int]:
        """Parameter → how many values its entries share."""
        return {name: len(tie.counts) for name, tie in self._ties.items()}

    def _after_step(self, *_: Any) -> None:
        """Give entries that belong together the mean of what the step made of them."""
        with torch.no_grad():
            for name, tie in self._ties.items():
                values = self._parameters[name].data
                entries = values[tie.places]
                means = torch.zeros_like(tie.counts).index_add_(0, tie.which, entries.to(tie.counts.dtype)) / tie.counts
                values[tie.places] = means[tie.which].to(values.dtype)


def tie_values(module: nn.Module, optimizer: Optimizer) -> TieHold:
    """Keep entries of a trained tensor equal that are equal now, zeros left out: Han, Mao and Dally 2016, section 3.

    A tensor is tied where its entries hold at most `MOST_VALUES` values, and at most half as many as there are entries;
    not where all are 1, as scales are before training. Behind each step entries that belong together take their mean,
    so that a shared value moves by the mean of its entries' steps.
    """
    trained = {name: one for name, one in module.named_parameters() if one.requires_grad}
    return TieHold(trained, optimizer)


def _tie(values: Tensor) -> _Tie | None:
    places = torch.nonzero(values, as_tuple=True)
    entries = values[places]
    distinct, which, counts = torch.unique(entries, return_inverse=True, return_counts=True)
    if not len(entries) or len(distinct) > min(MOST_VALUES, len(entries) // 2):
        return None
    if len(distinct) == 1 and distinct[0] == 1:
        return None  # scales that were not trained yet
    return _Tie(places, which, counts.double())
