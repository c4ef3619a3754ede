"""Small networks that the training tests share, and the digits of scikit-learn to train them on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import save
from onnxprune_passes.thresholds import Sparsity

from onnxprune.runtime import input_specs
from onnxprune.samples import Samples, read_samples

Array = npt.NDArray[Any]
Weights = Callable[..., Array]
Make = Callable[..., Model]

SMALL = """c = Conv<pads = [1, 1, 1, 1]>(x, conv.weight, conv.bias)
    n = BatchNormalization(c, scale, shift, mean, var) r = Relu(n)
    p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
    f = Flatten(p) h = Gemm<transB = 1>(f, fc1.weight, fc1.bias) a = Relu(h)
    y = Gemm<transB = 1>(a, fc2.weight, fc2.bias)"""


@pytest.fixture(scope="session")
def weights() -> Weights:
    """Seeded normal numbers of a shape."""

    def made(*shape: int, seed: int = 0) -> Array:
        return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

    return made


@pytest.fixture
def convnet(make: Callable[..., Model], weights: Weights) -> Model:
    """Conv, BatchNorm, Relu, a fully connected layer of MatMul and Add, Relu, Gemm, Softmax."""
    body = """
        c = Conv<pads = [1, 1, 1, 1]>(x, cw, cb)
        n = BatchNormalization(c, s, o, m, v)
        r = Relu(n)
        k = Flatten(r)
        p = MatMul(k, w)
        q = Add(p, wb)
        h = Relu(q)
        l = Gemm<transB = 1>(h, u, ub)
        y = Softmax(l)"""
    named = {
        **{"cw": weights(4, 1, 3, 3), "cb": weights(4, seed=1), "s": 1 + weights(4, seed=2) / 4},
        **{"o": weights(4, seed=3), "m": weights(4, seed=4), "v": 1 + abs(weights(4, seed=5))},
        **{"w": weights(64, 8, seed=6) / 8, "wb": weights(8, seed=7), "u": weights(3, 8, seed=8)},
        "ub": weights(3, seed=9),
    }
    return make(body, "float[N, 1, 4, 4] x", "float[N, 3] y", named)


@pytest.fixture
def masks() -> Masks:
    """A quarter of both fully connected weights is kept."""
    generator = np.random.default_rng(3)
    return Masks({"w": generator.random((64, 8)) < 0.25, "u": generator.random((3, 8)) < 0.25})


def small_weights(seed: int = 0) -> dict[str, Array]:
    """Weights of `SMALL`, scaled so that it trains."""
    rng = np.random.default_rng(seed)
    shapes = {"conv.weight": (4, 1, 3, 3), "fc1.weight": (16, 64), "fc2.weight": (10, 16)}
    made = {name: rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) / 2) for name, shape in shapes.items()}
    made |= {"conv.bias": np.zeros(4), "fc1.bias": np.zeros(16), "fc2.bias": np.zeros(10)}
    made |= {"scale": np.ones(4), "shift": np.zeros(4), "mean": np.zeros(4), "var": np.ones(4)}
    return {name: array.astype(np.float32) for name, array in made.items()}


@pytest.fixture(scope="session")
def small(make: Make) -> Model:
    """Conv, BatchNormalization, two Gemms: x [N, 1, 8, 8] -> y [N, 10], dense."""
    dotless = {name: name.replace(".", "_") for name in small_weights()}
    body = SMALL
    for name, plain in dotless.items():
        body = body.replace(name, plain)
    rename = {plain: name for name, plain in dotless.items()}
    return make(body, "float[N, 1, 8, 8] x", "float[N, 10] y", small_weights(), rename=rename)


@pytest.fixture(scope="session")
def pruned(small: Model) -> State:
    """The same at half of its weights."""
    return MagnitudePrune(Sparsity(0.5))(State(small))


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 digits of 8 x 8 pixels, x and labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    path: Path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, x=(found.images[:240, None] / 16).astype(np.float32), labels=found.target[:240])
    return path


@pytest.fixture(scope="session")
def digits(small: Model, digits_file: Path) -> Samples:
    """The same as samples."""
    return read_samples(str(digits_file), input_specs(save(small, digits_file.with_name("small.onnx"))))
