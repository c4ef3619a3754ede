"""Frozen tensors share the pages of the model's file, cannot change it, and are not copied."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.arrays import Array as Source
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load, save

from onnxprune.torch import module_from_model, run_module
from onnxprune.torch.memory import FrozenMemory, own_tensor

Array = npt.NDArray[Any]
Make = Callable[..., Model]


def weights(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.fixture(params=[False, True], ids=["one file", "external data"])
def path(make: Make, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    named = {"w": weights(64, 64), "v": weights(64, 32)}
    model = make("a = MatMul(x, w) y = MatMul(a, v)", "float[N, 64] x", "float[N, 32] y", named)
    return save(model, tmp_path / "model.onnx", external=request.param)


def files_behind(tensor: torch.Tensor) -> list[str]:
    """The lines of this process's map of memory that the tensor lies in (Linux)."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc/self/maps on this system")
    found = []
    for line in maps.read_text().splitlines():
        start, end = (int(one, 16) for one in line.split()[0].split("-"))
        if start <= tensor.data_ptr() < end:
            found.append(line)
    return found


def test_frozen_tensors_are_pages_of_the_file(path: Path) -> None:
    model = load(path)
    module = module_from_model(model, frozen=["w"])
    frozen, trained = module.get_parameter("t:w"), module.get_parameter("t:v")
    assert not frozen.requires_grad
    (line,) = files_behind(frozen)
    if not model.initializers["w"].flags.aligned:
        pytest.skip("in this file the tensor begins at an odd address")
    assert str(path.parent) in line
    assert "rw-p" in line, "a private map: writes go to a copy"
    assert not any(str(path.parent) in line for line in files_behind(trained))


def test_writing_to_a_frozen_tensor_leaves_file_and_model_alone(path: Path) -> None:
    model = load(path)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    expected = model.initializers["w"].copy()
    module = module_from_model(model, frozen=["w"])
    with torch.no_grad():
        module.get_parameter("t:w").fill_(3.0)
    assert np.array_equal(model.initializers["w"], expected)
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_training_leaves_the_model_alone(path: Path) -> None:
    model = load(path)
    expected = model.initializers["v"].copy()
    module = module_from_model(model)
    with torch.no_grad():
        module.get_parameter("t:v").zero_()
    assert np.array_equal(model.initializers["v"], expected)


def test_a_file_that_was_replaced_is_not_shared(path: Path) -> None:
    """The model still sees the old file; a new map of the name would show the new one."""
    model = load(path)
    expected = model.initializers["w"].copy()
    changed = load(path).with_initializers({"w": np.zeros((64, 64), np.float32)})
    save(changed, path, overwrite_input=True, external=False)
    module = module_from_model(model, frozen=["w"], check=False)
    assert np.array_equal(module.get_parameter("t:w").detach().numpy(), expected)


def test_masked_tensors_are_computed_once(path: Path) -> None:
    model = load(path)
    masked = apply_masks(model, Masks({"w": weights(64, 64) > 0}))
    tensor = own_tensor(masked.initializers.source("w"), "w")
    assert np.array_equal(tensor.numpy(), masked.initializers["w"])
    tensor.zero_()
    assert masked.initializers["w"].any()
    frozen = FrozenMemory().tensor(masked.initializers.source("w"), "w")
    assert np.array_equal(frozen.numpy(), masked.initializers["w"])


def test_arrays_of_no_file_are_copied() -> None:
    array = weights(3)
    tensor = FrozenMemory().tensor(Source(array), "w")
    tensor.zero_()
    assert array.any()


def test_an_unaligned_tensor_is_copied(tmp_path: Path) -> None:
    data = np.arange(9, dtype=np.float32)
    (tmp_path / "odd").write_bytes(b"x" + data.tobytes())
    mapped = np.memmap(tmp_path / "odd", np.uint8, "r")
    tensor = FrozenMemory().tensor(Source(mapped[1:].view(np.float32)), "w")
    assert np.array_equal(tensor.numpy(), data)


def test_state_that_is_loaded_does_not_touch_the_file(path: Path) -> None:
    module, other = (module_from_model(load(path), frozen=["w"]) for _ in range(2))
    state = {name: torch.zeros_like(one) for name, one in module.state_dict().items()}
    before = path.read_bytes()
    module.load_state_dict(state)
    x = weights(2, 64)
    assert not run_module(module, {"x": x})["y"].any()
    assert run_module(other, {"x": x})["y"].any()
    assert path.read_bytes() == before


MEASURE = """
import sys, numpy as np, torch
from pathlib import Path
from onnxprune_passes.storage import load
from onnxprune.torch import module_from_model
def own():
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return (int(found["RssAnon"].split()[0]) + int(found["RssShmem"].split()[0])) / 1024
module_from_model(load(sys.argv[2]), check=False)
before = own()
module = module_from_model(load(sys.argv[1]), check=False, frozen=sys.argv[3:])
with torch.no_grad():
    module(torch.zeros(1, 2048))
print(own() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_frozen_weights_take_no_memory_of_their_own(make: Make, tmp_path: Path) -> None:
    """64 MB of weights; measured in a process of its own, as memory that is not a page of a file."""
    body = "a = MatMul(x, u) b = MatMul(a, v) c = MatMul(b, w) y = MatMul(c, z)"
    named = {name: weights(2048, 2048) for name in "uvwz"}
    model = make(body, "float[N, 2048] x", "float[N, 2048] y", named)
    large = save(model, tmp_path / "large.onnx", external=True)
    tiny = make("y = MatMul(x, w)", "float[N, 2] x", "float[N, 2] y", {"w": weights(2, 2)})
    small = save(tiny, tmp_path / "small.onnx")

    def megabytes(*frozen: str) -> float:
        command = [sys.executable, "-W", "error", "-c", MEASURE, str(large), str(small), *frozen]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert megabytes("*") < 16
    assert 64 <= megabytes() < 80
