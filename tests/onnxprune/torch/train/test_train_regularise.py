"""Penalties against numpy, and which tensors they reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

from onnxprune.torch import module_from_model
from onnxprune.torch.train.regularise import penalty

WEIGHTS = ("cw", "w", "u")


def arrays(model: Model, masks: Masks | None = None) -> list[Any]:
    found = {key: model.initializers[key].astype(np.float64) for key in WEIGHTS}
    return [values * (masks[key] if masks and key in masks else 1) for key, values in found.items()]


def expected(kind: str, values: list[Any]) -> float:
    if kind == "l1":
        return float(sum(abs(one).sum() for one in values))
    if kind == "l2":
        return float(sum((one**2).sum() for one in values) / 2)
    return float(sum(abs(one).sum() ** 2 / (one**2).sum() for one in values))


@pytest.mark.parametrize("kind", ["l1", "l2", "hoyer"])
def test_the_sum_over_weights_and_nothing_else(convnet: Model, masks: Masks, kind: str) -> None:
    dense, pruned = module_from_model(convnet), module_from_model(convnet, masks)
    assert penalty(dense, kind, 0.5).item() == pytest.approx(0.5 * expected(kind, arrays(convnet)), rel=1e-5)
    assert penalty(pruned, kind, 1.0).item() == pytest.approx(expected(kind, arrays(convnet, masks)), rel=1e-5)
    torch.autograd.backward(penalty(pruned, kind, 1.0))
    reached = {name for name, one in pruned.named_parameters() if one.grad is not None}
    assert reached == {f"t:{key}" for key in WEIGHTS}
    for key in masks:
        gradient = pruned.get_parameter(f"t:{key}").grad
        assert gradient is not None
        assert not gradient[torch.from_numpy(~masks[key])].any(), "a pruned entry is pulled nowhere"


def test_l2_pulls_as_weight_decay_does(convnet: Model) -> None:
    module = module_from_model(convnet)
    torch.autograd.backward(penalty(module, "l2", 0.3))
    for key in WEIGHTS:
        parameter = module.get_parameter(f"t:{key}")
        torch.testing.assert_close(parameter.grad, 0.3 * parameter.detach())


def test_hoyer_counts_the_weights_in_effect_whatever_their_scale(convnet: Model) -> None:
    module = module_from_model(convnet)
    with torch.no_grad():
        for key in WEIGHTS:
            module.get_parameter(f"t:{key}").zero_()
        module.get_parameter("t:u").reshape(-1)[:5] = 1e-3
    assert penalty(module, "hoyer", 1.0).item() == pytest.approx(5)
    found = penalty(module, "hoyer", 1.0)
    torch.autograd.backward(found)
    assert all(torch.isfinite(one.grad).all() for one in module.parameters() if one.grad is not None)


def test_weights_of_every_kind_of_layer(make: Callable[..., Model], weights: Callable[..., Any]) -> None:
    body = """
        e = Gather(table, ids)
        a, s = LSTM<hidden_size = 3>(e, lw, lr, lb)
        z = Constant<value_ints = [1]>()
        b = Squeeze(a, z)
        y = Einsum<equation = "abc,cd->abd">(b, k)"""
    named = {
        **{"table": weights(7, 4), "lw": weights(1, 12, 4), "lr": weights(1, 12, 3), "lb": weights(1, 24)},
        "k": weights(3, 2),
    }
    module = module_from_model(make(body, "int64[5, 2] ids", "float[5, 2, 2] y", named))
    total = sum(float((named[key] ** 2).sum()) for key in ("lw", "lr", "k")) / 2
    assert penalty(module, "l2", 1.0).item() == pytest.approx(total, rel=1e-5)


def test_frozen_weights_are_left_out(convnet: Model) -> None:
    module = module_from_model(convnet, frozen=["cw", "w"])
    assert penalty(module, "l1", 1.0).item() == pytest.approx(expected("l1", arrays(convnet)[2:]), rel=1e-5)
    with pytest.raises(SelectionError, match="no weight of the module trains"):
        penalty(module_from_model(convnet, frozen=["*"]), "l1", 1.0)


def test_a_strength_of_zero_is_nothing(convnet: Model) -> None:
    assert penalty(module_from_model(convnet), "l1", 0.0).item() == 0


@pytest.mark.parametrize(("kind", "strength", "message"), [("l3", 1.0, "penalty 'l3' is unknown"), ("l1", -1.0, "-1")])
def test_what_cannot_be(convnet: Model, kind: str, strength: float, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        penalty(module_from_model(convnet), kind, strength)
