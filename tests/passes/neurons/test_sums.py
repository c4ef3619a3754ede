"""Channels that sums over neurons read: chosen only where they are constants once their weights are zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.pipeline import Skip, State

RMS = """p = Mul({0}, {0}) v = ReduceMean<axes=[-1]>(p) e = Add(v, eps) r = Sqrt(e) n = Div({0}, r)"""
CENTRED = """mean = ReduceMean<axes=[-1]>({0}) d = Sub({0}, mean) p = Mul(d, d) v = ReduceMean<axes=[-1]>(p)
e = Add(v, eps) r = Sqrt(e) n = Div(d, r)"""
NETS = {
    "residual": (
        f"""g (float[N,5,3] x) => (float[N,5,2] y) {{ a = MatMul(x, w1) h = Add(a, b1) {RMS.format("h")}
        k = Mul(n, s) f = MatMul(k, w2) q = Sigmoid(f) u = MatMul(q, w3) z = Add(h, u) y = MatMul(z, w4) }}""",
        {"w1": (3, 8), "b1": (8,), "s": (8,), "w2": (8, 6), "w3": (6, 8), "w4": (8, 2)},
    ),
    "scale on the deviation": (
        f"""g (float[N,5,3] x) => (float[N,5,2] y) {{ a = MatMul(x, w1) h = Add(a, b1) {RMS.format("h")}
        i = Reciprocal(r) k = Mul(i, s) z = Mul(h, k) y = MatMul(z, w4) }}""",
        {"w1": (3, 8), "b1": (8,), "s": (8,), "w4": (8, 2)},
    ),
}


def weights(shapes: dict[str, tuple[int, ...]], ints: Callable[..., Any]) -> dict[str, Any]:
    return {**{name: ints(shape, seed=len(name)) / 4 for name, shape in shapes.items()}, "eps": np.float32(0.5)}


@pytest.mark.parametrize("name", NETS)
def test_every_group_loses_half(
    name: str, build: Callable[..., Any], ints: Callable[..., Any], same_answers: Callable[..., None]
) -> None:
    text, shapes = NETS[name]
    masked = PruneChannels(0.5, scope="layer", round_to=1)(State(build(text, weights(shapes, ints))))
    assert [one for one in masked.log if isinstance(one, Skip) and one.name != "w4"] == []
    after = RemoveDeadNeurons()(masked)
    found = {key: after.model.initializers.source(key).shape for key in shapes}
    assert found == {key: tuple(size // 2 if size > 3 else size for size in shape) for key, shape in shapes.items()}
    same_answers(masked.model, after.model, exact=False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            f"""g (float[N,3] x) => (float[N,2] y) {{ h = MatMul(x, w1) {CENTRED.format("h")} y = MatMul(n, w4) }}""",
            "ReduceMean node 'v'",
        ),
        (
            """g (float[N,3] x) => (float[N,2] y) { h = MatMul(x, w1) t = Softmax<axis=0>(h) v = ReduceSum(t, last)
            z = Concat<axis=1>(v, v, v, v, v, v, v, v) y = MatMul(z, w4) }""",
            "ReduceSum node 'v'",
        ),
    ],
    ids=["centred", "softmax"],
)
def test_what_varies_stays(text: str, why: str, build: Callable[..., Any], ints: Callable[..., Any]) -> None:
    tensors = {**weights({"w1": (3, 8), "w4": (8, 2)}, ints), "last": np.array([1])}
    before = State(build(text, tensors))
    after = PruneChannels(0.5, round_to=1)(before)
    assert after.model is before.model
    [skip] = [one for one in after.log if isinstance(one, Skip) and one.name == "w1"]
    assert f"8 channels stay: blocked by {why}: it sums over neurons" in skip.reason


def test_units_with_a_bias_of_their_own_stay(build: Callable[..., Any], ints: Callable[..., Any]) -> None:
    """The bias of a recurrent layer is no weight and is not masked: its units are no constants then."""
    text = """g (float[5,1,3] x) => (float[5,1,2] y) { s = RNN<hidden_size=4>(x, w, r, b) q = Squeeze(s, one)
    m = ReduceMean<axes=[2]>(q) d = Mul(q, m) y = MatMul(d, wo) }"""
    shapes = {"w": (1, 4, 3), "r": (1, 4, 4), "b": (1, 8), "wo": (4, 2)}
    after = PruneChannels(0.5, round_to=1)(State(build(text, {**weights(shapes, ints), "one": np.array([1])})))
    assert not after.masks
    assert any("ReduceMean node 'm'" in one.reason for one in after.log if isinstance(one, Skip))


def test_a_sum_of_everything_keeps_its_rank(
    build: Callable[..., Any], ints: Callable[..., Any], shrink: Callable[..., Any]
) -> None:
    text = (
        """g (float[2,3] x) => (float s) { h = Gemm<transB=1>(x, w1, b1) r = Relu(h) s = ReduceSum<keepdims=0>(r) }"""
    )
    before = build(text, {"w1": ints((4, 3), {0: [1]}), "b1": np.array([1, 2, 3, 4], np.float32)})
    assert shrink(before).model.initializers["s.bias"].shape == ()
