"""Which layers train in which epoch, and that the others rest whatever the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.model import Model

from onnxprune.torch import OnnxModule, module_from_model
from onnxprune.torch.train.local import trainable

CONV = ("cw", "cb", "s", "o")
FC = ("w", "wb", "u", "ub")
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}


def moved(module: OnnxModule, optimizer: torch.optim.Optimizer) -> set[str]:
    before = {name: one.detach().clone() for name, one in module.named_parameters()}
    optimizer.zero_grad()
    module(torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)))[0].square().sum().backward()
    optimizer.step()
    return {name[2:] for name, one in module.named_parameters() if not torch.equal(before[name], one)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_the_chosen_layers_move(convnet: Model, name: str) -> None:
    """The optimizer has momentum of all of them from an epoch in which all trained."""
    module = module_from_model(convnet, outputs=["l"])
    optimizer = OPTIMIZERS[name](module.parameters())
    expected = [("all", 0, CONV + FC), ("fc", 3, FC), ("conv", 2, CONV), ("alternate", 0, FC), ("alternate", 1, CONV)]
    for mode, epoch, keys in (*expected, ("alternate", 2, FC), ("all", 1, CONV + FC)):
        assert set(trainable(module, mode, epoch)) == set(keys)
        assert moved(module, optimizer) == set(keys)


def test_gradients_of_before_are_gone(convnet: Model) -> None:
    module = module_from_model(convnet, outputs=["l"])
    module(torch.randn(8, 1, 4, 4))[0].square().sum().backward()
    trainable(module, "fc", 0)
    assert {name[2:] for name, one in module.named_parameters() if one.grad is not None} == set(FC)


def test_frozen_tensors_stay_frozen(convnet: Model) -> None:
    module = module_from_model(convnet, frozen=["w", "cb"])
    assert set(trainable(module, "all", 0)) == {"cw", "s", "o", "wb", "u", "ub"}
    assert not module.get_parameter("t:w").requires_grad
    assert set(trainable(module, "conv", 0)) == {"cw", "s", "o"}


def test_recurrent_layers_and_tables_are_fully_connected(make: Callable[..., Model], weights: Any) -> None:
    body = """
        e = Gather(table, ids)
        a, s = LSTM<hidden_size = 3>(e, lw, lr, lb)
        z = Constant<value_ints = [1]>()
        b = Squeeze(a, z)
        t = Transpose<perm = [1, 2, 0]>(b)
        c = Conv(t, cw)
        g = PRelu(c, slope)
        y = Add(g, shift)"""
    named = {
        **{"table": weights(7, 4), "lw": weights(1, 12, 4), "lr": weights(1, 12, 3), "lb": weights(1, 24)},
        **{"cw": weights(2, 3, 3), "slope": weights(2, 1), "shift": weights(2, 1)},
    }
    module = module_from_model(make(body, "int64[5, 2] ids", "float[2, 2, 3] y", named))
    assert set(trainable(module, "conv", 0)) == {"cw", "slope", "shift"}
    assert set(trainable(module, "fc", 0)) == {"table", "lw", "lr", "lb"}


def test_what_cannot_be(convnet: Model) -> None:
    with pytest.raises(SelectionError, match="local training 'both' is unknown"):
        trainable(module_from_model(convnet), "both", 0)
    module = module_from_model(convnet, outputs=["r"])
    for mode in ("fc", "alternate"):
        with pytest.raises(SelectionError, match="the model trains no fully connected layers"):
            trainable(module, mode, 1)
    with pytest.raises(SelectionError, match="the model trains no convolutions"):
        trainable(module_from_model(convnet, frozen=["cw"]), "conv", 0)
