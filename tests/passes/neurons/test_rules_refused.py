"""What is not followed pins, and the Skip names the node: unknown ops, bodies, other readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

B1, B2 = [1.0, 2.0, 3.0, 4.0], [0.0, 5.0]
DENSE = {"w1": ((4, 3), {0: [1]}), "b1": B1, "w2": ((2, 4), {1: [3]}), "b2": B2}
ROWS = "g (float[N,3] x) => (float[N,2] y)"


def dense(middle: str, inputs: str = "float[N,3] x") -> str:
    return f"g ({inputs}) => (float[N,2] y) {{ h = Gemm<transB=1>(x, w1, b1) {middle} y = Gemm<transB=1>(m, w2, b2) }}"


Case = tuple[str, dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    "op_without_rule": (dense("[mixer] m = CumSum(h, axis)"), {**DENSE, "axis": np.int64(1)}, {}),
    "other_domain": (dense("m = my.own.Mix(h)"), DENSE, {"domains": ', "my.own": 1'}),
    "captured_by_a_body": (
        dense(
            """[chooser] m = If (p) <then_branch = a () => (float[N,4] t) { t = Relu(h) },
            else_branch = b () => (float[N,4] e) { e = Neg(h) }>""",
            "float[N,3] x, bool p",
        ),
        DENSE,
        {},
    ),
    "weight_captured_by_a_body": (
        """g (float[N,3] x, bool p) => (float[N,2] y, float[4] z) { h = Gemm<transB=1>(x, w1, b1)
        y = Gemm<transB=1>(h, w2, b2) [chooser] z = If (p) <then_branch = a () => (float[4] t) { t = Relu(b1) },
        else_branch = b () => (float[4] e) { e = Neg(b1) }> }""",
        DENSE,
        {},
    ),
    "weight_inside_a_body": (
        """g (float[N,3] x, bool p) => (float[N,2] y) { [chooser] y = If (p) <
        then_branch = a () => (float[N,2] t) <float[3,2] w = {1,0,2,0,3,0}> { [inner] t = MatMul(x, w) },
        else_branch = b () => (float[N,2] e) <float[3,2] v = {1,0,2,1,3,0}> { e = MatMul(x, v) }> }""",
        {},
        {},
    ),
    "weight_is_an_output": (
        "g (float[N,3] x) => (float[N,2] y, float[4] b1) { h = Gemm<transB=1>(x, w1, b1) "
        "y = Gemm<transB=1>(h, w2, b2) }",
        DENSE,
        {},
    ),
    "weight_read_in_another_way": (
        f"{ROWS} {{ h = Gemm<transB=1>(x, w1, b1) n = Gemm<transB=1>(h, w2, b2) "
        "k = ReduceMax<keepdims=0>(w1) y = Add(n, k) }",
        DENSE,
        {},
    ),
    "bias_read_by_a_computation": (
        f"{ROWS} {{ h = Gemm<transB=1>(x, w1, b1) n = Gemm<transB=1>(h, w2, b2) "
        "k = ReduceMax<keepdims=0>(b1) y = Add(n, k) }",
        DENSE,
        {},
    ),
    "old_opset": (
        f"{ROWS} {{ h = MatMul(x, w1) y = MatMul(h, w2) }}",
        {"w1": ((3, 4), {1: [1]}), "w2": ((4, 2),)},
        {"opset": 6},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])
