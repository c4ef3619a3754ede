"""Small networks that the training tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

Array = npt.NDArray[Any]
Weights = Callable[..., Array]


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
