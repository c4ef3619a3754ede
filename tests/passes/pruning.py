"""What the tests of magnitude pruning share."""

from __future__ import annotations

from typing import Any

import numpy as np
from builders import NDArray, matmuls
from hypothesis import strategies as st
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.pipeline import State
from onnxprune_passes.thresholds import NM, Absolute, Quality, Sparsity, Threshold

SPARSITIES = st.sampled_from([0.0, 0.05, 0.5, 0.9, 0.999]) | st.floats(0, 0.999)
THRESHOLDS: list[Threshold] = [
    Sparsity(0.6),
    Sparsity(0.6, score="magnitude"),
    Sparsity(0.6, scope="layer"),
    Quality(0.8),
    Absolute(20),
    NM(2, 4),
]


def random_weights(*shapes: tuple[int, ...], dtype: Any = np.float32) -> dict[str, NDArray]:
    chance = np.random.default_rng(len(shapes))
    return {f"w{i}": (chance.standard_normal(shape) * 10**i).astype(dtype) for i, shape in enumerate(shapes)}


def pruned(weights: dict[str, NDArray], prune: MagnitudePrune) -> dict[str, NDArray]:
    after = prune(State(matmuls(weights))).model
    assert set(after.initializers) == set(weights)
    return dict(after.initializers)


def zeroed(weights: dict[str, NDArray], keep: list[NDArray]) -> dict[str, NDArray]:
    zero = {key: np.zeros((), array.dtype) for key, array in weights.items()}
    return {key: np.where(mask, weights[key], zero[key]) for key, mask in zip(weights, keep, strict=True)}


def assert_equal(found: dict[str, NDArray], expected: dict[str, NDArray]) -> None:
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        assert np.array_equal(found[key], array), key
