"""Quantised models: weights train as real numbers behind their integers; gradients pass straight through rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

from onnxprune.torch import hold_masks, module_from_model, run_module, write_back

Array = npt.NDArray[Any]
Make = Callable[..., Model]
Run = Callable[[Model, Mapping[str, Array]], dict[str, Array]]


@pytest.fixture(params=["per tensor", "per channel"])
def qdq(make: Make, request: pytest.FixtureRequest) -> Model:
    rng = np.random.default_rng(0)
    per_channel = request.param == "per channel"
    named = {
        "wq": rng.integers(-100, 100, (4, 3)).astype(np.int8),
        "ws": np.full(4, 0.02, np.float32) * [1, 2, 3, 4] if per_channel else np.array(0.02, np.float32),
        "wz": np.array([5, -3, 0, 7], np.int8) if per_channel else np.array(5, np.int8),
        "xs": np.array(0.05, np.float32), "xz": np.array(128, np.uint8), "ys": np.array(0.1, np.float32),
        "yz": np.array(100, np.uint8),
    }  # fmt: skip
    named["ws"] = named["ws"].astype(np.float32)
    body = (
        "xq = QuantizeLinear(x, xs, xz) xd = DequantizeLinear(xq, xs, xz) w = DequantizeLinear<axis = 0>(wq, ws, wz)"
        " a = Gemm<transB = 1>(xd, w) aq = QuantizeLinear(a, ys, yz) t = Transpose<perm = [1, 0]>(aq)"
        " y = DequantizeLinear(t, ys, yz)"
    )
    return make(body, "float[N, 3] x", "float[4, N] y", named)


def test_it_agrees_and_the_weight_is_latent(qdq: Model) -> None:
    module = module_from_model(qdq)
    (parameter,) = module.parameters()
    assert {row.key: row.kind for row in module.rows}["wq"] == "latent"
    stored, zero = qdq.initializers["wq"].astype(np.float32), qdq.initializers["wz"].astype(np.float32)
    scale = qdq.initializers["ws"]
    shape = (-1, 1) if scale.ndim else ()
    expected = (stored - zero.reshape(shape)) * scale.reshape(shape)
    np.testing.assert_array_equal(parameter.detach().numpy(), expected)
    assert write_back(module, qdq) is qdq


def test_gradients_pass_straight_through(qdq: Model) -> None:
    module = module_from_model(qdq)
    (parameter,) = module.parameters()
    x = torch.tensor([[0.5, -0.25, 1.0]], requires_grad=True)
    y = module(x)[0]
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, parameter.detach().sum(0, keepdim=True), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parameter.grad, x.detach().expand(4, 3))


def test_gradients_stop_outside_the_range(qdq: Model) -> None:
    module = module_from_model(qdq)
    x = torch.tensor([[0.5, 1000.0, -1000.0]], requires_grad=True)
    module(x)[0].sum().backward()
    assert x.grad is not None
    assert x.grad[0, 1:].tolist() == [0.0, 0.0]


def test_after_training_the_file_has_new_integers(qdq: Model, ort: Run) -> None:
    module = module_from_model(qdq)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02)
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (module(x)[0] - x.sum(1)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    after = write_back(module, qdq)
    assert after.initializers["wq"].dtype == np.int8
    changed = {key for key in qdq.initializers if not np.array_equal(qdq.initializers[key], after.initializers[key])}
    assert changed == {"wq"}
    found, expected = run_module(module, {"x": x.numpy()})["y"], ort(after, {"x": x.numpy()})["y"]
    assert (np.abs(found - expected) <= 0.1001).all(), "at most one step"
    assert (found != expected).mean() <= 0.01


def test_pruned_entries_are_the_zero_point(qdq: Model) -> None:
    keep = np.random.default_rng(1).random((4, 3)) < 0.5
    module = module_from_model(qdq, Masks({"wq": keep}))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    hold = hold_masks(module, optimizer)
    for _ in range(5):
        optimizer.zero_grad()
        module(torch.randn(8, 3))[0].square().mean().backward()
        optimizer.step()
    hold.check()
    after, zero = write_back(module, qdq).initializers["wq"], qdq.initializers["wz"]
    laid = np.broadcast_to(zero.reshape(-1, 1) if zero.ndim else zero, (4, 3))
    assert np.array_equal(after[~keep], laid[~keep])
    assert (after[keep] != laid[keep]).any()


def test_values_without_an_integer_are_refused(qdq: Model) -> None:
    module = module_from_model(qdq)
    with torch.no_grad():
        next(module.parameters())[0, 0] = float("nan")
    with pytest.raises(ModelError, match="'wq' is not finite after training, so it has no int8 value"):
        write_back(module, qdq)


def test_integers_that_leave_the_graph_are_integers(make: Make) -> None:
    named = {"s": np.array(0.1, np.float32), "z": np.array(3, np.uint8)}
    body = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
    module = module_from_model(make(body, "float[4] x", "uint8[4] q, float[4] d", named))
    q, d = module(torch.tensor([-9.0, 0.05, 0.15, 99.0]))
    assert q.dtype == torch.uint8
    assert q.tolist() == [0, 3, 5, 255]
    assert d.dtype == torch.float32


def test_integer_products_agree(make: Make) -> None:
    rng = np.random.default_rng(0)
    named = {
        "w": rng.integers(0, 255, (3, 2, 3, 3)).astype(np.uint8), "m": rng.integers(-9, 9, (6, 5)).astype(np.int8),
        "wz": np.array(7, np.uint8), "xz": np.array(5, np.uint8), "s": np.array([-1, 6]),
    }  # fmt: skip
    body = "a = ConvInteger<pads = [1, 1, 1, 1]>(x, w, xz, wz) r = Reshape(x, s) b = MatMulInteger(r, m, xz)"
    model = make(body, "uint8[N, 2, 4, 6] x", "int32[N, 3, 4, 6] a, int32[M, 5] b", named)
    module = module_from_model(model, feeds={"x": rng.integers(0, 255, (2, 2, 4, 6)).astype(np.uint8)})
    assert not list(module.parameters())
