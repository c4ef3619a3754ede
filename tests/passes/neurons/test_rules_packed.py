"""Attention with one weight for queries, keys and values, batch and length both of unknown size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.channel_groups import find_channels
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State

Case = tuple[str, dict[str, list[int]]]
SIZES = "s = Shape(x) n0 = Gather(s, at0) n = Unsqueeze(n0, at) t0 = Gather(s, at1) t = Unsqueeze(t0, at)"
HEADS = f"{SIZES} split = Concat<axis=0>(n, t, three, four) join = Concat<axis=0>(n, t, wide)"
SCORES = """q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,3,1]>(k1) v = Transpose<perm=[0,2,1,3]>(v1)
    p0 = MatMul(q, k) p = Mul(p0, half) o = MatMul(p, v) o1 = Transpose<perm=[0,2,1,3]>(o) j = Reshape(o1, join)
    z = MatMul(j, wo) r = Relu(z) y = MatMul(r, f2)"""
APART = "q1 = Reshape(q0, split) k1 = Reshape(k0, split) v1 = Reshape(v0, split)"
BASE: dict[str, list[int]] = {"at": [0], "three": [3], "four": [4], "wide": [12]}
CASES: dict[str, Case] = {
    "split": (f"q0, k0, v0 = Split<axis=2>(c, thirds) {HEADS} {APART} {SCORES}", {**BASE, "thirds": [12, 12, 12]}),
    "chunk, with bounds computed from the width": (
        f"""d = Shape(c) w = Gather(d, last) u = Div(w, three) e = Mul(u, two) f = Mul(u, three)
        q0 = Slice(c, at, u, last) k0 = Slice(c, u, e, last) v0 = Slice(c, e, f, last) {HEADS} {APART} {SCORES}""",
        {**BASE, "last": [-1], "two": [2]},
    ),
    "reshape and pick": (
        f"""{SIZES} five = Concat<axis=0>(n, t, three, three, four) join = Concat<axis=0>(n, t, wide)
        g = Reshape(c, five) h = Transpose<perm=[2,0,1,3,4]>(g)
        q1 = Gather(h, at0) k1 = Gather(h, at1) v1 = Gather(h, at2) {SCORES}""",
        BASE,
    ),
}
TOKENS = "g (float[N,T,5] x) => (float[N,T,2] y)"
DEAD = [4, 5, 6, 7]
"""Head 1 of three heads of four."""


GREATER = HEADS.replace("n = Unsqueeze(n0, at)", "n1 = Unsqueeze(n0, at) n = Max(n1, at)").replace(
    "t = Unsqueeze(t0, at)", "t1 = Unsqueeze(t0, at) t = Max(t1, at)"
)


@pytest.fixture
def packed(build: Callable[..., Model], ints: Callable[..., Any]) -> Callable[..., Model]:
    """`packed(name, dead=False)`: the net, its second head unread where `dead`; whole numbers, no softmax."""

    def make(name: str, *, dead: bool = False) -> Model:
        text, sizes = (
            (CASES["split"][0].replace(HEADS, GREATER), CASES["split"][1]) if name == "greater" else CASES[name]
        )
        weights = {
            "wi": ints((5, 36)),
            "bi": ints((36,), seed=1),
            "wo": ints((12, 10), {0: DEAD} if dead else {}, seed=2),
            "f2": ints((10, 2), seed=3),
            "half": np.array(0.5, np.float32),
            **{f"at{index}": np.array(index, np.int64) for index in range(3)},
            **{key: np.array(numbers, np.int64) for key, numbers in sizes.items()},
        }
        return build(f"{TOKENS} {{ c0 = MatMul(x, wi) c = Add(c0, bi) {text} }}", weights)

    return make


@pytest.mark.parametrize("name", CASES)
def test_a_dead_head_goes(name: str, packed: Callable[..., Model], shrink: Callable[..., State]) -> None:
    """Its queries and keys go with it; the answers are equal at any batch and length (1 and 5 of both)."""
    after = shrink(packed(name, dead=True)).model
    assert [after.initializers[key].shape for key in ("wi", "bi", "wo")] == [(5, 24), (24,), (8, 10)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("length", [1, 2, 7])
def test_heads_are_channels_at_any_batch_and_length(
    name: str, length: int, packed: Callable[..., Model], shrink: Callable[..., State], answers: Callable[..., Any]
) -> None:
    model = packed(name)
    assert [(group.size, group.kinds, group.pinned_by) for group in find_channels(model)][:2] == [
        (3, ("head",), None),
        (10, ("fc",), None),
    ]
    masked = PruneChannels(0.4, scope="layer", round_to=1)(State(model)).model
    after = shrink(masked).model
    assert [after.initializers[key].shape for key in ("wi", "wo", "f2")] == [(5, 24), (8, 6), (6, 2)]
    x = np.random.default_rng(0).integers(-3, 4, (3, length, 5)).astype(np.float32)
    for optimised in (False, True):
        one, other = (answers(each, {"x": x}, optimised)[0] for each in (masked, after))
        assert np.array_equal(one, other)


def test_sizes_that_are_computed_in_ways_that_are_not_followed_pin(
    packed: Callable[..., Model], shrink: Callable[..., State]
) -> None:
    """The greater of the batch and 0 has no name: a target with two unknown sizes cannot be rewritten."""
    model = packed("greater", dead=True)
    assert shrink(model).model is model
    why = "its target shape is computed, and names sizes in a way that cannot be rewritten"
    assert str(find_channels(model)[0].pinned_by).startswith("blocked by Reshape node 'q1'")
    assert why in str(find_channels(model)[0].pinned_by)
