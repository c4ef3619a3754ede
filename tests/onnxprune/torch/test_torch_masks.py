"""Pruned entries stay zero: through every optimizer, from states that remember them, and in any loop."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

from onnxprune.torch import OnnxModule, check_masks, hold_masks, module_from_model, write_back

Array = npt.NDArray[Any]
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum and decay": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
}


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def model(make: Callable[..., Model]) -> Model:
    body = "a = Gemm<transB = 1>(x, w, b) h = Relu(a) m = MatMul(h, v) s = ReduceSum(big, zero) y = Sub(m, s)"
    named = {
        "w": weights(8, 6),
        "b": weights(8),
        "v": weights(8, 3, seed=1),
        "big": weights(100),
        "zero": np.array([0]),
    }
    return make(body, "float[N, 6] x", "float[N, 3] y", named)


@pytest.fixture
def masks() -> Masks:
    generator = np.random.default_rng(3)
    return Masks({"w": generator.random((8, 6)) < 0.4, "v": generator.random((8, 3)) < 0.4})


def steps(module: torch.nn.Module, optimizer: torch.optim.Optimizer, count: int = 5, seed: int = 0) -> None:
    torch.manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        found = module(torch.randn(16, 6))[0]
        (found - torch.randn(16, 3)).square().mean().backward()
        optimizer.step()


def pruned_entries(module: OnnxModule, masks: Masks) -> dict[str, torch.Tensor]:
    return {key: module.get_parameter(f"t:{key}").detach()[torch.from_numpy(~masks[key])] for key in masks}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_leaves_pruned_entries_at_zero(name: str, model: Model, masks: Masks) -> None:
    module = module_from_model(model, masks)
    optimizer = OPTIMIZERS[name](module.parameters())
    hold = hold_masks(module, optimizer)
    steps(module, optimizer)
    hold.check()
    check_masks(module)
    for key, entries in pruned_entries(module, masks).items():
        assert not entries.any()
        kept = module.get_parameter(f"t:{key}").detach()[torch.from_numpy(masks[key])]
        before = torch.from_numpy(model.initializers[key][masks[key]].copy())
        assert (kept != before).float().mean() > 0.6, "what is kept trains, behind units that live"


@pytest.mark.parametrize("name", [one for one in OPTIMIZERS if one != "sgd"])
def test_state_from_before_the_prune_revives_nothing(name: str, model: Model, masks: Masks) -> None:
    module = module_from_model(model)
    optimizer = OPTIMIZERS[name](module.parameters())
    steps(module, optimizer)
    hold_masks(module, optimizer, masks)
    for key in masks:
        pruned = torch.from_numpy(~masks[key])
        remembered = [one for one in optimizer.state[module.get_parameter(f"t:{key}")].values() if one.ndim]
        assert remembered
        assert not any(one[pruned].any() for one in remembered)
    steps(module, optimizer)
    check_masks(module, masks)
    for key in masks:
        pruned = torch.from_numpy(~masks[key])
        state = optimizer.state[module.get_parameter(f"t:{key}")].values()
        assert not any(one[pruned].any() for one in state if one.ndim)


def test_without_the_hold_they_come_back_and_are_counted(model: Model, masks: Masks) -> None:
    module = module_from_model(model, masks)
    optimizer = OPTIMIZERS["adam"](module.parameters())
    steps(module, optimizer)
    with pytest.raises(ModelError, match=r"pruned entries are not zero: w \(\d+\), v \(\d+\)"):
        check_masks(module)


def test_gradients_of_pruned_entries_are_zero(model: Model, masks: Masks) -> None:
    module = module_from_model(model, masks)
    hold_masks(module, torch.optim.SGD(module.parameters(), lr=0.1))
    module(torch.randn(4, 6))[0].square().sum().backward()
    for key in masks:
        gradient = module.get_parameter(f"t:{key}").grad
        assert gradient is not None
        assert not gradient[torch.from_numpy(~masks[key])].any()
        assert gradient[torch.from_numpy(masks[key])].any()


def test_a_loaded_state_is_masked(model: Model, masks: Masks) -> None:
    module = module_from_model(model)
    other = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    steps(module, other)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    hold = hold_masks(module, optimizer, masks)
    optimizer.load_state_dict(other.state_dict())
    momentum = optimizer.state[module.get_parameter("t:w")]["momentum_buffer"]
    assert not momentum[torch.from_numpy(~masks["w"])].any()
    hold.check()


def test_release_ends_it(model: Model, masks: Masks) -> None:
    module = module_from_model(model, masks)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    hold_masks(module, optimizer).release()
    steps(module, optimizer)
    with pytest.raises(ModelError, match="not zero"):
        check_masks(module)


def test_a_value_set_by_hand_is_found_then_zeroed_by_the_next_step(model: Model, masks: Masks) -> None:
    module = module_from_model(model, masks)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    hold = hold_masks(module, optimizer)
    with torch.no_grad():
        module.get_parameter("t:w").fill_(1.0)
    with pytest.raises(ModelError, match=r"w \(\d+\); step the optimizer that was held"):
        hold.check()
    steps(module, optimizer, 1)
    hold.check()


def test_a_mask_of_another_shape_is_refused(model: Model) -> None:
    module = module_from_model(model)
    with pytest.raises(ModelError, match=r"the mask of 'w' has shape \[2, 2\], the parameter \[8, 6\]"):
        hold_masks(module, torch.optim.SGD(module.parameters(), lr=0.1), Masks({"w": np.ones((2, 2), np.bool_)}))
    with pytest.raises(ModelError, match="the mask of 'big' has no parameter to hold"):
        hold_masks(module, torch.optim.SGD(module.parameters(), lr=0.1), Masks({"big": np.ones(100, np.bool_)}))
    with pytest.raises(ModelError, match="names no tensor of the model"):
        module_from_model(model, Masks({"nobody": np.ones(2, np.bool_)}))


def test_written_back_the_masks_are_in_the_file(model: Model, masks: Masks) -> None:
    module = module_from_model(model, masks)
    optimizer = OPTIMIZERS["adamw"](module.parameters())
    hold_masks(module, optimizer)
    steps(module, optimizer)
    after = write_back(module, model)
    for key in masks:
        assert not after.initializers[key][~masks[key]].view(np.uint32).any()
        assert (after.initializers[key][masks[key]] != model.initializers[key][masks[key]]).mean() > 0.6


class Wrapped(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> Any:
        return self.module(x)


def test_wrapped_modules_and_optimizers_are_looked_into(model: Model, masks: Masks) -> None:
    module = module_from_model(model, masks)
    optimizer = OPTIMIZERS["adam"](module.parameters())

    class WrappedOptimizer:
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.optimizer = inner

    hold = hold_masks(Wrapped(module), WrappedOptimizer(optimizer))  # type: ignore[arg-type]  # as accelerate's
    steps(Wrapped(module), optimizer)
    hold.check()


def test_a_closure_in_the_step_is_fine(model: Model, masks: Masks) -> None:
    """Lightning calls the optimizer with a closure that computes the gradients."""
    module = module_from_model(model, masks)
    optimizer = OPTIMIZERS["momentum and decay"](module.parameters())
    hold = hold_masks(module, optimizer)

    def closure() -> float:
        optimizer.zero_grad()
        loss = module(torch.ones(4, 6))[0].square().mean()
        loss.backward()
        return float(loss.item())

    for _ in range(3):
        optimizer.step(closure)
    hold.check()


@pytest.mark.filterwarnings("default")  # the library's own
@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
def test_accelerate(model: Model, masks: Masks) -> None:
    module = module_from_model(model, masks)
    accelerator = importlib.import_module("accelerate").Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(module, OPTIMIZERS["adam"](module.parameters()))
    hold = hold_masks(prepared, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        accelerator.backward(prepared(torch.randn(4, 6))[0].square().mean())
        optimizer.step()
    hold.check()


@pytest.mark.filterwarnings("default")  # the library's own
@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
def test_lightning(model: Model, masks: Masks) -> None:
    lightning: Any = importlib.import_module("lightning")
    module = module_from_model(model, masks)

    class Task(lightning.LightningModule):  # type: ignore[misc]  # its type is not known here
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss: torch.Tensor = self.module(batch[0])[0].square().mean()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            optimizer = OPTIMIZERS["adam"](self.module.parameters())
            hold_masks(self.module, optimizer)
            return optimizer

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 6)), 4)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    lightning.Trainer(max_epochs=2, accelerator="cpu", **quiet).fit(Task(), loader)
    check_masks(module)
