"""The loops of docs/training-loops.md run as they stand there, and hold the masks."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load, save
from onnxprune_passes.thresholds import Sparsity

from onnxprune.runtime import open_session, run

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "training-loops.md").read_text()
BLOCKS = dict(re.findall(r"^## ([\w ]+)\n(?:(?!^## ).*\n)*?```python\n((?:.*\n)*?)```", PAGE, re.MULTILINE))
DATASET = """
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(512, 1, 4, 4)
labels = 1 + (x[:, 0, 1:3].sum((1, 2)) > 1).long() - (x[:, 0, 1:3].sum((1, 2)) < -1).long()
dataset = torch.utils.data.TensorDataset(x, labels)
"""


def test_every_loop_is_there() -> None:
    assert set(BLOCKS) == {"Plain torch", "accelerate", "Lightning"}


def accuracy(path: Path) -> float:
    """On other samples of the same kind."""
    x = np.random.default_rng(5).standard_normal((500, 1, 4, 4)).astype(np.float32)
    total = x[:, 0, 1:3].sum((1, 2))
    with open_session(path, optimize=True, threads=1) as session:
        found = run(session, {"x": x})["y"].argmax(1)
    return float((found == 1 + (total > 1) * 1 - (total < -1) * 1).mean())


@pytest.fixture
def classifier(make: Callable[..., Model], weights: Callable[..., Any]) -> Model:
    """Conv, Relu, two Gemms, Softmax; scaled so that it trains."""
    body = """
        c = Conv<pads = [1, 1, 1, 1]>(x, cw)  r = Relu(c)  f = Flatten(r)
        h = Gemm<transB = 1>(f, w, b)  a = Relu(h)  l = Gemm<transB = 1>(a, u, ub)  y = Softmax(l)"""
    named = {
        **{"cw": weights(8, 1, 3, 3) / 2, "w": weights(32, 128, seed=1) / 8, "u": weights(3, 32, seed=2) / 4},
        **{"b": np.zeros(32, np.float32), "ub": np.zeros(3, np.float32)},
    }
    return make(body, "float[N, 1, 4, 4] x", "float[N, 3] y", named)


@pytest.mark.parametrize("name", ["Plain torch", "accelerate", "Lightning"])
def test_a_loop_of_the_page(name: str, classifier: Model, tmp_path: Path) -> None:
    package = {"Plain torch": "torch"}.get(name, name.lower())
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    save(classifier, tmp_path / "model.onnx")
    (tmp_path / "loop.py").write_text(DATASET + BLOCKS[name])
    done = subprocess.run(
        [sys.executable, "loop.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    pruned = MagnitudePrune(Sparsity(0.8))(State(classifier))
    save(pruned.model, tmp_path / "pruned.onnx")
    after = load(tmp_path / "retrained.onnx")
    for key in pruned.masks:
        keep = pruned.masks[key]
        assert not after.initializers[key][~keep].view(np.uint32).any()
        assert (after.initializers[key][keep] != classifier.initializers[key][keep]).mean() > 0.5
    assert accuracy(tmp_path / "retrained.onnx") > accuracy(tmp_path / "pruned.onnx") + 0.25
