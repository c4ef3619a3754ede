"""Sizes that the graph computes with have the value that they have in the file, and what they say is rewritten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip, State

ONE_BY_ONE = {
    "w1": ((8, 2, 1, 1), {0: [1, 6]}),
    "b1": np.array([1, 0, 2, -1, 3, 1, 0, 2], np.float32),
    "one": [1],
    "two": [2],
    "zero": [0],
}
HALF = "s{0} = Shape({1}) n{0} = Gather(s{0}, one) o{0} = Add(n{0}, one) h{0} = Div(o{0}, two)"
HALVES = """e{0} = Mul(h{0}, two) l{0} = Slice({1}, zero, h{0}, one) r{0} = Slice({1}, h{0}, e{0}, one)"""
CHUNKED = f"{HALF} {HALVES}"
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sizes_chunk": (
        f"""g (float[N,2,3,3] x) => (float[N,2,3,3] y) {{ c = Conv(x, w1, b1) {CHUNKED.format("", "c")}
        a = Conv(l, w2) b = Conv(r, w3) y = Add(a, b) }}""",
        {**ONE_BY_ONE, "w2": ((2, 4, 1, 1), {1: [3]}), "w3": ((2, 4, 1, 1), {1: [0]})},
        {},
    ),
    "sizes_chunk_and_shuffle_twice": (
        f"""g (float[1,2,3,3] x) => (float[1,2,3,3] y) {{ c = Conv(x, w1, b1) {CHUNKED.format("", "c")}
        a = Relu(r) j = Concat<axis=1>(l, a) u = Reshape(j, apart) t = Transpose<perm=[0,2,1,3,4]>(u)
        v = Reshape(t, joined) {CHUNKED.format("2", "v")}
        b = Neg(r2) k = Concat<axis=1>(l2, b) y = Conv(k, w2) }}""",
        {**ONE_BY_ONE, "apart": [1, 2, 4, 3, 3], "joined": [1, -1, 3, 3], "w2": ((2, 8, 1, 1), {1: [1, 3]})},
        {},
    ),
    "sizes_shuffle_of_a_dynamic_batch": (
        f"""g (float[N,2,3,3] x) => (float[N,2,3,3] y) {{ c = Conv(x, w1, b1) {CHUNKED.format("", "c")}
        a = Relu(r) j = Concat<axis=1>(l, a) z = Shape(j) b = Gather(z, zero) k = Gather(z, one) p = Gather(z, places)
        q = Div(k, two) g = Concat<axis=0>(b, two, q, p) u = Reshape(j, g) t = Transpose<perm=[0,2,1,3,4]>(u)
        f = Concat<axis=0>(b, k, p) v = Reshape(t, f) {CHUNKED.format("2", "v")}
        m = Neg(r2) d = Concat<axis=1>(l2, m) y = Conv(d, w2) }}""",
        {**ONE_BY_ONE, "places": [2, 3], "w2": ((2, 8, 1, 1), {1: [1, 3]})},
        {},
    ),
    "sizes_scale": (
        """g (float[N,3] x) => (float[N,2] y) { c = MatMul(x, w1) s = Shape(c) n = Slice(s, one, two)
        f = Cast<to=1>(n) k = Sqrt(f) a = Mul(c, k) y = MatMul(a, w2) }""",
        {"w1": ((3, 16), {1: [0, 5, 9]}), "w2": ((16, 2), {0: [2, 15]}), "one": [1], "two": [2]},
        {},
    ),
    "sizes_are_an_output": (
        """g (float[N,3] x) => (float[N,2] y, int64[1] k) { c = MatMul(x, w1) s = Shape(c) n = Slice(s, one, two)
        k = Mul(n, two) y = MatMul(c, w2) }""",
        {"w1": ((3, 6), {1: [0]}), "w2": ((6, 2), {0: [2]}), "one": [1], "two": [2]},
        {},
    ),
}


def test_a_size_whose_stated_shape_is_wrong_keeps_the_axis(build: Callable[..., Model]) -> None:
    text = """g (float[4,3] x) => (float[4,2] y) <int64[3] k> { c = MatMul(x, w1) s = Shape(c) k = Add(s, one)
        n = Slice(k, one, two) f = Cast<to=1>(n) a = Mul(c, f) y = MatMul(a, w2) }"""
    w1, w2 = np.ones((3, 6), np.float32), np.ones((6, 2), np.float32)
    w1[:, 2] = 0
    model = build(text, {"w1": w1, "w2": w2, "one": np.array([1]), "two": np.array([2])})
    after = RemoveDeadNeurons()(State(model))
    assert after.model is model
    skips = [entry.reason for entry in after.log if isinstance(entry, Skip)]
    assert skips == ["1 dead neuron stays: blocked by Add node 'k': it computes with the size of the axis"]


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])
