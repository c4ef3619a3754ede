"""Operators: looked up by version, registered by users, named when missing, unfolded when they are functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.errors import ModelError, SelectionError
from onnxprune_passes.model import Model

from onnxprune.torch import Host, Node, known_ops, module_from_model, register_op, registry
from onnxprune.torch.registry import lookup, op

Array = npt.NDArray[Any]
Make = Callable[..., Model]
pytestmark = pytest.mark.usefixtures("registry_kept")


def weights(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_the_newest_version_that_the_opset_has_is_taken() -> None:
    @op("Made", since=9)
    def newer(_: Node, x: torch.Tensor) -> torch.Tensor:
        return x

    @op("Made", since=7)
    def older(_: Node, x: torch.Tensor) -> torch.Tensor:
        return -x

    for opset, expected in ((7, older), (8, older), (9, newer), (30, newer)):
        entry = lookup("", "Made", opset)
        assert entry is not None
        assert entry.run is expected
    assert lookup("", "Made", 6) is None
    assert lookup("own", "Made", 9) is None


def test_all_missing_operators_are_named_at_once(make: Make) -> None:
    body = (
        "a = own.First(x) b = own.Second(a) c = own.First(b) t = Greater(c, zero) y = If(t)"
        " <then_branch = t () => (float[2] u) { u = own.Third(c) }, else_branch = e () => (float[2] w) { w = Relu(c) }>"
    )
    model = make(body, "float[2] x", "float[2] y", {"zero": np.array(0, np.float32)})
    message = (
        r"no implementation of own::First \(opset 1, 2 nodes\), own::Second \(opset 1, 1 node\), "
        r"own::Third \(opset 1, 1 node\): give one for each with onnxprune.torch.register_op"
    )
    with pytest.raises(ModelError, match=message):
        module_from_model(model)
    module_from_model(model, outputs=["x"], check=False)


def scaled(node: Node, x: torch.Tensor, times: Host) -> torch.Tensor:
    return x * node.real("alpha", 1.0) * float(times.item)


def test_a_user_registers_an_operator(make: Make) -> None:
    model = make(
        "a = MatMul(x, w) y = own.Scaled<alpha = 0.5>(a, three)", "float[2, 2] x", "float[2, 2] y",
        {"w": weights(2, 2), "three": np.array(3, np.int64)},
    )  # fmt: skip
    register_op("Scaled", scaled, domain="own", host=(1,))
    module = module_from_model(model, check=False)
    y = module(torch.eye(2))[0]
    torch.testing.assert_close(y, 1.5 * module.get_parameter("t:w"))
    y.sum().backward()
    assert module.get_parameter("t:w").grad is not None
    assert "Scaled" in known_ops("own")


def test_a_user_replaces_an_operator_and_its_shape_arithmetic(make: Make) -> None:
    model = make(
        "s = Shape(x) t = Add(s, one) y = Cast<to = 1>(t)", "float[2, 3] x", "float[2] y", {"one": np.array([1])}
    )
    assert module_from_model(model)(torch.zeros(2, 3))[0].tolist() == [3, 4]
    register_op("Add", lambda _, a, b: a + b * 10)
    assert module_from_model(model, check=False)(torch.zeros(2, 3))[0].tolist() == [12, 13]


def test_a_registered_operator_comes_before_a_function_of_the_model(make: Make) -> None:
    rest = '<domain: "own", opset_import: ["" : 18]> F(p) => (r) { r = Neg(p) }'
    model = make("y = own.F(x)", "float[2] x", "float[2] y", rest=rest)
    x = torch.tensor([1.0, 2.0])
    assert module_from_model(model)(x)[0].tolist() == [-1, -2]
    register_op("F", lambda _, x: x * 100, domain="own")
    assert module_from_model(model, check=False)(x)[0].tolist() == [100, 200]


def test_an_own_operator_comes_before_a_newer_one_of_ours(make: Make) -> None:
    model = make("y = GroupNormalization<num_groups = 1>(x, w, w)", "float[1, 3] x", "float[1, 3] y", {"w": weights(3)})
    register_op("GroupNormalization", lambda _, x, *__: x * 7, since=1)
    register_op("Relu", lambda _, x: x * 9, since=19)
    assert module_from_model(model, check=False)(torch.ones(1, 3))[0].tolist() == [[7, 7, 7]]
    relu = make("y = Relu(x)", "float[2] x", "float[2] y")
    assert module_from_model(relu)(torch.tensor([-1.0, 2.0]))[0].tolist() == [0, 2], "19 is above the model's 18"


@pytest.mark.parametrize(("name", "since"), [("", 1), ("X", 0)])
def test_registrations_that_cannot_be(name: str, since: int) -> None:
    with pytest.raises(SelectionError, match="give the operator's name, and since as an opset from 1 on"):
        register_op(name, scaled, since=since)


def test_functions_call_functions_and_take_attributes(make: Make) -> None:
    rest = (
        '<domain: "own", opset_import: ["" : 18, "own" : 1]> Outer<a>(p, q) => (r, s)'
        " { r = own.Inner<k : float = @a>(p) t = Mul(r, q) s = Identity(t) }"
        ' <domain: "own", opset_import: ["" : 18]> Inner<k>(p) => (r) { r = Elu<alpha : float = @k>(p) }'
    )
    model = make(
        "r, s = own.Outer<a = 0.25>(x, w)",
        "float[2, 3] x",
        "float[2, 3] r, float[2, 3] s",
        {"w": weights(3)},
        rest=rest,
    )
    module = module_from_model(model)
    x = torch.randn(2, 3)
    r, s = module(x)
    torch.testing.assert_close(r, torch.nn.functional.elu(x, 0.25))
    torch.testing.assert_close(s, r * module.get_parameter("t:w"))


def test_a_function_that_calls_itself_is_refused(make: Make) -> None:
    rest = '<domain: "own", opset_import: ["" : 18, "own" : 1]> F(p) => (r) { r = own.F(p) }'
    with pytest.raises(ModelError, match="the function own::F calls itself"):
        module_from_model(make("y = own.F(x)", "float[2] x", "float[2] y", rest=rest), check=False)


def test_functions_of_onnx_are_unfolded(make: Make) -> None:
    """Operators without an implementation of their own run as the functions that ONNX defines."""
    body = "a = Celu<alpha = 0.5>(x) b = Clip(a, low) y = ReduceSumSquare<keepdims = 0>(b, axes)"
    named = {"axes": np.array([1]), "low": np.array(-0.2, np.float32)}
    model = make(body, "float[2, 3] x", "float[2] y", named)
    for name in ("Celu", "Clip", "ReduceSumSquare"):
        del registry._ENTRIES["", name]
    x = torch.randn(2, 3)
    expected = torch.nn.functional.celu(x, 0.5).clamp(min=-0.2).square().sum(1)
    module = module_from_model(model)
    torch.testing.assert_close(module(x)[0], expected)
    assert {"Mul", "ReduceSum"} <= {step.node.op_type for step in module.plan.steps}, "unfolded in place"


def test_a_function_that_depends_on_types_is_unfolded_for_each(make: Make) -> None:
    assert "Attention" not in known_ops()
    model = make("y = Attention(q, q, q)", "float[1, 2, 3, 4] q", "float[1, 2, 3, 4] y", opset=23)
    module = module_from_model(model, check=False)
    for dtype in (torch.float32, torch.float64):
        q = torch.randn(1, 2, 3, 4, dtype=dtype)
        expected = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        torch.testing.assert_close(module(q)[0], expected, rtol=1e-5, atol=1e-5)


def test_an_unsupported_form_names_the_node(make: Make) -> None:
    body = "y = BatchNormalization<spatial = 0>(x, s, s, s, s)"
    model = make(body, "float[2, 3] x", "float[2, 3] y", {"s": np.ones(3, np.float32)}, opset=7)
    with pytest.raises(
        ModelError, match=r"BatchNormalization node 'y' \(opset 7\): spatial = 0 is not supported, only 1"
    ):
        module_from_model(model, check=False)(torch.ones(2, 3))


def test_errors_of_torch_name_the_node(make: Make) -> None:
    module = module_from_model(make("y = Add(x, w)", "float[N, M] x", "float[N, M] y", {"w": weights(3)}), check=False)
    with pytest.raises(RuntimeError) as caught:
        module(torch.ones(2, 4))
    assert caught.value.__notes__ == ["in Add node 'y'"]
