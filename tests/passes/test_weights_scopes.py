from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import body, constant, model_of, node, ramp, stored
from onnx import helper
from onnxprune_passes.weights import find_weights
from weighing import axes_of, only_weight

# bodies


def test_weights_in_bodies_and_captured_by_them_are_found() -> None:
    def branch(name: str) -> onnx.GraphProto:
        return body(
            name,
            [
                node("MatMul", "x", "own", out="m"),
                node("MatMul", "m", "outer", out="n"),
                node("MatMul", "n", "turned", out="r"),
            ],
            [stored("own", ramp(9, 9))],
        )

    nodes = (
        node("Transpose", "far", out="turned"),
        node("If", "x", then_branch=branch("t"), else_branch=branch("e")),
    )
    found = {weight.key: weight for weight in find_weights(model_of(*nodes, outer=ramp(9, 9), far=ramp(9, 9)))}
    assert set(found) == {"y.then_branch/own", "y.else_branch/own", "outer", "far"}
    assert axes_of(found["outer"]) == [(1, 0), (1, 0)]
    assert axes_of(found["far"]) == [(0, 1), (0, 1)]


def test_an_inner_name_hides_an_outer_one() -> None:
    inner = body("b", [node("MatMul", "x", "w", out="r")], [stored("w", ramp(3, 9))])
    deep = body("d", [helper.make_node("If", ["x"], ["s"], then_branch=inner, else_branch=inner)])
    found = find_weights(model_of(node("If", "x", then_branch=deep, else_branch=deep), w=ramp(4, 9)))
    assert {weight.shape for weight in found} == {(3, 9)}
    assert len(found) == 4


# functions


def linear(*, turned: bool = True, name: str = "Linear", overload: str = "") -> onnx.FunctionProto:
    nodes = [node("Transpose", "weight", out="t"), node("MatMul", "a", "t", out="b")]
    if not turned:
        nodes = [node("MatMul", "a", "weight", out="b", name="inner")]
    function = helper.make_function("f", name, ["a", "weight"], ["b"], nodes, [helper.make_opsetid("", 18)])
    function.overload = overload
    return function


@pytest.mark.parametrize(("turned", "axes"), [(True, (0, 1)), (False, (1, 0))])
def test_the_formal_input_of_a_function_is_what_a_call_gives(*, turned: bool, axes: tuple[int, int]) -> None:
    nodes = (node("Linear", "x", "v", out="h", domain="f"), node("Linear", "h", "w", domain="f"))
    found = find_weights(model_of(*nodes, functions=(linear(turned=turned),), v=ramp(7, 7), w=ramp(7, 7)))
    assert [(weight.key, axes_of(weight)) for weight in found] == [("v", [axes]), ("w", [axes])]


def test_functions_call_functions() -> None:
    nodes = [node("Identity", "q", out="k"), node("Linear", "p", "k", out="r", domain="f")]
    outer = helper.make_function("f", "Outer", ["p", "q"], ["r"], nodes, [helper.make_opsetid("", 18)])
    model = model_of(node("Outer", "x", "w", domain="f"), functions=(linear(), outer), w=ramp(7, 6))
    assert axes_of(only_weight(model)) == [(0, 1)]


def test_bodies_in_functions_see_the_formal_inputs() -> None:
    inner = body("b", [node("MatMul", "a", "weight", out="r")])
    nodes = [helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=inner)]
    function = helper.make_function("f", "Either", ["a", "weight"], ["b"], nodes, [helper.make_opsetid("", 18)])
    assert axes_of(
        only_weight(model_of(node("Either", "x", "w", domain="f"), functions=(function,), w=ramp(7, 6)))
    ) == [
        (1, 0),
        (1, 0),
    ]


def test_a_function_s_own_constant_is_one_weight_however_often_it_is_called() -> None:
    nodes = [constant("k", ramp(9, 9)), node("MatMul", "a", "k", out="b")]
    function = helper.make_function("f", "Own", ["a"], ["b"], nodes, [helper.make_opsetid("", 18)])
    for calls in (0, 1, 3):
        called = [node("Own", "x", out=f"y{k}", domain="f") for k in range(calls)]
        weight = only_weight(model_of(*called, node("Relu", "x"), functions=(function,)))
        assert (weight.key, len(weight.uses)) == ("f::Own/k", 1)


def test_overloads_are_functions_of_their_own() -> None:
    plain, other = linear(turned=False), linear(turned=True, overload="other")
    calls = [node("Linear", "x", name, out=f"y{name}", domain="f") for name in ("v", "w")]
    calls[1].overload = "other"
    found = find_weights(model_of(*calls, functions=(plain, other), v=ramp(7, 7), w=ramp(7, 7)))
    assert {weight.key: axes_of(weight) for weight in found} == {"v": [(1, 0)], "w": [(0, 1)]}


def test_an_input_that_a_call_leaves_out_is_no_weight() -> None:
    calls = (node("Linear", "x", domain="f"), node("Linear", "x", "", out="z", domain="f"))
    assert find_weights(model_of(*calls, functions=(linear(),), weight=ramp(7, 7))) == ()


def test_a_function_that_calls_itself_ends() -> None:
    nodes = [node("Loop", "a", "weight", out="b", domain="f"), node("MatMul", "a", "weight", out="c")]
    function = helper.make_function("f", "Loop", ["a", "weight"], ["b"], nodes, [helper.make_opsetid("", 18)])
    assert only_weight(model_of(node("Loop", "x", "w", domain="f"), functions=(function,), w=ramp(7, 7))).key == "w"


def test_zero_points_are_taken_from_the_node_inside_not_from_the_call() -> None:
    nodes = [node("ConvInteger", "a", "k", "", "z", out="b")]
    function = helper.make_function("f", "Q", ["z", "a", "s", "k"], ["b"], nodes, [helper.make_opsetid("", 18)])
    call = node("Q", "zero", "x", "x", "w", domain="f")
    model = model_of(call, functions=(function,), w=ramp(8, 3, 3, dtype=np.uint8), zero=np.array([7], np.uint8))
    weight = only_weight(model)
    assert weight.zero_point is not None
    assert weight.zero_point.tolist() == [[[7]]]
