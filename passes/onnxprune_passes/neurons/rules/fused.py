"""Activations that onnxruntime fuses with an addition: coordinate by coordinate, as in elementwise.py.

onnx's reference does not know them, so constants are computed here, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...arrays import NDArray
from ..flow import Flow
from ..graph import Node
from ..operands import aligned, united
from ..rule import Rule, Rules
from ..trace import Trace

Function = Callable[[NDArray], NDArray]


def _gelu(x: NDArray) -> NDArray:
    return np.asarray(x * np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)) / 2 + x / 2)


def _fast_gelu(x: NDArray) -> NDArray:
    return np.asarray(x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _of_a_sum(function: Function) -> Rule:
    """`function` of the sum of all inputs."""

    def flow(trace: Trace, node: Node) -> None:
        parts = aligned(trace, node, [index for index, name in enumerate(node.proto.input) if name])
        if parts is None:
            return
        after = Flow.of(united(trace, node, parts))
        known, total = np.ones((), np.bool_), np.zeros(())
        for part in parts:
            known, total = known & part.known, total + np.where(part.known, part.values, 0).astype(np.float64)
        dtype = trace.graph.dtype(node.output(0)) or np.dtype(np.float32)
        with np.errstate(all="ignore"):
            trace.put(node, 0, after.with_known(np.asarray(known), function(total).astype(dtype)))

    return Rule(flow)


def _quick_gelu(trace: Trace, node: Node) -> None:
    alpha = float(node.attributes.get("alpha", 1.702))
    _of_a_sum(lambda x: np.asarray(x / (1 + np.exp(-alpha * x)))).flow(trace, node)


RULES: Rules = {
    ("com.microsoft", "Gelu"): _of_a_sum(_gelu),
    ("com.microsoft", "BiasGelu"): _of_a_sum(_gelu),
    ("com.microsoft", "FastGelu"): _of_a_sum(_fast_gelu),
    ("com.microsoft", "QuickGelu"): Rule(_quick_gelu),
}
