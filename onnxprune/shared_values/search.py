"""The fewest bytes within a budget: a way down, tensor by tensor, and how far along it the budget allows to go.

1. The way: every tensor begins as it is, then in 16 bits, then in codes of 8 bits. From there the tensor goes one form
   down that saves most bytes for the square error which that adds to the outputs, all others as they are at that point;
   it is measured on few samples. Errors that were measured earlier on the way count as a promise, and are measured anew
   before they are believed (a lazy greedy search: Minoux 1978, "Accelerated greedy algorithms for maximizing submodular
   set functions").
2. How far: states on the way are measured jointly, on all samples, by bisection. So are those of one width for all,
   or for all weights, since tensors of one width share a decoder function.
3. From the smallest file within the budget single steps down are tried, as long as one makes it smaller.

Every measurement is of the whole model; what is taken has been measured jointly. Nothing is random.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from onnxprune_passes.model import Model

from ..steps import Steps
from .forms import BITS, Forms, State
from .measure import Measured, Measurer

_JOINT = 64
"""Most joint measurements."""
_LOST = 1.0
"""Error of the outputs at which the way ends."""
_LEAST = 1e-12
"""Added square error that counts as none."""


@dataclass(frozen=True)
class Budget:
    """What sharing may do: `drop` to the metric, in its own unit, and `error` to the outputs; None: anything."""

    drop: float | None
    error: float | None


@dataclass(frozen=True, order=True)
class _Promise:
    """What the next step of tensor `number` was worth when the way was `step` states long: minus the bytes saved for
    each unit of square error added, so that the smallest is best; and the error of the outputs with it.
    """

    worth: float
    number: int
    step: int = -1
    error: float = 0.0


@dataclass
class Search:
    """One search; `best` runs it.

    Attributes:
        nbytes_of: the bytes of a model's file.
        measured: joint measurements, by state.
        count: measurements of any kind.
    """

    forms: Forms
    measure: Measurer
    budget: Budget
    nbytes_of: Callable[[Model], int]
    steps: Steps
    measured: dict[State, Measured] = field(default_factory=dict)
    count: int = 0
    _nbytes: dict[State, int] = field(default_factory=dict)

    def best(self) -> State:
        """The state of the smallest file within the budget; of equal ones that which moves the outputs least."""
        start = (0,) * len(self.forms.tensors)
        self.measured[start] = Measured(0.0, self.measure.before)
        way = self._way(start)
        low, high = 0, len(way) - 1
        if self._allowed(way[high]):
            low = high
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if self._allowed(way[middle]) else (low, middle)
        for state in self._alike():
            self._allowed(state)
        return self._refined(min((state for state in self.measured if self._within(state)), key=self._cost))

    def _alike(self) -> list[State]:
        """One width for all tensors, and for all weights with the rest as it is; each state once, the widest first."""
        found = []
        for bits in BITS:
            found.append(tuple(tensor.place_of(bits) for tensor in self.forms.tensors))
            found.append(tuple(tensor.place_of(bits) if tensor.is_weight else 0 for tensor in self.forms.tensors))
        return list(dict.fromkeys(found))

    def _way(self, start: State) -> list[State]:
        """States, each with one tensor in a form below that of the state before."""
        way = [start]
        for bits in (16, 8):
            for number, tensor in enumerate(self.forms.tensors):
                down = _with(way[-1], number, max(way[-1][number], tensor.place_of(bits)))
                way += [down] if down != way[-1] else []
        now, error = way[-1], self._error(way[-1]) if len(way) > 1 else 0.0
        promised = [_Promise(-math.inf, number) for number in range(len(now))]
        while promised and error < _LOST:
            best = heapq.heappop(promised)
            if now[best.number] + 1 == len(self.forms.tensors[best.number].forms):
                continue
            if best.step == len(way):
                now, error = _with(now, best.number, now[best.number] + 1), best.error
                way.append(now)
                heapq.heappush(promised, _Promise(-math.inf, best.number))
            else:
                after = self._error(_with(now, best.number, now[best.number] + 1))
                worth = self._saved(now, best.number) / max(after**2 - error**2, _LEAST)
                heapq.heappush(promised, _Promise(-worth, best.number, len(way), after))
        return way

    def _saved(self, now: State, number: int) -> int:
        """Bytes that the next step of a tensor saves."""
        forms = self.forms.tensors[number].forms
        return forms[now[number]].nbytes - forms[now[number] + 1].nbytes

    def _refined(self, best: State) -> State:
        """`best` after single steps down that make the file smaller within the budget."""
        tried = True
        while tried:
            tried = False
            steps = [number for number, tensor in enumerate(self.forms.tensors) if best[number] + 1 < len(tensor.forms)]
            for number in sorted(steps, key=lambda each: -self._saved(best, each)):
                down = _with(best, number, best[number] + 1)
                if down not in self.measured and len(self.measured) < _JOINT and self._allowed(down):
                    tried = self._cost(down) < self._cost(best)
                    if tried:
                        best = down
                        break
        return best

    def _error(self, state: State) -> float:
        self.count += 1
        with self.steps.step("share values", f"measurement {self.count}"):
            return self.measure(self.forms.model(state), joint=False).error

    def _allowed(self, state: State) -> bool:
        """Whether a state is within the budget, measured jointly."""
        if state not in self.measured:
            self.count += 1
            with self.steps.step("share values", f"measurement {self.count}, joint"):
                self.measured[state] = self.measure(self.forms.model(state), joint=True)
        return self._within(state)

    def _within(self, state: State) -> bool:
        found, budget = self.measured[state], self.budget
        near = budget.error is None or found.error <= budget.error
        return near and (budget.drop is None or self.measure.drop(found) <= budget.drop + 1e-12)

    def _cost(self, state: State) -> tuple[int, float, State]:
        return self._bytes(state), self.measured[state].error, state

    def _bytes(self, state: State) -> int:
        if state not in self._nbytes:
            self._nbytes[state] = self.nbytes_of(self.forms.model(state))
        return self._nbytes[state]


def _with(state: State, number: int, place: int) -> State:
    return (*state[:number], place, *state[number + 1 :])
