"""Which coding for which weight: the assignment that gives the smallest file, counted in file bytes.

A weight costs its initializers and its nodes, or one dense initializer. Each function in use costs its bytes once, and
the first of them the import of the domain. A set of functions has a price: each weight takes its cheapest coding whose
functions are in the set, or stays dense. With few functions every set is tried. With many a descent is made from all of
them and an ascent from none, each step of which takes the function, or the coding, that gains most; then the better of
the two is improved by single exchanges. So no function is in the file that does not pay for itself, and tiny tensors
stay dense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from . import protos
from .coding import Coding
from .counts import Counts
from .functions import calls_read_bits, written_out
from .inline import inlined_nbytes
from .registry import CODINGS

_EXACT = 8
"""Most functions of which every set is tried."""

_LABEL = "00"
"""A label as long as most are; see `coding`."""

_Set = frozenset[int]


@dataclass(frozen=True)
class Choice:
    """How one weight is stored best.

    Attributes:
        name: the weight.
        counts: what its sizes were computed from.
        coding: how to store it; None means dense.
        dense_nbytes: file bytes of the dense initializer.
        nbytes_by_coding: coding name → file bytes of the weight's initializers and nodes; only codings that can store
            it.
        refused: coding name → why it cannot store the weight.
    """

    name: str
    counts: Counts
    coding: Coding | None
    dense_nbytes: int
    nbytes_by_coding: Mapping[str, int]
    refused: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """File bytes of the weight as chosen; functions are not counted here."""
        return self.dense_nbytes if self.coding is None else self.nbytes_by_coding[self.coding.name]


@dataclass(frozen=True)
class Plan:
    """The choice for every weight, in the order given, and what the file pays once.

    Attributes:
        choices: one for each weight.
        functions: those that the model needs, the ones that others call first.
        once_nbytes: file bytes of these functions and of the domain's import.
    """

    choices: tuple[Choice, ...]
    functions: tuple[onnx.FunctionProto, ...]
    once_nbytes: int

    @property
    def nbytes(self) -> int:
        """File bytes of all the weights as chosen, functions and import included."""
        return self.once_nbytes + sum(choice.nbytes for choice in self.choices)

    @property
    def dense_nbytes(self) -> int:
        """File bytes of all the weights as dense initializers."""
        return sum(choice.dense_nbytes for choice in self.choices)


def choose(
    weights: Mapping[str, Counts], opset: int, codings: Sequence[Coding] = CODINGS, *, inline: bool = False
) -> Plan:
    """The assignment of `codings` to weights that makes the smallest file for a model of the ai.onnx `opset`.

    `weights`: name → counts (see `count`). A weight that no coding can store, or makes smaller, stays dense. `inline`:
    each weight has the nodes of its decoders to itself, and there are no functions.
    """
    each_priced = tuple(priced(name, counts, opset, codings, inline=inline) for name, counts in weights.items())
    prices = _Prices(each_priced, codings, opset, inline=inline)
    best = prices.best()
    choices = tuple(
        Choice(each.name, each.counts, coding, each.dense_nbytes, each.nbytes_by_coding, each.refused)
        for each, coding in zip(each_priced, prices.assignment(best), strict=True)
    )
    used = {name for choice in choices if choice.coding for name in choice.coding.functions(opset)}
    functions = tuple(function for name, function in prices.functions.items() if name in used)
    once = 0 if inline else sum(map(protos.function_nbytes, functions))
    return Plan(choices, functions, once + (protos.import_nbytes() if functions and not inline else 0))


def stored_nbytes(coding: Coding, name: str, counts: Counts, opset: int, *, inline: bool) -> int:
    """File bytes of a weight stored so: its initializers and its nodes, `inline` those of the decoders themselves."""
    called = coding.nbytes(_LABEL, name, counts)
    return called + written_out_nbytes(coding, len(name.encode()), opset) if inline else called


@lru_cache(maxsize=4096)
def written_out_nbytes(coding: Coding, length: int, opset: int) -> int:
    """The bytes that inlining adds to a weight whose name has so many bytes."""
    functions = written_out(coding.functions(opset), opset)
    nodes = coding.nodes(_LABEL, "n" * length)
    return sum(inlined_nbytes(node, functions) - protos.node_nbytes(node) for node in nodes)


def priced(name: str, counts: Counts, opset: int, codings: Sequence[Coding], *, inline: bool) -> Choice:
    """What a weight costs in each coding; as a choice it stays dense."""
    support = {coding.name: coding.supports(counts, opset) for coding in codings}
    nbytes = {
        coding.name: stored_nbytes(coding, name, counts, opset, inline=inline)
        for coding in codings
        if support[coding.name]
    }
    refused = {coding: answer.reason for coding, answer in support.items() if not answer}
    return Choice(name, counts, None, protos.tensor_nbytes(name, counts.shape, counts.dtype), nbytes, refused)


class _Prices:
    """What every set of functions costs. Sets are of indices into `functions`."""

    def __init__(self, priced: Sequence[Choice], codings: Sequence[Coding], opset: int, *, inline: bool) -> None:
        dense = np.array([each.dense_nbytes for each in priced], np.int64)
        table = np.array(
            [[each.nbytes_by_coding.get(coding.name, each.dense_nbytes) for coding in codings] for each in priced],
            np.int64,
        ).reshape(len(priced), len(codings))
        useful = [number for number in range(len(codings)) if np.any(table[:, number] < dense)]
        self._codings = [codings[number] for number in useful]
        self._dense = dense
        self._table: npt.NDArray[Any] = table[:, useful]
        needed = [coding.functions(opset) for coding in self._codings]
        every = {name: function for functions in needed for name, function in functions.items()}
        self.functions = dict(sorted(every.items(), key=lambda item: calls_read_bits(item[1])))
        place = {name: number for number, name in enumerate(self.functions)}
        self._members = [frozenset(place[name] for name in functions) for functions in needed]
        self._once = [0 if inline else protos.function_nbytes(function) for function in self.functions.values()]
        self._import = 0 if inline else protos.import_nbytes()

    def total(self, members: _Set) -> int:
        """Bytes of all the weights with only these functions."""
        inside = [number for number, needed in enumerate(self._members) if needed <= members]
        once = sum(self._once[number] for number in members) + (self._import if members else 0)
        if not inside:
            return int(self._dense.sum()) + once
        return int(np.minimum(self._table[:, inside].min(axis=1), self._dense).sum()) + once

    def assignment(self, members: _Set) -> list[Coding | None]:
        """The cheapest coding of each weight with only these functions; of equal ones the first, dense before all."""
        inside = [number for number, needed in enumerate(self._members) if needed <= members]
        if not inside:
            return [None] * len(self._dense)
        table = self._table[:, inside]
        return [
            self._codings[inside[int(row.argmin())]] if row.min() < dense else None
            for row, dense in zip(table, self._dense, strict=True)
        ]

    def best(self) -> _Set:
        """The set with the fewest bytes in all; of equal ones the one with the fewest functions."""
        every = range(len(self.functions))
        if len(self.functions) <= _EXACT:
            sets = (frozenset(members) for size in range(len(every) + 1) for members in combinations(every, size))
            return min(sets, key=self.total)
        down = self._descent(frozenset(every), lambda now: {now - {gone} for gone in now})
        up = self._descent(frozenset(), lambda now: {now | needed for needed in self._members} - {now})
        return self._descent(min(down, up, key=self.total), self._neighbours)

    def _neighbours(self, now: _Set) -> set[_Set]:
        """`now` without one function, with one coding more, or both."""
        larger = {now | needed for needed in self._members}
        return ({each - {gone} for each in (now, *larger) for gone in now} | larger) - {now}

    def _descent(self, now: _Set, moves: Callable[[_Set], Iterable[_Set]]) -> _Set:
        """Take the best move as long as one gains."""
        price = self.total(now)
        while True:
            best = min(sorted(moves(now), key=sorted), key=self.total, default=now)
            if self.total(best) >= price:
                return now
            now, price = best, self.total(best)
