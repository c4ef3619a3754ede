"""All folding passes over random graphs of exact ops: equal answers, nothing left to do, nothing written into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxprune_passes.fold import FoldBatchNorm, GatherLiveInputs, RemoveNoOps, RemoveUnused
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State, chain

ALL = chain(RemoveUnused(), RemoveNoOps(), FoldBatchNorm(), GatherLiveInputs("dense"), RemoveUnused())
NODES = (
    "Identity({0})",
    "Dropout({0})",
    "Cast<to=1>({0})",
    "Reshape({0}, target)",
    "Flatten({0})",
    "Transpose<perm=[0,1]>({0})",
    "Slice({0}, zeros, ends)",
    "Pad({0}, pads)",
    "Concat<axis=0>({0})",
    "Mul({0}, one)",
    "Add(zero, {0})",
    "Sub({0}, zero)",
    "Relu({0})",
    "Neg({0})",
    "Add({0}, {1})",
    "Add({0}, o)",
    "Gemm<transB=1>({0}, w{2})",
    "Gemm<transB=1>({0}, w{2}, o)",
    "MatMul({0}, w{2})",
    "BatchNormalization<epsilon=0.0>({0}, s, o, m, v)",
    "BatchNormalization<epsilon=0.0>({0}, s, o, m, v)",
    "If(q) <then_branch = t{3} () => (float[N,4] a{3}) {{ a{3} = Identity({0}) }}, "
    "else_branch = e{3} () => (float[N,4] b{3}) {{ c{3} = Mul({1}, one) b{3} = Neg(c{3}) }}>",
)
"""{0}, {1}: values made before; {2}: a weight; {3}: the place of the node."""
CONSTANTS: dict[str, Any] = {
    "target": np.array([-1, 4]),
    "zeros": np.array([0, 0]),
    "ends": np.array([2**62, 4]),
    "pads": np.array([0, 0, 0, 0]),
    "one": np.ones(1, np.float32),
    "zero": np.zeros(1, np.float32),
    "s": np.array([1, -1, 2, 0], np.float32),
    "o": np.array([1, 0, -2, 1], np.float32),
    "m": np.array([0, 1, -1, 2], np.float32),
    "v": np.ones(4, np.float32),
}
Choice = tuple[str, int, int, int]
CHOICES = st.lists(st.tuples(st.sampled_from(NODES), *[st.integers(0, 20)] * 3), min_size=1, max_size=12)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=CHOICES, outputs=st.lists(st.integers(0, 20), min_size=1, max_size=3, unique=True))
def test_the_answers_stay(
    choices: list[Choice],
    outputs: list[int],
    build: Callable[..., Model],
    ints: Callable[..., Any],
    same_answers: Callable[..., None],
) -> None:
    made, text = ["x"], ""
    for place, (node, first, second, weight) in enumerate(choices):
        last = made[-1 - first % min(3, len(made))]
        text += f"n{place} = {node.format(last, made[second % len(made)], weight % 5, place)} "
        made.append(f"n{place}")
    given_out = sorted({made[1 + number % (len(made) - 1)] for number in outputs})
    interface = ", ".join(f"float[N,4] {name}" for name in given_out)
    dead: list[dict[int, list[int]]] = [{}, {1: [0]}, {1: [1, 2]}, {0: [3]}, {0: [0, 1], 1: [3]}]
    weights = {f"w{number}": ints((4, 4), slices, number) for number, slices in enumerate(dead)}
    model = build(f"g (float[N,4] x, bool q) => ({interface}) {{ {text} }}", {**weights, **CONSTANTS})
    bytes_before = model.skeleton.SerializeToString(deterministic=True)
    after = ALL(State(model))
    again = ALL(after)
    assert again.model.skeleton == after.model.skeleton
    assert model.skeleton.SerializeToString(deterministic=True) == bytes_before
    same_answers(model, after.model)
