"""Clipping, and mixed precision on real networks with masks held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load
from onnxprune_passes.thresholds import Sparsity

from onnxprune.torch import OnnxModule, hold_masks, module_from_model
from onnxprune.torch.train.amp import Amp
from onnxprune.torch.train.clip import clip_gradients
from onnxprune.torch.train.losses import loss_from
from onnxprune.torch.train.pretail import loss_output

ROOT = Path(__file__).resolve().parents[4]


def gradients(model: Model) -> OnnxModule:
    """A module with the gradients of one batch."""
    module = module_from_model(model, outputs=["l"])
    module(torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)))[0].square().sum().backward()
    return module


def joint(module: OnnxModule) -> float:
    return float(
        np.sqrt(sum(float((one.grad.double() ** 2).sum()) for one in module.parameters() if one.grad is not None))
    )


def test_clipping_by_norm_scales_all_gradients_together(convnet: Model) -> None:
    module, plain = gradients(convnet), gradients(convnet)
    before = joint(module)
    assert clip_gradients(module, before * 2) == pytest.approx(before, rel=1e-5)
    assert joint(module) == pytest.approx(before, rel=1e-6), "below the limit nothing happens"
    assert clip_gradients(module.parameters(), before / 4, "norm") == pytest.approx(before, rel=1e-5)
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad / 4, rtol=1e-4, atol=1e-7)


def test_clipping_by_value_clips_each_entry(convnet: Model) -> None:
    module, plain = gradients(convnet), gradients(convnet)
    assert clip_gradients(module, 0.5, "value") == pytest.approx(joint(plain), rel=1e-5)
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad.clamp(-0.5, 0.5))


def test_clipping_that_cannot_be(convnet: Model) -> None:
    module = gradients(convnet)
    for limit, kind, message in ((0.0, "norm", "clipped at 0"), (1.0, "length", "clipping by 'length' is unknown")):
        with pytest.raises(SelectionError, match=message):
            clip_gradients(module, limit, kind)


def test_a_step_unscales_before_it_clips(convnet: Model) -> None:
    """With plain SGD the move is the rate times the clipped gradient, whatever the scale of the loss."""
    moves = {}
    for precision in ("off", "fp16"):
        module, amp = module_from_model(convnet, outputs=["l"]), Amp(precision)
        before = torch.cat([one.detach().flatten().clone() for one in module.parameters()])
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        amp.backward(module(torch.ones(4, 1, 4, 4))[0].square().sum() / 1000)
        assert amp.step(optimizer, module, clip=0.01)
        moves[precision] = torch.cat([one.detach().flatten() for one in module.parameters()]) - before
        assert float(moves[precision].norm()) == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(moves["off"], moves["fp16"], rtol=1e-3, atol=1e-6)


def test_a_step_clips_by_value_where_told(convnet: Model) -> None:
    module, amp = module_from_model(convnet, outputs=["l"]), Amp("off")
    before = torch.cat([one.detach().flatten().clone() for one in module.parameters()])
    amp.backward(module(torch.ones(4, 1, 4, 4))[0].square().sum())
    amp.step(torch.optim.SGD(module.parameters(), lr=1.0), module, clip=0.25, kind="value")
    moved = torch.cat([one.detach().flatten() for one in module.parameters()]) - before
    assert float(moved.abs().max()) == pytest.approx(0.25, abs=1e-6)
    assert float(moved.norm()) > 0.25, "clipped by norm it would be 0.25"


def test_an_overflow_leaves_the_step_out_and_lowers_the_scale(convnet: Model) -> None:
    module, amp = module_from_model(convnet, outputs=["l"]), Amp("fp16")
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    before = {name: one.detach().clone() for name, one in module.named_parameters()}
    scale = amp.scale
    amp.backward(module(torch.ones(4, 1, 4, 4))[0].square().sum() * 1e38)
    assert not amp.step(optimizer)
    assert amp.scale == scale / 2
    assert all(torch.equal(before[name], one) for name, one in module.named_parameters())
    again = Amp("fp16")
    again.load_state_dict(amp.state_dict())
    assert again.scale == amp.scale
    assert Amp("bf16").scale == Amp("off").scale == 1


def test_mixed_precision_that_cannot_be(convnet: Model) -> None:
    with pytest.raises(SelectionError, match="precision 'fp8' is unknown; choose one of off, bf16, fp16"):
        Amp("fp8")
    optimizer = torch.optim.SGD(module_from_model(convnet).parameters(), lr=1.0)
    with pytest.raises(SelectionError, match="clipping needs the module"):
        Amp("off").step(optimizer, clip=1.0)


def test_autocast_is_what_it_says(convnet: Model) -> None:
    module = module_from_model(convnet, outputs=["l"]).eval()
    x = torch.randn(4, 1, 4, 4)
    exact = module(x)[0]
    for precision, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("off", torch.float32)):
        with Amp(precision).autocast():
            assert module(x)[0].dtype == dtype
    with Amp("off").autocast():
        assert torch.equal(module(x)[0], exact)


def block(make: Callable[..., Model]) -> Model:
    """An encoder block of a transformer over 6 tokens of 16 numbers, two heads, and a classifier."""
    generator = np.random.default_rng(0)
    body = """
        q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
        qs = Reshape(q, heads)  ks = Reshape(k, heads)  vs = Reshape(v, heads)
        qt = Transpose<perm = [0, 2, 1, 3]>(qs)
        kt = Transpose<perm = [0, 2, 3, 1]>(ks)
        vt = Transpose<perm = [0, 2, 1, 3]>(vs)
        s = MatMul(qt, kt)  t = Div(s, root)  p = Softmax<axis = -1>(t)
        c = MatMul(p, vt)  ct = Transpose<perm = [0, 2, 1, 3]>(c)  cs = Reshape(ct, flat)
        o = MatMul(cs, wo)  r = Add(x, o)  n = LayerNormalization(r, g, gb)
        f = MatMul(n, w1)  fb = Add(f, b1)  e = Erf(fb)  h = Mul(fb, e)  z = MatMul(h, w2)
        rr = Add(n, z)  m = ReduceMean<keepdims = 0>(rr, one)  l = Gemm(m, wc)  y = Softmax(l)"""
    shapes = {**dict.fromkeys(("wq", "wk", "wv", "wo"), (16, 16)), "w1": (16, 32), "w2": (32, 16), "wc": (16, 4)}
    named: dict[str, Any] = {
        key: (generator.standard_normal(shape) / 4).astype(np.float32) for key, shape in shapes.items()
    }
    named |= {"b1": np.zeros(32, np.float32), "g": np.ones(16, np.float32), "gb": np.zeros(16, np.float32)}
    named |= {"heads": np.array([0, 0, 2, 8]), "flat": np.array([0, 0, 16]), "root": np.float32(8**0.5)}
    named["one"] = np.array([1])
    return make(body, "float[N, 6, 16] x", "float[N, 4] y", named)


def learns(model: Model, precision: str, rate: float, batch: int = 4) -> tuple[list[float], OnnxModule, Masks]:
    """The losses of a few steps on one batch at half the connections."""
    state = MagnitudePrune(Sparsity(0.5))(State(model))
    name, _ = loss_output(model)
    module = module_from_model(state.model, state.masks, outputs=[name], check=False)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate)
    hold, amp, loss = hold_masks(module, optimizer), Amp(precision), loss_from("ce")
    generator = torch.Generator().manual_seed(0)
    dims = [size or batch for size in (module.first_dims or ())]
    x = torch.randn([batch, *dims[1:]], generator=generator)
    labels = torch.randint(0, 4, (batch,), generator=generator)
    losses: list[float] = []
    stepped: list[bool] = []
    for _ in range(16):
        optimizer.zero_grad()
        with amp.autocast():
            found = loss(module(x)[0], labels, None)
        amp.backward(found)
        stepped.append(amp.step(optimizer, module, clip=5.0))
        losses.append(found.item())
    hold.check()
    assert all(stepped[8:]), "float16 may overflow until the scale has come down"
    assert sum(stepped) >= (10 if precision == "fp16" else 16)
    return losses, module, state.masks


def assert_it_learns(model: Model, precision: str, rate: float) -> None:
    exact, _, _ = learns(model, "off", rate)
    losses, module, masks = learns(model, precision, rate)
    assert exact[-1] < 0.7 * exact[0]
    assert losses[-1] < 0.7 * losses[0]
    assert losses[0] == pytest.approx(exact[0], rel=2e-2 if precision == "bf16" else 4e-3)
    assert losses[0] != exact[0], "it was computed in other numbers"
    assert all(one.dtype == torch.float32 for one in module.parameters())
    for key in masks:
        values = module.get_parameter(f"t:{key.replace('.', '%2E')}").detach().numpy()
        assert not values[~masks[key]].any()
        assert values[masks[key]].any()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lenet_5_in_mixed_precision(precision: str) -> None:
    assert_it_learns(load(ROOT / "models" / "lenet_5.onnx"), precision, 1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_transformer_block_in_mixed_precision(make: Callable[..., Model], precision: str) -> None:
    assert_it_learns(block(make), precision, 1e-2)


@pytest.mark.corpus
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_residual_network_in_mixed_precision(corpus: Callable[[str], Path], precision: str) -> None:
    assert_it_learns(load(corpus("cifar_resnet20_jpegft_op13")), precision, 1e-3)
