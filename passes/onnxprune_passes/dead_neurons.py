"""`RemoveDeadNeurons`: neurons that change no output are taken out of the graph, exactly, until none is left.

A neuron is a row of a fully connected weight, or a filter of a convolution. It is *input-dead* when its incoming
weights are all zero, so that it is the constant f(bias): that is folded into the biases of the weights that read it.
It is *output-dead* when all weights that read it are zero. Both go with everything that is coupled to them; see
`neurons/`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .errors import ModelError
from .masks import Masks
from .model import Model
from .neurons.aside import dead_aside
from .neurons.cut import Cut
from .neurons.decide import Decision, decide
from .neurons.fold import fold, folds
from .neurons.groups import in_the_way, producers, traced
from .neurons.rules import REGISTRY
from .neurons.slices import ZeroSlices
from .neurons.trace import Trace
from .pipeline import Change, Skip, State


@dataclass(frozen=True)
class RemoveDeadNeurons:
    """Take out every neuron that no output depends on, and fold constant ones into the biases behind them.

    Shapes of weights, biases and everything coupled to them shrink; inputs and outputs of the graph keep theirs,
    every axis keeps at least one neuron. Masks are cut with their tensors. Outputs stay the same up to the rounding
    of sums (exactly, when all sums are exact). Model-local functions are not touched.
    """

    @property
    def name(self) -> str:
        """The pass's name in logs, reports and recipes."""
        return "remove-dead-neurons"

    def __call__(self, state: State) -> State:
        """The state without dead neurons; the same object when there are none and nothing new is to be said.

        A dead neuron that stays is a Skip that names the weight which makes it and the node in the way.
        """
        tally = _Tally()
        model, masks, zeros = state.model, state.masks, ZeroSlices()
        while True:
            try:
                trace = traced(model, zeros)
            except ModelError as error:
                return state.noted(Skip(self.name, "the graph", f"{error}: nothing was removed"))
            decision = decide(trace)
            if not any(decision.gone(ids).any() for ids in trace.bases.values()):
                break
            tally.note(trace, decision)
            model, masks = _removed(trace, decision, masks)
        skips = [
            Skip(self.name, key, f"{count} dead neuron{'s' if count > 1 else ''} stay{'' if count > 1 else 's'}: {why}")
            for key, count, why in (*in_the_way(trace, decision), *dead_aside(model, trace, zeros))
        ]
        if model is state.model:
            return state.noted(*skips)
        after = replace(state, model=model, masks=masks)
        return after.noted(Change(self.name, tally.summary()), *skips)


def _removed(trace: Trace, decision: Decision, masks: Masks) -> tuple[Model, Masks]:
    """Model and masks after one removal."""
    removal = Cut(trace, decision)
    found = folds(trace, decision, removal)
    model, masks = removal.run(REGISTRY, masks)
    return fold(model, masks, found), masks


class _Tally:
    """Neurons by weight: (before, now) for those that shrank, and how many of them were output-dead."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[str, int], tuple[int, int]] = {}
        self._output_dead = 0
        self._every: dict[tuple[str, int], int] = {}

    def note(self, trace: Trace, decision: Decision) -> None:
        """Count one removal."""
        for producer in producers(trace):
            at = (producer.key, producer.axis)
            self._every.setdefault(at, producer.ids.size)
            gone = decision.gone(producer.ids)
            if gone.any():
                before, now = self._sizes.get(at, (producer.ids.size, producer.ids.size))
                self._sizes[at] = (before, now - int(gone.sum()))
                self._output_dead += int((gone & decision.output_dead(producer.ids)).sum())

    def summary(self) -> str:
        """One line: how many neurons went, why, and where."""
        removed = sum(before - now for before, now in self._sizes.values())
        kinds = f"{removed - self._output_dead} input-dead, {self._output_dead} output-dead"
        where = ", ".join(f"{key} {before} -> {now}" for (key, _), (before, now) in self._sizes.items())
        return f"removed {removed} of {sum(self._every.values())} neurons ({kinds}): {where}"
