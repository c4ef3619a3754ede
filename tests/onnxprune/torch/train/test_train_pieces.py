"""The pieces of the training loop together, on one small network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

from onnxprune.torch import check_masks, hold_masks, module_from_model
from onnxprune.torch.train.amp import Amp
from onnxprune.torch.train.dropout import install
from onnxprune.torch.train.ema import Ema
from onnxprune.torch.train.local import trainable
from onnxprune.torch.train.losses import loss_from
from onnxprune.torch.train.pretail import loss_output
from onnxprune.torch.train.regularise import penalty
from onnxprune.torch.train.schedules import default_rate, factor_from


@pytest.mark.parametrize("precision", ["off", "bf16", "fp16"])
def test_a_loop_of_them_all_learns_under_masks(
    make: Callable[..., Model], precision: str, rng: np.random.Generator
) -> None:
    body = "a = Conv(x, cw, cb) h = Relu(a) f = Flatten(h) l = Gemm<transB = 1>(f, w, b) p = Softmax(l)"
    arrays: dict[str, Any] = {
        "cw": rng.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "cb": np.zeros(4, np.float32),
        "w": rng.standard_normal((3, 64)).astype(np.float32) / 8,
        "b": np.zeros(3, np.float32),
    }
    model = make(body, "float[N, 1, 6, 6] x", "float[N, 3] p", arrays)
    masks = Masks({"w": rng.random((3, 64)) < 0.25})
    name, stripped = loss_output(model)
    assert (name, stripped) == ("l", "Softmax")
    module = module_from_model(model, masks, outputs=[name])
    optimizer = torch.optim.SGD(module.parameters(), lr=default_rate("sgd", 0.5), momentum=0.9)
    hold, drop, average = hold_masks(module, optimizer), install(module, {"h": 0.4}), Ema(module, 0.9)
    loss, factor, amp = loss_from("ce"), factor_from("cosine", 40, warmup=4), Amp(precision)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    torch.manual_seed(0)
    x = torch.randn(60, 1, 6, 6)
    labels = x[:, 0, 1:4].sum((1, 2)).div(2).round().clamp(-1, 1).long() + 1
    losses = []
    for step in range(40):
        trainable(module, "alternate", step // 10)
        optimizer.zero_grad()
        with amp.autocast():
            found = loss(module(x)[0], labels, None)
        amp.backward(found + penalty(module, "l2", 1e-4))
        assert amp.step(optimizer, module, clip=1.0)
        schedule.step()
        average.update()
        losses.append(found.item())
    assert min(losses[-5:]) < 0.7 * losses[0]
    assert drop.rates == {"h": 0.4}
    hold.check()
    with average.applied():
        check_masks(module)
