"""Operators of com.microsoft against onnxruntime's kernels, and against plain torch where it has none for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.errors import ModelError
from onnxprune_passes.model import Model
from torch.nn import functional

from onnxprune.torch import key_from_name, module_from_model

Array = npt.NDArray[Any]
Make = Callable[..., Model]
Shapes = dict[str, tuple[int, ...]]
M = "com.microsoft."


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(*values: Any) -> Array:
    return np.array(values, np.int32)


@dataclass(frozen=True)
class Case:
    """Nodes, inputs, outputs, shapes of trained weights, other arrays."""

    body: str
    inputs: str
    outputs: str
    weights: Shapes = field(default_factory=dict)
    others: dict[str, Array] = field(default_factory=dict)


X = "float[2, 3, 8] x"
Y = "float[2, 3, 8] y"
NORM: Shapes = {"g": (8,), "b": (8,)}
CASES = {
    "FusedMatMul, batches turned": Case(
        f"y = {M}FusedMatMul<alpha = 0.3, transA = 1, transB = 1, transBatchA = 1>(x, w)", "float[4, 2, 3] x",
        "float[2, 3, 5] y", {"w": (2, 5, 4)},
    ),
    "Gelu": Case(f"y = {M}Gelu(x)", X, Y),
    "QuickGelu": Case(f"y = {M}QuickGelu<alpha = 1.5>(x)", X, Y),
    "FastGelu": Case(f"y = {M}FastGelu(x, b)", X, Y, {"b": (8,)}),
    "BiasGelu": Case(f"y = {M}BiasGelu(x, b)", X, Y, {"b": (8,)}),
    "SkipLayerNormalization": Case(
        f"y, m, i, s = {M}SkipLayerNormalization<epsilon = 0.001>(x, z, g, b, c)", f"{X}, float[2, 3, 8] z",
        f"{Y}, float[2, 3, 8] s", {**NORM, "c": (8,)},
    ),
    "SkipSimplifiedLayerNormalization": Case(
        f"y = {M}SkipSimplifiedLayerNormalization<epsilon = 0.001>(x, z, g)", f"{X}, float[2, 3, 8] z", Y, {"g": (8,)}
    ),
    "SimplifiedLayerNormalization": Case(
        "y = SimplifiedLayerNormalization<axis = -1, epsilon = 0.001, stash_type = 1>(x, g)", X, Y, {"g": (8,)}
    ),
    "EmbedLayerNormalization": Case(
        f"y, k, s = {M}EmbedLayerNormalization<epsilon = 0.001>(i, t, w, p, q, g, b, m)",
        "int32[2, 3] i, int32[2, 3] t, int32[2, 3] m", f"{Y}, int32[2] k, float[2, 3, 8] s",
        {"w": (5, 8), "p": (4, 8), "q": (2, 8), **NORM},
    ),
    "FusedConv": Case(
        f'y = {M}FusedConv<activation = "LeakyRelu", activation_params = [0.2], kernel_shape = [3, 3],'
        " pads = [1, 1, 1, 1], strides = [1, 1], dilations = [1, 1], group = 1>(x, w, c)",
        "float[1, 2, 5, 6] x", "float[1, 3, 5, 6] y", {"w": (3, 2, 3, 3), "c": (3,)},
    ),
    "FusedGemm": Case(
        f'y = {M}FusedGemm<activation = "Tanh", transB = 1>(x, w, c)', "float[2, 3] x", "float[2, 4] y",
        {"w": (4, 3), "c": (4,)},
    ),
    "Attention": Case(f"y = {M}Attention<num_heads = 2>(x, w, c)", X, Y, {"w": (8, 24), "c": (24,)}),
    "Attention, causal with a mask and a past": Case(
        f"y, p = {M}Attention<num_heads = 2, unidirectional = 1, scale = 0.4>(x, w, c, m, past)",
        f"{X}, float[2, 2, 2, 4, 4] past", f"{Y}, float[2, 2, 2, 7, 4] p", {"w": (8, 24), "c": (24,)},
        {"m": whole([1, 1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1])},
    ),
    "Attention, lengths": Case(
        f"y = {M}Attention<num_heads = 4>(x, w, c, m)", X, Y, {"w": (8, 24), "c": (24,)}, {"m": whole(2, 3)}
    ),
    "MultiHeadAttention": Case(
        f"y = {M}MultiHeadAttention<num_heads = 2>(x, k, k, c, , a)",
        f"{X}, float[2, 5, 8] k, float[1, 2, 3, 5] a", Y, {"c": (24,)},
    ),
    "MultiHeadAttention with a past": Case(
        f"y, pk, pv = {M}MultiHeadAttention<num_heads = 2>(x, x, x, , , , h, h)", f"{X}, float[2, 2, 4, 4] h",
        f"{Y}, float[2, 2, 7, 4] pk, float[2, 2, 7, 4] pv",
    ),
    "RotaryEmbedding": Case(
        f"y = {M}RotaryEmbedding(x, i, c, s)", "float[2, 3, 8] x", Y, {},
        {"i": np.array([[0, 1, 2], [2, 1, 0]]), "c": weights(4, 2), "s": weights(4, 2, seed=1)},
    ),
    "RotaryEmbedding, interleaved, from a place on": Case(
        f"y = {M}RotaryEmbedding<interleaved = 1>(x, i, c, s)", "float[2, 2, 3, 4] x", "float[2, 2, 3, 4] y", {},
        {"i": np.array([1]), "c": weights(4, 2), "s": weights(4, 2, seed=1)},
    ),
    "ExpandDims": Case(f"y = {M}ExpandDims(x, a)", X, "float[2, 3, 1, 8] y", {}, {"a": np.array(-2, np.int32)}),
    "Trilu": Case(f"y = {M}Trilu<upper = 0>(x)", X, Y),
    "QuantizeLinear and back": Case(
        f"q = {M}QuantizeLinear(x, s, z) y = {M}DequantizeLinear(q, s, z)", X, Y, {},
        {"s": np.array(0.01, np.float32), "z": np.array(3, np.int8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_onnxruntime_does(name: str, make: Make) -> None:
    case, rng = CASES[name], np.random.default_rng(1)
    named = {one: rng.standard_normal(shape).astype(np.float32) for one, shape in case.weights.items()}
    model = make(case.body, case.inputs, case.outputs, {**named, **case.others}, opset=17)
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        integers = value.type.tensor_type.elem_type == 6
        feeds[value.name] = rng.integers(0, 2, shape, np.int32) if integers else weights(*shape, seed=len(feeds) + 2)
    module = module_from_model(model, feeds=feeds)
    assert module.check is not None
    assert not module.check.amplified
    trained = {key_from_name(one) for one, _ in module.named_parameters()}
    assert trained >= set(case.weights)
    if trained:
        found = module(*(torch.from_numpy(feeds[one]) for one in module.input_names))
        torch.autograd.backward([one.square().sum() for one in found if one.requires_grad])
        assert all(one.grad is not None for one in module.parameters())


def test_what_onnxruntime_has_no_cpu_kernel_for(make: Make) -> None:
    x = torch.from_numpy(weights(2, 4, 4, 8))
    named = {"g": weights(8), "b": weights(8, seed=1), "h": weights(4, seed=2)}
    body = (
        f"a = {M}GroupNorm<groups = 4, activation = 1, channels_last = 1>(x, g, b) c = {M}BiasAdd(x, b, x)"
        f" d = {M}BiasSplitGelu(x, b) e = {M}BiasSoftmax<axis = 3, is_inner_broadcast = 1>(x, b)"
    )
    outputs = "float[2, 4, 4, 8] a, float[2, 4, 4, 8] c, float[2, 4, 4, 4] d, float[2, 4, 4, 8] e"
    module = module_from_model(make(body, "float[2, 4, 4, 8] x", outputs, named, opset=17), check=False)
    g, b = (torch.from_numpy(named[name]) for name in "gb")
    grouped = functional.silu(functional.group_norm(x.movedim(-1, 1), 4, g, b)).movedim(1, -1)
    left, right = (x + b).chunk(2, -1)
    expected = (grouped, x + b + x, left * functional.gelu(right), (x + b).softmax(-1))
    for found, wanted in zip(module(x), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"y = {M}Attention<num_heads = 2, do_rotary = 1>(x, w)", "do_rotary = 1 is not supported"),
        (f"y = {M}MultiHeadAttention<num_heads = 2>(x)", "the input key must be given on its own"),
        (f'y = {M}FusedGemm<activation = "Elu">(x, w)', "activation = 'Elu' with .* is not supported"),
        (f"y = {M}Attention<num_heads = 2>(x, w, , m)", r"a mask of shape \[4\] is not supported"),
    ],
)
def test_forms_that_are_not_supported(make: Make, body: str, message: str) -> None:
    flat = "FusedGemm" in body
    named = {"w": weights(8, 24), "m": whole(1, 2, 0, 0)}
    model = make(body, "float[2, 8] x" if flat else X, "float[N, M] y" if flat else Y, named)
    with pytest.raises(ModelError, match=message):
        module_from_model(model, check=False)(torch.ones(*((2, 8) if flat else (2, 3, 8))))
