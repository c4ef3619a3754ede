"""Gemm and MatMul, each with input-dead and output-dead neurons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

ROWS = "g (float[N,3] x) => (float[N,2] y)"
B1, B2 = [1.0, 2.0, 3.0, 4.0], [0.0, 5.0]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemm": (
        f"{ROWS} {{ h = Gemm<transB=1>(x, w1, b1) r = Relu(h) y = Gemm<transB=1>(r, w2, b2) }}",
        {"w1": ((4, 3), {0: [1]}), "b1": B1, "w2": ((2, 4), {1: [3]}), "b2": B2},
    ),
    "gemm_alpha_beta": (
        f"{ROWS} {{ h = Gemm<beta=2.0>(x, w1, b1) y = Gemm<alpha=2.0, beta=4.0>(h, w2, b2) }}",
        {"w1": ((3, 4), {1: [1]}), "b1": B1, "w2": ((4, 2),), "b2": B2},
    ),
    "gemm_scalar_bias": (
        f"{ROWS} {{ h = Gemm(x, w1, b1) y = Gemm(h, w2, b2) }}",
        {"w1": ((3, 4), {1: [1]}), "b1": [2.0], "w2": ((4, 2),), "b2": [3.0]},
    ),
    "gemm_without_bias": (
        f"{ROWS} {{ h = Gemm(x, w1, b1) y = Gemm(h, w2) }}",
        {"w1": ((3, 4), {1: [1]}), "b1": B1, "w2": ((4, 2), {0: [2]})},
    ),
    "gemm_bias_matrix": (
        "g (float[5,3] x) => (float[5,2] y) { h = Gemm(x, w1, b1) y = Gemm(h, w2, b2) }",
        {"w1": ((3, 4), {1: [1]}), "b1": B1, "w2": ((4, 2), {0: [2]}), "b2": ((5, 2),)},
    ),
    "gemm_weight_on_the_left": (
        "g (float[3,5] x) => (float[2,5] y) { h = Gemm<transA=1>(w1, x, b1) y = Gemm(w2, h) }",
        {"w1": ((3, 4), {1: [1]}), "b1": ((4, 1),), "w2": ((2, 4), {1: [2]})},
    ),
    "gemm_turned_input": (
        "g (float[3,N] x) => (float[N,2] y) { h = Gemm<transA=1>(x, w1) r = Add(h, b1) y = Gemm(r, w2, b2) }",
        {"w1": ((3, 4), {1: [1]}), "b1": B1, "w2": ((4, 2), {0: [3]}), "b2": ((1, 2),)},
    ),
    "gemm_computed_bias": (
        f"{ROWS} {{ c = Gemm(x, w0) h = Gemm(x, w1, c) y = Gemm(h, w2) }}",
        {"w0": ((3, 4), {1: [2]}), "w1": ((3, 4), {1: [1, 2]}), "w2": ((4, 2), {0: [3]})},
    ),
    "gemm_bias_with_neurons_on_the_rows": (
        "g (float[4,3] x, float[5,2] z) => (float[4,2] y) { c = MatMul(w0, z) y = Gemm(x, w1, c) }",
        {"w0": ((4, 5), {0: [1]}), "w1": ((3, 2),)},
    ),
    "matmul_add": (
        f"{ROWS} {{ h = MatMul(x, w1) a = Add(h, b1) r = Relu(a) o = MatMul(r, w2) y = Add(b2, o) }}",
        {"w1": ((3, 4), {1: [1]}), "b1": B1, "w2": ((4, 2), {0: [3]}), "b2": B2},
    ),
    "matmul_alone": (
        f"{ROWS} {{ h = MatMul(x, w1) a = Add(h, b1) y = MatMul(a, w2) }}",
        {"w1": ((3, 4), {1: [1]}), "b1": B1, "w2": ((4, 2), {0: [3]})},
    ),
    "matmul_weight_on_the_left": (
        "g (float[N,3,5] x) => (float[N,2,5] y) { h = MatMul(w1, x) a = Add(h, b1) y = MatMul(w2, a) }",
        {"w1": ((4, 3), {0: [1]}), "b1": ((4, 1),), "w2": ((2, 4), {1: [2]})},
    ),
    "matmul_beside": (
        "g (float[N,2,3] x) => (float[N,2,5] y) { h = MatMul(w1, x) t = MatMul(h, mix) r = Relu(t) y = MatMul(w2, r) }",
        {"w1": ((4, 2), {0: [1]}), "mix": ((3, 5),), "w2": ((2, 4), {1: [2]})},
    ),
    "matmul_batched_weight": (
        "g (float[N,2,5,3] x) => (float[N,2,5,2] y) { h = MatMul(x, w1) a = Add(h, b1) y = MatMul(a, w2) }",
        {"w1": ((2, 3, 4), {2: [1, 2]}), "b1": [1.0, 2.0, 0.0, 4.0], "w2": ((2, 4, 2), {1: [3]})},
    ),
    "einsum": (
        f"""{ROWS} {{ h = Einsum<equation="ni,io->no">(x, w1) r = Relu(h)
        y = Einsum<equation = "oi, ni -> no">(w2, r) }}""",
        {"w1": ((3, 4), {1: [1]}), "w2": ((2, 4), {1: [3]})},
    ),
    "einsum_does_not_fold": (
        f"""{ROWS} {{ h = Einsum<equation="ni,io->no">(x, w1) a = Add(h, b1)
        y = Einsum<equation="ni,io->no">(a, w2) }}""",
        {"w1": ((3, 4), {1: [1, 2]}), "b1": [1.0, 2.0, 0.0, 4.0], "w2": ((4, 2),)},
    ),
    "einsum_beside": (
        """g (float[N,2,3] x) => (float[N,2,5] y) { h = MatMul(w1, x) t = Einsum<equation="nct,ts->nsc">(h, mix)
        r = Transpose<perm=[0,2,1]>(t) y = MatMul(w2, r) }""",
        {"w1": ((4, 2), {0: [1]}), "mix": ((3, 5),), "w2": ((2, 4), {1: [2]})},
    ),
    "einsum_attention": (
        """g (float[N,5,4] x) => (float[N,5,2] y) { q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
        qs = Reshape(q, split) ks = Reshape(k, split) vs = Reshape(v, split)
        s = Einsum<equation="bqhd,bkhd->bhqk">(qs, ks) o = Einsum<equation="bhqk,bkhd->bqhd">(s, vs)
        f = Reshape(o, join) y = MatMul(f, wo) }""",
        {
            "wq": ((4, 6), {1: [1]}),
            "wk": ((4, 6), {1: [5]}),
            "wv": ((4, 6),),
            "wo": ((6, 2), {0: [2, 3]}),
            "split": [0, 0, 3, 2],
            "join": [0, 0, -1],
        },
    ),
    "einsum_values_first": (
        """g (float[N,5,4] x, float[N,5,5] p) => (float[N,5,2] y) { v = MatMul(x, wv)
        o = Einsum<equation="bkd,bqk->bqd">(v, p) y = MatMul(o, wo) }""",
        {"wv": ((4, 6), {1: [1]}), "wo": ((6, 2), {0: [2, 3]})},
    ),
    "einsum_three_axes_of_weight": (
        """g (float[N,3] x) => (float[N,2,2] y) { h = MatMul(x, w1) y = Einsum<equation="ni,ijk->njk">(h, w2) }""",
        {"w1": ((3, 4), {1: [1]}), "w2": ((4, 2, 2),)},
    ),
    "einsum_diagonal": (
        """g (float[4,3] x) => (float[4] y) { h = MatMul(x, w1) y = Einsum<equation="ii->i">(h) }""",
        {"w1": ((3, 4), {1: [1]})},
    ),
    "matmul_of_two_computed": (
        "g (float[N,3] x) => (float[N,N] y) { h = MatMul(x, w1) t = Transpose(h) y = MatMul(h, t) }",
        {"w1": ((3, 4), {1: [1]})},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name], {})
