"""What a tensor would take in the file if it had other values: as they are, rounded, or shared.

Sizes depend on how many distinct values there are, not on which, so nothing has to be rounded to ask.
"""

from __future__ import annotations

from dataclasses import replace

from ..model import Model
from .choose import priced
from .counts import Counts, Values
from .limits import FIRST_OPSET
from .plan import Encoding, candidates, codings_for


def tensors_to_encode(model: Model, *, keep_inputs: bool = False) -> dict[str, Counts]:
    """The counts of every tensor that encoding may store otherwise than dense, by key (see `encode_model`)."""
    return candidates(model, coo_wanted=False, keep_inputs=keep_inputs)[0]


def with_distinct(counts: Counts, number: int) -> Counts:
    """`counts` as they would be with `number` distinct values beside 0."""
    return replace(counts, values=Values(distinct=tuple(range(1, number + 1))))


def with_float16(counts: Counts) -> Counts:
    """`counts` as they would be with values that float16 holds exactly."""
    return replace(counts, values=Values(narrow=("float16",)))


def smallest_nbytes(key: str, counts: Counts, opset: int, encoding: Encoding = "auto", *, inline: bool = False) -> int:
    """File bytes of a tensor in its smallest coding, or dense; functions, which tensors share, are not counted."""
    choice = priced(key, counts, max(opset, FIRST_OPSET), codings_for(encoding, [counts]), inline=inline)
    return min((choice.dense_nbytes, *choice.nbytes_by_coding.values()))
