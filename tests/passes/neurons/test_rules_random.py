"""Recurrent layers, groups, heads, branches with random slices of their weights zeroed: same answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NDArray = npt.NDArray[Any]
ATTENTION = """q = MatMul(x, wq) k = MatMul(x, wk) v0 = MatMul(x, wv) v = Add(v0, bv)
qs = Reshape(q, split) ks = Reshape(k, split) vs = Reshape(v, split)
qh = Transpose<perm=[0,2,1,3]>(qs) kt = Transpose<perm=[0,2,3,1]>(ks) vh = Transpose<perm=[0,2,1,3]>(vs)
s = MatMul(qh, kt) p = Mul(s, half) o = MatMul(p, vh) oh = Transpose<perm=[0,2,1,3]>(o) f = Reshape(oh, join)
y = MatMul(f, wo)"""
SIZES = {"split": np.array([0, 0, 3, 2]), "join": np.array([0, 0, -1]), "half": np.float32(0.5)}

MICROSOFT = ', "com.microsoft": 1'
FUSED = """q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
a = com.microsoft.MultiHeadAttention<num_heads=3>(q, k, v, b) z = MatMul(a, wo) y = Add(z, one)"""

NETS: dict[str, tuple[str, dict[str, tuple[int, ...]], Any, bool]] = {
    "rnn": (
        """g (float[4,N,3] x) => (float[4,N,2] y) { s = RNN<hidden_size=4, direction="bidirectional",
        activations=["Relu", "Relu"]>(x, w, r, b) t = Transpose<perm=[0,2,1,3]>(s) f = Reshape(t, flat)
        h = MatMul(f, wo) u = RNN<hidden_size=3, activations=["Relu"]>(h, w2, r2) q = Squeeze(u, one)
        y = MatMul(q, wy) }""",
        {
            "w": (2, 4, 3),
            "r": (2, 4, 4),
            "b": (2, 8),
            "wo": (8, 3),
            "w2": (1, 3, 3),
            "r2": (1, 3, 3),
            "wy": (3, 2),
        },
        {"flat": np.array([0, 0, -1]), "one": np.array([1])},
        True,
    ),
    "lstm": (
        """g (float[4,N,3] x) => (float[1,N,2] y) { s, h, c = LSTM<hidden_size=5>(x, w, r, b, , h0, c0)
        a = Add(h, c) y = MatMul(a, wo) }""".replace("N", "1"),
        {"w": (1, 20, 3), "r": (1, 20, 5), "b": (1, 40), "h0": (1, 1, 5), "c0": (1, 1, 5), "wo": (5, 2)},
        {},
        False,
    ),
    "groups": (
        """g (float[N,2,4,4] x) => (float[N,2,h,w] y) { c = Conv(x, w1, b1) d = Conv<group=3>(c, wd, bd)
        r = Relu(d) e = ConvTranspose<group=3>(r, we) y = Conv<pads=[1,1,1,1]>(e, w2) }""",
        {
            "w1": (9, 2, 1, 1),
            "b1": (9,),
            "wd": (6, 3, 2, 2),
            "bd": (6,),
            "we": (6, 3, 1, 1),
            "w2": (2, 9, 3, 3),
        },
        {},
        True,
    ),
    "group_norm": (
        """g (float[N,2,4,4] x) => (float[N,2,h,w] y) { c = Conv(x, w1, b1) f = Reshape(c, to)
        n = InstanceNormalization(f, ones, zeros) r = Reshape(n, back) p = Mul(r, s) m = Add(p, o) y = Conv(m, w2) }""",
        {"w1": (6, 2, 1, 1), "b1": (6,), "s": (6, 1, 1), "o": (6, 1, 1), "w2": (2, 6, 1, 1)},
        {
            "to": np.array([0, 3, -1]),
            "back": np.array([0, 6, 4, 4]),
            "ones": np.ones(3, np.float32),
            "zeros": np.zeros(3, np.float32),
        },
        False,
    ),
    "attention": (
        f"g (float[N,5,4] x) => (float[N,5,2] y) {{ {ATTENTION} }}",
        {"wq": (4, 6), "wk": (4, 6), "wv": (4, 6), "bv": (6,), "wo": (6, 2)},
        SIZES,
        True,
    ),
    "fused_attention": (
        f"g (float[N,5,4] x) => (float[N,5,2] y) {{ {FUSED} }}",
        {"wq": (4, 6), "wk": (4, 6), "wv": (4, 6), "b": (18,), "wo": (6, 2)},
        {"one": np.float32(1)},
        False,
    ),
    "rms": (
        """g (float[N,3] x) => (float[N,2] y) { h = Gemm<transB=1>(x, w1, b1) k = Relu(h) p = Mul(k, k)
        v = ReduceSum(p, last) e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) j = Mul(i, s) n = Mul(k, j)
        y = Gemm<transB=1>(n, w2, b2) }""",
        {"w1": (6, 3), "b1": (6,), "s": (6,), "w2": (2, 6), "b2": (2,)},
        {"last": np.array([-1]), "eps": np.float32(0.5)},
        False,
    ),
    "branches": (
        """g (float[N,3] x, bool p) => (float[N,2] y) { h = MatMul(x, w1) k = Add(h, b1) m = If (p) <
        then_branch = a () => (float[N,5] t) { s = MatMul(k, wt) t = Add(s, bt) },
        else_branch = b () => (float[N,5] e) { r = Relu(k) e = Gemm<transB=1>(r, we, be) }> y = MatMul(m, wo) }""",
        {"w1": (3, 4), "b1": (4,), "wt": (4, 5), "bt": (5,), "we": (5, 4), "be": (5,), "wo": (5, 2)},
        {},
        True,
    ),
}


def zeroed(values: NDArray, draw: np.random.Generator) -> NDArray:
    """`values` with slices of each axis at zero; along long axes often at the same place of equal parts."""
    for axis, size in enumerate(values.shape):
        parts = int(draw.choice([part for part in (1, 2, 3, 4, 5, 6) if size % part == 0]))
        dead = np.tile(draw.random(size // parts) < draw.choice([0.0, 0.3, 0.6]), parts)
        values[(slice(None),) * axis + (np.flatnonzero(dead),)] = 0
    return values


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_same_answers(
    name: str, seed: int, build: Callable[..., Any], ints: Callable[..., NDArray], shrink: Callable[..., Any]
) -> None:
    text, shapes, constants, exact = NETS[name]
    draw = np.random.default_rng(seed)
    weights = {key: zeroed(ints(shape, seed=int(draw.integers(1 << 30))), draw) for key, shape in shapes.items()}
    if not exact:
        weights = {key: values / 4 for key, values in weights.items()}
    if name == "rnn":
        weights = {key: np.clip(values, -1, 1) for key, values in weights.items()}
    shrink(build(text, {**weights, **constants}, domains=MICROSOFT), exact)


@pytest.mark.parametrize("name", NETS)
def test_some_shrink(
    name: str, build: Callable[..., Any], ints: Callable[..., NDArray], shrink: Callable[..., Any]
) -> None:
    text, shapes, constants, exact = NETS[name]
    last = {"rnn": "wy", "groups": "w2", "group_norm": "w2", "rms": "w2"}.get(name, "wo")
    axis = 1 if last == "w2" else 0
    weights = {key: ints(shape) for key, shape in shapes.items()}
    weights[last] = ints(shapes[last], {axis: [0, 1, 3, 4, 6, 7] if name == "groups" else [0, 1]})
    if name in ("rnn", "lstm"):
        key = "r2" if name == "rnn" else "r"
        weights[key] = ints(shapes[key], {2: [0, 1]})
    if name == "rms":
        weights["w1"] = ints(shapes["w1"], {0: [0, 1]})
    if not exact:
        weights = {key: values / 4 for key, values in weights.items()}
    if name == "rnn":
        weights = {key: np.clip(values, -1, 1) for key, values in weights.items()}
    before = build(text, {**weights, **constants}, domains=MICROSOFT)
    assert shrink(before, exact).model is not before
