"""Heads that share an axis with a batch of unknown size, as torch exports attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

SIZES = "z = Shape(c) b = Slice(z, one, two) k = Mul(b, three) t = Concat<axis=0>(five, k, four)"
FOLDED = f"{SIZES} j = Reshape(c, t) v = Transpose<perm=[1,0,2]>(j)"
APART = "f = Concat<axis=0>(b, three, five, four) u = Reshape(v, f)"
BACK = "q = Transpose<perm=[2,0,1,3]>(u) r = Reshape(q, flat)"
WEIGHTS: dict[str, Any] = {
    "w1": ((3, 12),),
    **{name: [size] for name, size in (("one", 1), ("two", 2), ("three", 3), ("four", 4), ("five", 5))},
    "flat": [5, -1, 12],
}
HEAD = [4, 5, 6, 7]
EACH = [1, 5, 9]
"""Entry 1 of each of three heads."""
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "joint_head": (
        f"g (float[5,N,3] x) => (float[5,N,2] y) {{ c = MatMul(x, w1) {FOLDED} {APART} {BACK} y = MatMul(r, w2) }}",
        {**WEIGHTS, "w2": ((12, 2), {0: HEAD})},
        {},
    ),
    "joint_entry_of_each_head": (
        f"g (float[5,N,3] x) => (float[5,N,2] y) {{ c = MatMul(x, w1) {FOLDED} {APART} {BACK} y = MatMul(r, w2) }}",
        {**WEIGHTS, "w2": ((12, 2), {0: EACH})},
        {},
    ),
    "joint_single_entries": (
        f"g (float[5,N,3] x) => (float[5,N,2] y) {{ c = MatMul(x, w1) {FOLDED} {APART} {BACK} y = MatMul(r, w2) }}",
        {**WEIGHTS, "w2": ((12, 2), {0: [0, 5]})},
        {},
    ),
    "joint_read_by_another": (
        f"""g (float[5,N,3] x) => (float[5,N,2] y, float[M,5,4] n) {{ c = MatMul(x, w1) {FOLDED} {APART} {BACK}
        y = MatMul(r, w2) n = Neg(v) }}""",
        {**WEIGHTS, "w2": ((12, 2), {0: HEAD})},
        {},
    ),
    "joint_never_parted": (
        f"g (float[5,N,3] x) => (float[5,M,2] y) {{ c = MatMul(x, w1) {SIZES} j = Reshape(c, t) y = MatMul(j, w2) }}",
        {**WEIGHTS, "w1": ((3, 12), {1: HEAD}), "w2": ((4, 2), {0: [1]})},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch(
    batch: int, build: Callable[..., Any], answers: Callable[..., Any], shrink: Callable[..., Any]
) -> None:
    text, weights, _ = CASES["joint_head"]
    rng = np.random.default_rng(0)
    arrays = {name: np.array(one, np.int64) for name, one in weights.items() if isinstance(one, list)}
    arrays |= {
        "w1": rng.integers(1, 4, (3, 12)).astype(np.float32),
        "w2": rng.integers(1, 4, (12, 2)).astype(np.float32),
    }
    arrays["w2"][HEAD] = 0
    model = build(text, arrays)
    after = shrink(model).model
    assert after.initializers["w1"].shape == (3, 8)
    x = rng.integers(-3, 4, (5, batch, 3)).astype(np.float32)
    for optimised in (False, True):
        one, other = (answers(each, {"x": x}, optimised)[0] for each in (model, after))
        assert np.array_equal(one, other)
