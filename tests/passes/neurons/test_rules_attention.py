"""Attention written as MatMul, Reshape, Transpose and Softmax: whole heads, inner dimensions, values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

TOKENS = "g (float[N,5,4] x) => (float[N,5,2] y)"
SPLIT = """qs = Reshape(q, split) ks = Reshape(k, split) vs = Reshape(v, split)
qh = Transpose<perm=[0,2,1,3]>(qs) kt = Transpose<perm=[0,2,3,1]>(ks) vh = Transpose<perm=[0,2,1,3]>(vs)"""
JOIN = "oh = Transpose<perm=[0,2,1,3]>(o) f = Reshape(oh, join) y = MatMul(f, wo)"
SIZES = {"split": [0, 0, 3, 2], "join": [0, 0, -1], "half": np.float32(0.5)}
QKV = dict.fromkeys(("wq", "wk", "wv"), ((4, 6),))


def heads(between: str, projections: str = "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)") -> str:
    return f"{TOKENS} {{ {projections} {SPLIT} s = MatMul(qh, kt) {between} o = MatMul(p, vh) {JOIN} }}"


LINEAR, SOFTMAX = "p = Mul(s, half)", "m = Mul(s, half) p = Softmax<axis=-1>(m)"
Case = tuple[str, dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    "attention_head": (heads(LINEAR), {**QKV, **SIZES, "wo": ((6, 2), {0: [2, 3]})}, {}),
    "attention_head_of_zero_values": (
        heads(LINEAR),
        {**QKV, **SIZES, "wv": ((4, 6), {1: [0, 1]}), "wo": ((6, 2),)},
        {},
    ),
    "attention_head_softmax": (
        heads(SOFTMAX),
        {**QKV, **SIZES, "wo": ((6, 2), {0: [2, 3]})},
        {"exact": False},
    ),
    "attention_head_masked": (
        heads("m = Add(s, mask) p = Softmax<axis=-1>(m)"),
        {**QKV, **SIZES, "mask": np.triu(np.full((5, 5), -9, np.float32), 1), "wo": ((6, 2), {0: [4, 5]})},
        {"exact": False},
    ),
    "attention_inner": (
        heads(LINEAR),
        {**QKV, **SIZES, "wq": ((4, 6), {1: [1]}), "wk": ((4, 6), {1: [3, 5]}), "wo": ((6, 2),)},
        {},
    ),
    "attention_inner_of_one_head": (
        heads(SOFTMAX),
        {**QKV, **SIZES, "wq": ((4, 6), {1: [1]}), "wo": ((6, 2),)},
        {"exact": False},
    ),
    "attention_inner_constant": (
        heads(LINEAR, "qm = MatMul(x, wq) q = Add(qm, bq) k = MatMul(x, wk) v = MatMul(x, wv)"),
        {
            **QKV,
            **SIZES,
            "wq": ((4, 6), {1: [1, 3, 5]}),
            "bq": [0.0, 2.0, 0.0, 2.0, 0.0, 2.0],
            "wo": ((6, 2),),
        },
        {},
    ),
    "attention_values": (
        heads(LINEAR),
        {**QKV, **SIZES, "wv": ((4, 6), {1: [1]}), "wo": ((6, 2), {0: [3, 5]})},
        {},
    ),
    "attention_scores_are_an_output": (
        heads(LINEAR).replace("y)", "y, float[N,3,5,5] s)"),
        {**QKV, **SIZES, "wo": ((6, 2), {0: [2, 3]})},
        {},
    ),
    "attention_one_head": (
        f"""{TOKENS} {{ q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) kt = Transpose<perm=[0,2,1]>(k)
        s = MatMul(q, kt) p = Mul(s, half) o = MatMul(p, v) y = MatMul(o, wo) }}""",
        {
            "half": np.float32(0.5),
            "wq": ((4, 3), {1: [0]}),
            "wk": ((4, 3), {1: [2]}),
            "wv": ((4, 3), {1: [1]}),
            "wo": ((3, 2), {0: [2]}),
        },
        {},
    ),
    "attention_shared_keys": (
        f"""{TOKENS} {{ q = MatMul(x, wq) qs = Reshape(q, split) qh = Transpose<perm=[0,2,1,3]>(qs)
        k = MatMul(x, wk) ks = Unsqueeze(k, one) kt = Transpose<perm=[0,1,3,2]>(ks)
        s = MatMul(qh, kt) p = Mul(s, half) m = ReduceMean<axes=[3], keepdims=0>(p)
        t = Transpose<perm=[0,2,1]>(m) y = MatMul(t, wo) }}""",
        {"one": [1], **SIZES, "wq": ((4, 6),), "wk": ((4, 2),), "wo": ((3, 2), {0: [1]})},
        {"exact": False},
    ),
    "attention_turned_positions": (
        """g (float[N,T,4] x) => (float[N,T,2] y) { q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv)
        n = Shape<start=0, end=2>(x) big = Concat<axis=0>(n, four, two) small = Concat<axis=0>(n, two, two)
        q = Reshape<allowzero=1>(q0, big) k = Reshape(k0, small) v = Reshape(v0, small)
        len = Shape<start=1, end=2>(x) t = Slice(table, zero, len) c = Unsqueeze(t, to)
        qe = Slice(q, zero, end, last, two) qo = Slice(q, one, end, last, two) qa = Mul(qe, c) qb = Mul(qo, c)
        qd = Sub(qa, qb) qs = Add(qa, qb) qi = Concat<axis=-1>(qd, qs) qh = Transpose<perm=[0,2,1,3]>(qi)
        wide = Concat<axis=0>(n, two, two, two)
        ku = Unsqueeze(k, three) ke = Expand(ku, wide) kr = Reshape(ke, big) kt = Transpose<perm=[0,2,3,1]>(kr)
        vu = Unsqueeze(v, three) ve = Expand(vu, wide) vr = Reshape(ve, big) vh = Transpose<perm=[0,2,1,3]>(vr)
        s = MatMul(qh, kt) o = MatMul(s, vh) ot = Transpose<perm=[0,2,1,3]>(o)
        flat = Concat<axis=0>(n, rest) f = Reshape(ot, flat) y = MatMul(f, wo) }""",
        {
            "wq": ((4, 8),),
            "wk": ((4, 4),),
            "wv": ((4, 4),),
            "wo": ((8, 2), {0: [0, 1, 2, 3]}),
            "table": ((9, 1),),
            "zero": [0],
            "one": [1],
            "two": [2],
            "three": [3],
            "four": [4],
            "end": [9],
            "last": [3],
            "to": [0, 2],
            "rest": [8],
        },
        {},
    ),
    "head_times_position": (
        """g (float[N,T,4] x) => (float[N,T,2] y) { h = MatMul(x, w1) hs = Reshape(h, split)
        len = Shape<start=1, end=2>(x) t = Slice(table, zero, len) c = Unsqueeze(t, to) m = Mul(hs, c)
        f = Reshape(m, join) y = MatMul(f, wo) }""",
        {
            **SIZES,
            "w1": ((4, 6),),
            "table": ((9, 2),),
            "zero": [0],
            "to": [0, 2],
            "join": [0, 0, 6],
            "wo": ((6, 2), {0: [0, 2, 3]}),
        },
        {},
    ),
    "attention_keys_are_an_input": (
        f"""{TOKENS.replace("x)", "x, float[N,7,3] k)")} {{ q = MatMul(x, wq) kt = Transpose<perm=[0,2,1]>(k)
        p = MatMul(q, kt) v = MatMul(k, wv) y = MatMul(p, v) }}""",
        {"wq": ((4, 3), {1: [0]}), "wv": ((3, 2),)},
        {},
    ),
    "attention_values_without_scores": (
        f"""{TOKENS.replace("x)", "x, float[N,3,5,5] p)")} {{ v = MatMul(x, wv) vs = Reshape(v, split)
        vh = Transpose<perm=[0,2,1,3]>(vs) o = MatMul(p, vh) {JOIN} }}""",
        {**SIZES, "wv": ((4, 6), {1: [0, 1]}), "wo": ((6, 2), {0: [2, 3]})},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])
