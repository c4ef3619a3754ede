"""Ops with weights whose neurons are not followed yet, each with its reason; whatever reaches them stays."""

from __future__ import annotations

from collections.abc import Callable

from ..graph import Node
from ..rule import Rule, Rules, onnx_rules
from ..trace import Trace

_QUANTISED = "quantised weights are not followed"

_REASONS = {
    _QUANTISED: "ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul",
}


def _because(reason: str) -> Callable[[Trace, Node], None]:
    return lambda trace, node: trace.refuse(node, reason)


RULES: Rules = {
    key: rule
    for reason, op_types in _REASONS.items()
    for key, rule in onnx_rules(op_types, Rule(_because(reason))).items()
}
