"""Graphs that libraries get wrong: shared, moved, oddly named and nested weights.

Each agrees with onnxruntime, its weights get gradients, and a change of one initializer is a change of its parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.model import Model

from onnxprune.torch import key_from_name, module_from_model, name_from_key, run_module

Array = npt.NDArray[Any]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """A graph: nodes, inputs, outputs, shapes of float32 weights (all trained), further arrays, opset, functions."""

    body: str
    inputs: str
    outputs: str
    weights: Shapes
    others: Mapping[str, Array] = field(default_factory=dict)
    opset: int = 18
    rest: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


CASES = {
    "gemm with everything": Case(
        "y = Gemm<alpha = 0.5, beta = 2.0, transA = 1, transB = 1>(x, w, c)", "float[3, 2] x", "float[2, 4] y",
        {"w": (4, 3), "c": (2, 4)},
    ),
    "gemm with a weight on the left": Case("y = Gemm(w, x)", "float[3, 2] x", "float[4, 2] y", {"w": (4, 3)}),
    "gemm with a scalar bias": Case(
        "y = Gemm(x, w, c)", "float[2, 3] x", "float[2, 4] y", {"w": (3, 4), "c": (1,)}
    ),
    "one weight for two nodes": Case(
        "a = MatMul(x, w) b = Gemm<transB = 1>(a, w) y = MatMul(b, w)", "float[2, 3] x", "float[2, 3] y", {"w": (3, 3)}
    ),
    "tied embedding": Case(
        "e = Gather(w, i) t = Transpose<perm = [1, 0]>(w) y = MatMul(e, t)", "int64[2, 3] i", "float[2, 3, 5] y",
        {"w": (5, 4)},
    ),
    "behind Identity, Reshape, Transpose, Squeeze and Cast": Case(
        "a = Identity(w) b = Reshape(a, s) c = Transpose<perm = [0, 2, 1]>(b) d = Squeeze(c, z) e = Cast<to = 1>(d)"
        " y = MatMul(x, e)", "float[2, 3] x", "float[2, 4] y", {"w": (12,)}, {"s": ints(1, 4, 3), "z": ints(0)},
    ),
    "times a mask": Case(
        "m = Mul(w, mask) y = MatMul(x, m)", "float[2, 3] x", "float[2, 4] y", {"w": (3, 4)},
        {"mask": np.tile(floats(1, 0), (3, 2))},
    ),
    "weight normalisation": Case(
        "q = Mul(v, v) n = ReduceSum(q, one) r = Sqrt(n) u = Div(v, r) w = Mul(u, g) y = MatMul(x, w)",
        "float[2, 3] x", "float[2, 4] y", {"v": (3, 4), "g": (3, 1)}, {"one": ints(1)},
    ),
    "names that escape alike": Case(
        "a = MatMul(x, u) b = MatMul(a, v) c = MatMul(b, w) d = MatMul(c, k) y = MatMul(d, l)", "float[2, 3] x",
        "float[2, 3] y", {"a.w": (3, 3), "a_w": (3, 3), "a%2Ew": (3, 3), "/a:0": (3, 3), " é": (3, 3)},
        rename={"u": "a.w", "v": "a_w", "w": "a%2Ew", "k": "/a:0", "l": " é"},
    ),
    "names of module attributes": Case(
        "a = MatMul(x, training) b = MatMul(a, type) y = MatMul(b, half)", "float[2, 3] x", "float[2, 3] y",
        {"training": (3, 3), "type": (3, 3), "half": (3, 3)},
    ),
    "batch norm of opset 7": Case(
        "y = BatchNormalization<epsilon = 0.01>(x, s, b, m, v)", "float[2, 3, 4] x", "float[2, 3, 4] y",
        {"s": (3,), "b": (3,)}, {"m": floats(0.1, -1, 2), "v": floats(1, 2, 0.5)}, 7,
    ),
    "depthwise with uneven padding": Case(
        "y = Conv<group = 3, pads = [0, 1, 2, 1], strides = [2, 1], dilations = [1, 2]>(x, w, b)",
        "float[2, 3, 9, 8] x", "float[2, 6, P, Q] y", {"w": (6, 1, 3, 3), "b": (6,)},
    ),
    "conv over one axis, padded at one end": Case(
        'y = Conv<auto_pad = "SAME_LOWER", strides = [2]>(x, w)', "float[2, 3, 9] x", "float[2, 4, P] y",
        {"w": (4, 3, 4)},
    ),
    "conv over three axes": Case(
        "y = Conv<pads = [1, 1, 1, 1, 1, 1]>(x, w)", "float[1, 2, 4, 5, 3] x", "float[1, 3, 4, 5, 3] y",
        {"w": (3, 2, 3, 3, 3)},
    ),
    "transposed conv with an output shape": Case(
        "y = ConvTranspose<strides = [2, 3], output_shape = [9, 14], group = 2>(x, w, b)", "float[2, 4, 4, 5] x",
        "float[2, 6, 9, 14] y", {"w": (4, 3, 3, 2), "b": (6,)},
    ),
    "transposed conv, uneven, more output": Case(
        "y = ConvTranspose<strides = [3, 3], pads = [0, 1, 2, 0], output_padding = [2, 1]>(x, w, b)",
        "float[1, 2, 4, 5] x", "float[1, 3, P, Q] y", {"w": (2, 3, 3, 4), "b": (3,)},
    ),
    "einsum": Case("y = Einsum<equation = \"bi, io -> bo\">(x, w)", "float[2, 3] x", "float[2, 4] y", {"w": (3, 4)}),
    "prelu": Case("y = PRelu(x, w)", "float[2, 3, 4] x", "float[2, 3, 4] y", {"w": (3, 1)}),
    "newest layer norm": Case(
        "y = LayerNormalization<axis = -2>(x, w, b)", "float[2, 3, 4] x", "float[2, 3, 4] y",
        {"w": (3, 4), "b": (3, 4)}, opset=21,
    ),
    "group norm": Case(
        "y = GroupNormalization<num_groups = 2>(x, w, b)", "float[2, 4, 3] x", "float[2, 4, 3] y",
        {"w": (4,), "b": (4,)}, opset=21,
    ),
    "instance norm": Case(
        "y = InstanceNormalization(x, w, b)", "float[2, 4, 3] x", "float[2, 4, 3] y", {"w": (4,), "b": (4,)}
    ),
    "bias and scale by Add and Mul": Case(
        "a = MatMul(x, w) b = Add(a, c) y = Mul(b, d)", "float[2, 3] x", "float[2, 4] y",
        {"w": (3, 4), "c": (4,), "d": (1, 4)},
    ),
    "in both branches of an If": Case(
        "s = ReduceSum<keepdims = 0>(x) c = Greater(s, zero)"
        " y = If(c) <then_branch = t () => (float[2, 4] a) { a = MatMul(x, w) },"
        " else_branch = e () => (float[2, 4] b) { k = Neg(x) b = MatMul(k, w) }>",
        "float[2, 3] x", "float[2, 4] y", {"w": (3, 4)}, {"zero": np.array(0, np.float32)},
    ),
    "in a Loop": Case(
        "y = Loop(n, , x) <body = l (int64 i, bool c, float[2, 3] a) => (bool d, float[2, 3] b)"
        " { d = Identity(c) e = MatMul(a, w) b = Tanh(e) }>",
        "float[2, 3] x", "float[2, 3] y", {"w": (3, 3)}, {"n": np.array(3)},
    ),
    "in a Scan": Case(
        "h, y = Scan<num_scan_inputs = 1, body = s (float[2, 3] a, float[2, 3] t) => (float[2, 3] b, float[2, 3] o)"
        " { e = MatMul(a, w) f = Add(e, t) b = Tanh(f) o = Identity(b) }>(x, z)",
        "float[2, 3] x, float[4, 2, 3] z", "float[2, 3] h, float[4, 2, 3] y", {"w": (3, 3)},
    ),
    "through a function, twice": Case(
        "a = own.Twice<f = 0.25>(x, w) y = own.Twice<f = 0.5>(a, v)", "float[2, 3] x", "float[2, 3] y",
        {"w": (3, 3), "v": (3, 3)},
        rest='<domain: "own", opset_import: ["" : 18]> Twice<f>(p, q) => (r)'
        " { s = MatMul(p, q) t = LeakyRelu<alpha : float = @f>(s) r = MatMul(t, q) }",
    ),
    "fused MatMul": Case(
        "y = com.microsoft.FusedMatMul<alpha = 0.5, transB = 1>(x, w)", "float[2, 3] x", "float[2, 4] y", {"w": (4, 3)}
    ),
}  # fmt: skip


def built(case: Case, make: Callable[..., Model], rng: np.random.Generator) -> tuple[Model, dict[str, Array]]:
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in case.weights.items()}
    arrays = {**weights, **case.others}
    model = make(case.body, case.inputs, case.outputs, arrays, opset=case.opset, rest=case.rest, rename=case.rename)
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        whole = value.type.tensor_type.elem_type == 7
        feeds[value.name] = rng.integers(0, 5, shape) if whole else rng.standard_normal(shape).astype(np.float32)
    return model, feeds


@pytest.mark.parametrize("name", CASES)
def test_it_agrees_and_every_weight_is_a_parameter(
    name: str,
    make: Callable[..., Model],
    ort: Callable[..., dict[str, Array]],
    distance: Callable[[Array, Array], float],
) -> None:
    case, rng = CASES[name], np.random.default_rng(1)
    model, feeds = built(case, make, rng)
    module = module_from_model(model, feeds=feeds)
    assert module.check is not None
    assert not module.check.amplified
    assert {key_from_name(one) for one, _ in module.named_parameters()} == set(case.weights)
    outputs = module(*(torch.from_numpy(feeds[one]) for one in module.input_names))
    sum(one.square().sum() for one in outputs).backward()
    for key in case.weights:
        parameter = module.get_parameter(name_from_key(key))
        assert parameter.shape == case.weights[key]
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-4, key
    before = ort(model, feeds)
    for key in case.weights:
        noise = (0.2 * rng.standard_normal(case.weights[key])).astype(np.float32)
        edited = ort(model.with_initializers({key: model.initializers[key] + noise}), feeds)
        parameter = module.get_parameter(name_from_key(key))
        with torch.no_grad():
            parameter.add_(torch.from_numpy(noise))
            found = run_module(module, feeds)
            parameter.sub_(torch.from_numpy(noise))
        assert max(distance(before[one], edited[one]) for one in edited) > 1e-3, "the noise must be seen"
        assert max(distance(edited[one], found[one]) for one in edited) <= 1e-5


def test_weights_in_constant_nodes_are_found_under_their_paths(make: Callable[..., Model]) -> None:
    weights = "{0.5, -1.0, 0.25, 2.0}"
    body = (
        f"w = Constant<value = float[2, 2] {weights}>() a = MatMul(x, w) c = Greater(s, zero) y = If(c)"
        f" <then_branch = t () => (float[2, 2] b) {{ v = Constant<value = float[2, 2] {weights}>() b = MatMul(a, v) }},"
        f" else_branch = e () => (float[2, 2] d) {{ d = own.F(a) }}>"
    )
    function = (
        '<domain: "own", opset_import: ["" : 18]> F(p) => (r)'
        f" {{ u = Constant<value = float[2, 2] {weights}>() r = MatMul(p, u) }}"
    )
    model = make(body, "float[2, 2] x, float s", "float[2, 2] y", {"zero": np.array(0, np.float32)}, rest=function)
    module = module_from_model(model)
    keys = {key_from_name(name) for name, _ in module.named_parameters()}
    assert keys == {"w", "y.then_branch/v", "own::F/u"}
    x = torch.eye(2)
    for sign, key in ((1.0, "y.then_branch/v"), (-1.0, "own::F/u")):
        module.zero_grad()
        module(x, torch.tensor(sign))[0].square().sum().backward()
        used = {key_from_name(name) for name, one in module.named_parameters() if one.grad is not None}
        assert used == {"w", key}


def test_initializers_that_are_inputs_too_are_not_asked_for(make: Callable[..., Model]) -> None:
    weights = {"w": np.eye(3, 4, dtype=np.float32)}
    module = module_from_model(make("y = MatMul(x, w)", "float[2, 3] x, float[3, 4] w", "float[2, 4] y", weights))
    assert module.input_names == ("x",)
    assert [key_from_name(name) for name, _ in module.named_parameters()] == ["w"]
