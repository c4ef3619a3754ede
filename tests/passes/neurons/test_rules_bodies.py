"""Bodies of If, Loop and Scan: neurons inside go as in the main graph, branches of If are united, steps pin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import from_proto, to_proto

ROWS = "g (float[N,3] x, bool p) => (float[N,2] y)"
B1, B2 = [1.0, 2.0, 3.0, 4.0], [0.0, 5.0]
DENSE = {"w1": ((4, 3), {0: [1]}), "b1": B1, "w2": ((2, 4), {1: [3]}), "b2": B2}
INNER = "<float[3,4] w = {1,0,2,3, 2,0,1,1, -1,0,3,2}, float[4] b = {1,2,3,4}, float[4,2] v = {1,2, 2,1, 0,0, 1,3}>"
PLAIN = "else_branch = e () => (float[N,2] e) { e = MatMul(x, other) }"
OTHER = {"other": ((3, 2),)}


def branches(then: str, otherwise: str, after: str = "y = Gemm<transB=1>(m, w2, b2)", before: str = "") -> str:
    return f"""{ROWS} {{ {before} [chooser] m = If (p) <then_branch = a () => (float[N,4] t) {then},
        else_branch = b () => (float[N,4] e) {otherwise}> {after} }}"""


def looped(body: str, state: str = "float[N,2] s", before: str = "") -> str:
    return f"""g (float[N,3] x, float[N,2] s0) => (float[N,2] y) {{ {before} [steps] y = Loop (three, yes, s0) <
        body = l (int64 i, bool go, {state}) => (bool again, float[N,2] after) {body}> }}"""


STEPS = {"three": np.int64(3), "yes": np.bool_(True)}
Case = tuple[str, dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    "if_inside_a_branch": (
        f"""{ROWS} {{ y = If (p) <then_branch = a () => (float[N,2] t) {INNER} {{ h = MatMul(x, w) k = Add(h, b)
        r = Relu(k) t = MatMul(r, v) }}, {PLAIN}> }}""",
        OTHER,
        {},
    ),
    "if_inside_both_under_one_name": (
        f"""{ROWS} {{ y = If (p) <then_branch = a () => (float[N,2] t) {INNER} {{ h = MatMul(x, w) t = MatMul(h, v) }},
        else_branch = b () => (float[N,2] t) <float[3,4] w = {{0,1,2,3, 0,2,1,1, 0,1,3,2}},
        float[4,2] v = {{1,2, 2,1, 1,1, 1,3}}> {{ h = MatMul(x, w) t = MatMul(h, v) }}> }}""",
        {},
        {},
    ),
    "if_sizes_inside": (
        f"""{ROWS} {{ y = If (p) <then_branch = a () => (float[N,2] t) {INNER} {{ h = MatMul(x, w)
        c = Constant<value = int64[3] {{0, 1, 4}}>() r = Reshape(h, c) q = Constant<value = int64[2] {{-1, 4}}>()
        f = Reshape(r, q) t = MatMul(f, v) }}, {PLAIN}> }}""",
        OTHER,
        {},
    ),
    "if_nested": (
        f"""g (float[N,3] x, bool p, bool q) => (float[N,2] y) {{ y = If (p) <
        then_branch = a () => (float[N,2] t) {INNER} {{ h = MatMul(x, w) k = If (q) <
        then_branch = c () => (float[N,4] d) {{ d = Add(h, b) }}, else_branch = f () => (float[N,4] z) {{ z = Neg(h) }}>
        t = MatMul(k, v) }}, {PLAIN}> }}""",
        OTHER,
        {},
    ),
    "if_of_captured_neurons": (
        f"""{ROWS} {{ h = Gemm<transB=1>(x, w1, b1) y = If (p) <
        then_branch = a () => (float[N,2] t) {{ t = Gemm<transB=1>(h, w2, b2) }},
        else_branch = b () => (float[N,2] e) {{ r = Relu(h) e = Gemm<transB=1>(r, w3) }}> }}""",
        {**DENSE, "w3": ((2, 4), {1: [0, 3]})},
        {},
    ),
    "if_gives_out_neurons": (
        branches("{ t = Gemm<transB=1>(x, w1, b1) }", "{ e = MatMul(x, w3) }"),
        {**DENSE, "w3": ((3, 4),)},
        {},
    ),
    "if_gives_out_the_same_constant": (
        branches("{ t = Gemm<transB=1>(x, w1, b1) }", "{ e = Gemm<transB=1>(x, w3, b3) }"),
        {**DENSE, "w3": ((4, 3), {0: [1, 2]}), "b3": [5.0, 2.0, 7.0, 8.0]},
        {},
    ),
    "if_gives_out_a_constant": (
        branches("{ t = Gemm<transB=1>(x, w1, b1) }", "{ e = Identity(table) }").replace("N", "3"),
        {**DENSE, "table": ((3, 4),)},
        {},
    ),
    "if_gives_out_an_input": (
        branches("{ t = Gemm<transB=1>(x, w1, b1) }", "{ e = Pad(x, one) }"),
        {**DENSE, "one": [0, 0, 0, 1]},
        {},
    ),
    "if_of_different_ranks": (
        f"""{ROWS} {{ h = Gemm<transB=1>(x, w1, b1) [chooser] m = If (p) <then_branch = a () => (t) {{ t = Relu(h) }},
        else_branch = b () => (e) {{ e = Unsqueeze(h, one) }}> r = Reshape(m, flat) y = Gemm<transB=1>(r, w2, b2) }}""",
        {**DENSE, "one": [0], "flat": [-1, 4]},
        {},
    ),
    "if_of_different_sizes": (
        branches(
            "{ t = Gemm<transB=1>(x, w1, b1) }",
            "{ e = Gemm<transB=1>(x, w3) }",
            after="s = Slice(m, zero, four, one) y = Gemm<transB=1>(s, w2, b2)",
        ).replace("[N,4]", "[N,M]"),
        {**DENSE, "w3": ((5, 3),), "zero": [0], "four": [4], "one": [1]},
        {},
    ),
    "loop_inside": (
        looped(
            f"""{INNER} {{ h = MatMul(x, w) k = Add(h, b) r = Relu(k) t = MatMul(r, v) after = Add(s, t)
            again = Identity(go) }}"""
        ),
        STEPS,
        {},
    ),
    "loop_of_captured_neurons": (
        looped(
            "{ t = Gemm<transB=1>(h, w2, b2) after = Add(s, t) again = Identity(go) }",
            before="h = Gemm<transB=1>(x, w1, b1)",
        ),
        {**STEPS, **DENSE},
        {},
    ),
    "loop_state": (
        """g (float[N,3] x) => (float[N,2] y) { h = Gemm<transB=1>(x, w1, b1) [steps] m = Loop (three, yes, h) <
        body = l (int64 i, bool go, float[N,4] s) => (bool again, float[N,4] after) { after = Mul(s, two)
        again = Identity(go) }> y = Gemm<transB=1>(m, w2, b2) }""",
        {**STEPS, **DENSE, "two": np.float32(2)},
        {},
    ),
    "scan_inside": (
        f"""g (float[5,N,3] x) => (float[5,N,2] y) {{ y = Scan<num_scan_inputs=1, body = l (float[N,3] row) =>
        (float[N,2] t) {INNER} {{ h = MatMul(row, w) t = MatMul(h, v) }}>(x) }}""",
        {},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])


def test_masks_of_bodies_are_cut(build: Callable[..., Any]) -> None:
    text = CASES["if_inside_a_branch"][0]
    before = State(build(text, {"other": np.ones((3, 2), np.float32)}))
    pruned = PruneChannels(0.5, scope="layer", round_to=1)(before)
    assert set(pruned.masks) == {"y.then_branch/w", "y.then_branch/v"}
    after = RemoveDeadNeurons()(pruned)
    assert after.model.initializers.source("y.then_branch/w").shape == (3, 1)
    assert after.model.initializers.source("y.then_branch/b").shape == (1,)
    assert {key: after.masks.bits(key).size for key in after.masks} == {"y.then_branch/w": 1, "y.then_branch/v": 1}
    assert after.masks["y.then_branch/w"].shape == (3, 1)


def test_a_body_of_another_domain_pins_what_it_reads(build: Callable[..., Any], ints: Callable[..., Any]) -> None:
    text = """g (float[N,3] x) => (float[N,2] y) { h = MatMul(x, w1) z = my.own.Twice<body = b () => (float[N,4] t) {
        t = Relu(h) }>() y = MatMul(h, w2) }"""
    weights = {"w1": ints((3, 4), {1: [1]}), "w2": ints((4, 2), {0: [2]})}
    before = State(build(text, weights, domains=', "my.own": 1'))
    after = RemoveDeadNeurons()(before)
    assert after.model is before.model
    assert "blocked by Twice node 'z': neurons are not followed from step to step of its body" in str(after.log)


def test_a_body_survives_the_way_through_graphsurgeon(build: Callable[..., Any], shrink: Callable[..., Any]) -> None:
    before = to_proto(build(CASES["if_inside_a_branch"][0], {"other": np.ones((3, 2), np.float32)}))
    then = next(one.g for one in before.graph.node[0].attribute if one.name == "then_branch")
    then.doc_string = "the branch"
    then.node[0].doc_string = "the product"
    after = to_proto(shrink(from_proto(before)).model)
    then = next(one.g for one in after.graph.node[0].attribute if one.name == "then_branch")
    assert (then.doc_string, then.node[0].doc_string) == ("the branch", "the product")
    assert [one.name for one in then.initializer][:3] == ["w", "b", "v"]
