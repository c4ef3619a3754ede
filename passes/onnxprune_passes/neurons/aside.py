"""Dead neurons of weights that the walk does not reach: in functions, quantised, or reshaped on the way.

They stay; saying so, with the node, is all that is done for them.
"""

from __future__ import annotations

import numpy as np

from ..model import Model
from ..roles import GATES
from ..storage.keys import function_prefix
from ..weights import Weight, find_weights
from .slices import BoolArray, ZeroSlices
from .trace import Trace


def dead_aside(model: Model, trace: Trace, zeros: ZeroSlices) -> list[tuple[str, int, str]]:
    """(key of the weight, how many of its rows are all zero, why they stay) for each weight that has such rows."""
    found: list[tuple[str, int, str]] = []
    for weight, reason in unreached(model, trace):
        axis = weight.uses[0].out_axis if weight.kind != "rnn" else None  # a unit has rows in every gate
        count = int(_dead(model, weight, zeros)[axis].sum()) if axis is not None else 0
        if count:
            found.append((weight.key, count, reason))
    return found


def unreached(model: Model, trace: Trace) -> list[tuple[Weight, str]]:
    """The weights whose neurons the walk does not know, and why; of a recurrent layer its input weight alone."""
    reached = {producer.key for producer in trace.producers}
    return [
        (weight, _reason(model, weight))
        for weight in find_weights(model)
        if weight.key not in reached and not (weight.kind == "rnn" and weight.uses[0].input_index != 1)
    ]


def count_made(weight: Weight) -> int:
    """How many neurons `weight` makes; 0 where the axis is not known."""
    use = weight.uses[0]
    return 0 if use.out_axis is None else weight.shape[use.out_axis] // GATES.get(use.op_type, 1)


def _dead(model: Model, weight: Weight, zeros: ZeroSlices) -> tuple[BoolArray, ...]:
    """For each axis of the stored tensor, where its slices mean nothing but 0."""
    source = model.initializers.source(weight.key)
    if weight.zero_point is None or not weight.zero_point.any():
        return zeros.of(source)
    alive = source.array() != weight.zero_point
    others = [tuple(one for one in range(alive.ndim) if one != axis) for axis in range(alive.ndim)]
    return tuple(np.asarray(~alive.any(axis=axes)) for axes in others)


def _reason(model: Model, weight: Weight) -> str:
    use = weight.uses[0]
    where = f"blocked by {use.op_type} node '{use.node}'"
    if weight.quantised:
        return f"{where}: its weight is quantised, which is not followed"
    if any(weight.key.startswith(function_prefix(function)) for function in model.skeleton.functions):
        return f"{where}: it is inside a function, and functions are not followed"
    return f"{where}: it is not followed, or its weight is computed on the way"
