"""BatchNormalization: modes, statistics computed anew, and statistics over processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import save

from onnxprune.torch import module_from_model, write_back
from onnxprune.torch.train.batch_norm import recalibrate, reduce_across_ranks, set_mode

Make = Callable[..., Model]
Weights = Callable[..., Any]


def test_modes(convnet: Model) -> None:
    module = module_from_model(convnet)
    before = {name: one.clone() for name, one in module.named_buffers()}
    assert set_mode(module, "train") == 1
    module(torch.randn(5, 1, 4, 4))
    assert not torch.equal(module.get_buffer("t:m"), before["t:m"])
    moved = module.get_buffer("t:m").clone()
    assert set_mode(module, "frozen") == 1
    module(torch.randn(5, 1, 4, 4))
    assert torch.equal(module.get_buffer("t:m"), moved)
    with pytest.raises(SelectionError, match="'thawed' is unknown"):
        set_mode(module, "thawed")


def test_a_model_without_statistics_of_its_own_has_none(make: Make, weights: Weights) -> None:
    named = {"s": weights(3), "b": weights(3), "m": weights(3), "v": abs(weights(3)) + 0.5}
    body = "y, rm, rv = BatchNormalization<training_mode = 1>(x, s, b, m, v)"
    module = module_from_model(make(body, "float[N, 3, 4] x", "float[N, 3, 4] y", named, opset=15))
    assert set_mode(module, "train") == 0


def test_recalibrated_statistics_are_the_mean_over_the_batches(convnet: Model) -> None:
    module = module_from_model(convnet, dropout={"x": 0.5}).eval()
    generator = torch.Generator().manual_seed(0)
    batches = [3 * torch.randn(6, 1, 4, 4, generator=generator) + 1 for _ in range(4)]
    weight, bias = (module.get_parameter(f"t:{key}").detach() for key in ("cw", "cb"))
    seen = [torch.nn.functional.conv2d(one, weight, bias, padding=1).double() for one in batches]
    assert recalibrate(module, iter(batches)) == 4
    expected = torch.stack([one.mean((0, 2, 3)) for one in seen]).mean(0)
    torch.testing.assert_close(module.get_buffer("t:m").double(), expected, rtol=1e-5, atol=1e-6)
    expected = torch.stack([one.var((0, 2, 3)) for one in seen]).mean(0)
    torch.testing.assert_close(module.get_buffer("t:v").double(), expected, rtol=1e-5, atol=1e-6)
    changed = write_back(module, convnet).initializers
    assert {key for key in changed if not np.array_equal(changed[key], convnet.initializers[key])} == {"m", "v"}


def test_recalibration_leaves_the_module_as_it_was(convnet: Model) -> None:
    module = module_from_model(convnet, dropout={"h": 0.25}).eval()
    module.batch_norm_momentum = 0.3
    recalibrate(module, [torch.randn(6, 1, 4, 4), (torch.randn(6, 1, 4, 4),), {"x": torch.randn(6, 1, 4, 4)}])
    state = module.training, module.batch_norm, module.batch_norm_momentum, module.dropout
    assert state == (False, "frozen", 0.3, {"h": 0.25})
    assert all(one.grad is None for one in module.parameters())
    with pytest.raises(DataError, match="no batches"):
        recalibrate(module, [])
    with pytest.raises(DataError, match="has shape"):
        recalibrate(module.train(), [torch.randn(6, 2, 4, 4)])
    assert (module.training, module.batch_norm, module.dropout) == (True, "frozen", {"h": 0.25})


def test_reducing_needs_processes(convnet: Model) -> None:
    with pytest.raises(ValueError, match="init_process_group"):
        reduce_across_ranks(module_from_model(convnet))


_WORKER = """
import os, sys
import torch
import torch.distributed as dist
from onnxprune.passes import load
from onnxprune.torch import module_from_model
from onnxprune.torch.train.batch_norm import recalibrate, reduce_across_ranks, set_mode

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
module = module_from_model(load(f"{folder}/model.onnx"), outputs=["l"], check=False)
set_mode(module, "train")
hold = reduce_across_ranks(module)
wrapped = torch.nn.parallel.DistributedDataParallel(module)
optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
whole = torch.load(f"{folder}/x.pt")
for step in range(3):
    optimizer.zero_grad()
    wrapped(whole[step, rank * 4 : rank * 4 + 4])[0].square().mean().backward()
    optimizer.step()
trained = {name: one.clone() for name, one in module.state_dict().items()}
recalibrate(module, [one[rank * 4 : rank * 4 + 4] for one in whole])
both = {name: one.clone() for name, one in module.state_dict().items()}
hold.remove()
module(whole[0, rank * 4 : rank * 4 + 4])
torch.save({"trained": trained, "recalibrated": both, "alone": module.state_dict()}, f"{folder}/out{rank}.pt")
dist.barrier()
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # gloo may abort while it is torn down, after everything is done
"""


def test_two_processes_train_as_one_with_the_whole_batch(convnet: Model, tmp_path: Path) -> None:
    save(convnet, tmp_path / "model.onnx")
    whole = torch.randn(3, 8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    whole[:, :4] += 2  # the halves of a batch differ, so their own statistics would
    torch.save(whole, tmp_path / "x.pt")
    command = [sys.executable, "-W", "error", "-c", _WORKER, str(tmp_path)]
    workers = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=120)[0] for worker in workers]
    assert all((tmp_path / f"out{rank}.pt").exists() for rank in range(2)), said
    first, second = (torch.load(tmp_path / f"out{rank}.pt") for rank in range(2))

    module = module_from_model(convnet, outputs=["l"], batch_norm="train")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for batch in whole:
        optimizer.zero_grad()
        module(batch)[0].square().mean().backward()
        optimizer.step()
    for name, expected in module.state_dict().items():
        assert torch.equal(first["trained"][name], second["trained"][name])
        torch.testing.assert_close(first["trained"][name], expected, rtol=1e-4, atol=1e-5)
    recalibrate(module, list(whole))
    for name in ("t:m", "t:v"):
        assert torch.equal(first["recalibrated"][name], second["recalibrated"][name])
        torch.testing.assert_close(first["recalibrated"][name], module.get_buffer(name), rtol=1e-4, atol=1e-5)
        assert not torch.equal(first["alone"][name], second["alone"][name]), "released, each has its own"
