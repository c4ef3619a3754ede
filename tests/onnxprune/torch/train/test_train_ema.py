"""The moving average against numpy, and pruned entries in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnxprune_passes.errors import DataError, ModelError, SelectionError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

from onnxprune.torch import OnnxModule, check_masks, hold_masks, module_from_model, write_back
from onnxprune.torch.train.ema import Ema


def step(module: OnnxModule, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    module(torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(seed)))[0].square().sum().backward()
    optimizer.step()


def values(module: OnnxModule) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return {name: one.double().numpy().copy() for name, one in module.state_dict().items()}


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_average_is_the_written_out_one(convnet: Model, decay: float) -> None:
    module = module_from_model(convnet, batch_norm="train")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    average, expected = Ema(module, decay), values(module)
    for seed in range(4):
        step(module, optimizer, seed)
        average.update()
        expected = {name: decay * expected[name] + (1 - decay) * one for name, one in values(module).items()}
    now = values(module)
    own = {name: one.numpy().tobytes() for name, one in module.state_dict().items()}
    with average.applied():
        for name, one in values(module).items():
            np.testing.assert_allclose(one, expected[name], rtol=1e-4, atol=1e-6)
        assert decay == 0 or any((one != now[name]).any() for name, one in values(module).items())
    assert {name: one.numpy().tobytes() for name, one in module.state_dict().items()} == own, "bit for bit"
    assert not np.array_equal(now["t:m"], values(module_from_model(convnet))["t:m"]), "statistics are in it"


def test_values_come_back_after_an_error(convnet: Model) -> None:
    module = module_from_model(convnet)
    average = Ema(module, 0.9)
    with torch.no_grad():
        module.get_parameter("t:w").add_(1)
    own = module.get_parameter("t:w").detach().clone()
    with pytest.raises(DataError, match="has shape"), average.applied():
        module(torch.zeros(1, 2, 3))
    assert torch.equal(module.get_parameter("t:w"), own)


@pytest.mark.parametrize("masked_before", [True, False])
def test_pruned_entries_are_positive_zero(convnet: Model, masks: Masks, masked_before: bool) -> None:
    module = module_from_model(convnet, masks if masked_before else None)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    average = Ema(module, 0.9, masks)
    hold_masks(module, optimizer, masks)  # multiplies, so pruned entries of the module are -0.0 here and there
    for seed in range(3):
        step(module, optimizer, seed)
        average.update()
    with average.applied():
        check_masks(module, masks)
        for key in masks:
            assert not module.get_parameter(f"t:{key}").detach().numpy()[~masks[key]].view(np.uint32).any()
        after = write_back(module, convnet)
    assert not after.initializers["w"][~masks["w"]].view(np.uint32).any()
    assert (after.initializers["w"][masks["w"]] != convnet.initializers["w"][masks["w"]]).any()


def test_a_checkpoint_goes_on_bit_for_bit(convnet: Model) -> None:
    module = module_from_model(convnet)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    first = Ema(module, 0.7)
    step(module, optimizer, 0)
    first.update()
    kept = first.state_dict()
    step(module, optimizer, 1)
    second = Ema(module, 0.7)
    second.load_state_dict(kept)
    for one in (first, second):
        one.update()
    assert all(torch.equal(one, second.state_dict()[name]) for name, one in first.state_dict().items())
    assert not torch.equal(kept["t:w"], first.state_dict()["t:w"]), "what was handed out does not move"


def test_half_precision_is_averaged_in_single(convnet: Model) -> None:
    module = module_from_model(convnet).half()
    average = Ema(module, 0.999)
    before = module.get_parameter("t:w").detach().float()
    with torch.no_grad():
        module.get_parameter("t:w").add_(0.125)
    average.update()
    moved = average.state_dict()["t:w"] - before
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved, torch.full_like(moved, 0.125e-3), rtol=0.5, atol=2e-5)
    average.copy_to_module()
    assert module.get_parameter("t:w").dtype == torch.float16


def test_what_cannot_be(convnet: Model) -> None:
    module = module_from_model(convnet)
    for decay in (1.0, -0.1):
        with pytest.raises(SelectionError, match=f"decay {decay}"):
            Ema(module, decay)
    state = Ema(module, 0.5).state_dict()
    with pytest.raises(ModelError, match=r"'t:w' has shape \[3\], the model \[64, 8\]"):
        Ema(module, 0.5).load_state_dict({**state, "t:w": torch.zeros(3)})
    with pytest.raises(ModelError, match="belongs to another model"):
        Ema(module, 0.5).load_state_dict({name: one for name, one in state.items() if name != "t:u"})
