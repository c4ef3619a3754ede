"""`Rule`: what the engine has to know of one op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .cut import Cut
from .graph import Node
from .trace import Trace


@dataclass(frozen=True)
class Rule:
    """What an op does to neurons.

    Attributes:
        flow: says, through the Trace, what the node's outputs carry and what it unites, reads or pins.
        rewrite: brings sizes that the node names (attributes, constant inputs) in step after a removal; None when it
            names none.
        moves: the op only moves entries: a size that stands in its input (from Shape) is still that size in its output.
        follows: the indices of the inputs whose ids `flow` takes care of; ids that reach others are pinned. Empty: all.
        any_rank: `flow` copes with inputs of unknown rank; otherwise the engine refuses them.
    """

    flow: Callable[[Trace, Node], None]
    rewrite: Callable[[Cut, Node], None] | None = None
    moves: bool = False
    follows: tuple[int, ...] = ()
    any_rank: bool = False


Rules = dict[tuple[str, str], Rule]
"""(domain, op type) → rule; ONNX's own domain is ''."""


def onnx_rules(op_types: str, rule: Rule) -> Rules:
    """`rule` for each of the ONNX ops named in `op_types`, separated by blanks."""
    return {("", op_type): rule for op_type in op_types.split()}
