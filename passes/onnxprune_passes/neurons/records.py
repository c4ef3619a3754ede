"""What a walk over the graph notes down: ids that must stay, weights that read neurons, weights that make them."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays import NDArray
from .classes import Ids
from .graph import Node
from .slices import BoolArray


@dataclass(frozen=True, eq=False)
class Pin:
    """Ids that must stay, and why: `reason` names the node.

    `unless`: an id for each of them; where that one goes, nothing is in the way. None: they stay in any case.
    """

    ids: Ids
    reason: str
    unless: Ids | None = None


@dataclass(frozen=True, eq=False)
class Tie:
    """An axis that shrinks by whole slices: all ids of row i of `rows` go exactly when `heads[i]` goes.

    Attributes:
        rows: [n, m].
        heads: [n].
        reason: names the node.
    """

    rows: Ids
    heads: Ids
    reason: str


@dataclass(frozen=True, eq=False)
class Site:
    """A weight, input `index` of `node`, that reads neurons along its `in_axis`.

    Attributes (arrays have one entry for each coordinate along that axis):
        zero: the weight's slice there is all zero, so the neuron is not read.
        known, values: the neuron is this constant.
        out_axis: the axis of the weight that the constant's contribution falls on.
        scale: factor on the product (Gemm's alpha).
        border: why a constant other than 0 does not fold into the bias; '' when it does.
    """

    node: Node
    index: int
    in_axis: int
    out_axis: int
    ids: Ids
    zero: BoolArray
    known: BoolArray
    values: NDArray
    scale: float = 1.0
    border: str = ""


@dataclass(frozen=True, eq=False)
class Sum:
    """A sum over neurons, all with weight 1 (ReduceSum, ReduceMean): it needs each one that is not a known constant.

    Attributes (arrays have one entry for each coordinate along the summed axis):
        zero: False everywhere.
        known, values, border: as in `Site`; a constant is added behind the node.
        scale: what a constant is multiplied with before it is added.
    """

    node: Node
    ids: Ids
    zero: BoolArray
    known: BoolArray
    values: NDArray
    scale: float = 1.0
    border: str = ""


@dataclass(frozen=True, eq=False)
class Producer:
    """A weight that makes one neuron a slice of axis `axis` of the tensor `key`; `zero`: that slice is all zero.

    `blocks`: neuron j is the slices j, j + size, j + 2 × size… of so many equal parts (the gates of a recurrent
    weight), and `zero` says that it is 0 whatever it reads.
    """

    node: Node
    key: str
    axis: int
    ids: Ids
    zero: BoolArray
    blocks: int = 1
