"""Which scheme for which weight: the assignment that gives the smallest file, counted in file bytes.

A weight costs its initializers and its decoder node, or one dense initializer. Each scheme in use costs its function
once, and the first of them the import of the domain. Every set of schemes is tried: in a set each weight takes its
cheapest member, or stays dense, and the set with the fewest bytes in all wins; of equal ones the first with the fewest
schemes. So no function is in the file that does not pay for itself, and tiny tensors stay dense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..errors import EncodeError
from . import protos
from .registry import SCHEMES
from .scheme import Counts, Scheme

MAX_SCHEMES = 10
"""Sets tried are 2 to this power at most."""


@dataclass(frozen=True)
class Choice:
    """How one weight is stored best.

    Attributes:
        name: the weight.
        counts: what its sizes were computed from.
        scheme: the scheme to store it with; None means dense.
        dense_nbytes: file bytes of the dense initializer.
        scheme_nbytes: scheme name → file bytes of the weight's initializers and node; only schemes that can store it.
        refused: scheme name → why it cannot store the weight.
    """

    name: str
    counts: Counts
    scheme: Scheme | None
    dense_nbytes: int
    scheme_nbytes: Mapping[str, int]
    refused: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """File bytes of the weight as chosen; functions are not counted here."""
        return self.dense_nbytes if self.scheme is None else self.scheme_nbytes[self.scheme.name]


@dataclass(frozen=True)
class Plan:
    """The choice for every weight, in the order given, and what the file pays once.

    Attributes:
        choices: one for each weight.
        schemes: the schemes in use, each of which needs its function in the model.
        once_nbytes: file bytes of these functions and of the domain's import.
    """

    choices: tuple[Choice, ...]
    schemes: tuple[Scheme, ...]
    once_nbytes: int

    @property
    def nbytes(self) -> int:
        """File bytes of all the weights as chosen, functions and import included."""
        return self.once_nbytes + sum(choice.nbytes for choice in self.choices)

    @property
    def dense_nbytes(self) -> int:
        """File bytes of all the weights as dense initializers."""
        return sum(choice.dense_nbytes for choice in self.choices)


def choose(weights: Mapping[str, Counts], opset: int, schemes: Sequence[Scheme] = SCHEMES) -> Plan:
    """The assignment of `schemes` to weights that makes the smallest file for a model of the ai.onnx `opset`.

    `weights`: name → counts (see `count`). A weight that no scheme can store, or makes smaller, stays dense.
    Raises EncodeError for more than `MAX_SCHEMES` schemes.
    """
    if len(schemes) > MAX_SCHEMES:
        raise EncodeError(
            f"choose: found {len(schemes)} schemes to choose from, expected at most {MAX_SCHEMES}; leave some out"
        )
    priced = tuple(_priced(name, counts, opset, schemes) for name, counts in weights.items())
    useful = [scheme for scheme in schemes if any(_saves(choice, scheme) for choice in priced)]
    once = {scheme.name: protos.function_nbytes(scheme, opset) for scheme in useful}
    best = Plan(priced, (), 0)
    for number in range(1, len(useful) + 1):
        for members in combinations(useful, number):
            choices = tuple(_cheapest(choice, members) for choice in priced)
            plan = Plan(choices, members, protos.import_nbytes() + sum(once[scheme.name] for scheme in members))
            if plan.nbytes < best.nbytes:
                best = plan
    return best


def _priced(name: str, counts: Counts, opset: int, schemes: Sequence[Scheme]) -> Choice:
    support = {scheme.name: scheme.supports(counts.shape, counts.dtype, opset) for scheme in schemes}
    nbytes = {scheme.name: protos.encoded_nbytes(name, scheme, counts) for scheme in schemes if support[scheme.name]}
    refused = {scheme: answer.reason for scheme, answer in support.items() if not answer}
    return Choice(name, counts, None, protos.tensor_nbytes(name, counts.shape, counts.dtype), nbytes, refused)


def _saves(choice: Choice, scheme: Scheme) -> bool:
    return choice.scheme_nbytes.get(scheme.name, choice.dense_nbytes) < choice.dense_nbytes


def _cheapest(choice: Choice, members: Sequence[Scheme]) -> Choice:
    """`choice` with the cheapest of `members`, or dense when none is smaller; of equal ones the first."""
    saving = [scheme for scheme in members if _saves(choice, scheme)]
    scheme = min(saving, key=lambda member: choice.scheme_nbytes[member.name], default=None)
    return Choice(choice.name, choice.counts, scheme, choice.dense_nbytes, choice.scheme_nbytes, choice.refused)
