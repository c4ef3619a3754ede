"""All-zero slices and cut tensors, against numpy, for shapes that do and do not fit the chunks."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from onnxprune_passes.arrays import Array, Masked
from onnxprune_passes.neurons import slices
from onnxprune_passes.neurons.slices import ZeroSlices, cut, cut_bits, zero_slices

NDArray = npt.NDArray[Any]
VECTORS = [(1,), (7,), (64,)]
SHAPES = [*VECTORS, (3, 5), (5, 3), (8, 8), (1, 9), (9, 1), (2, 3, 4), (4, 1, 3, 3), (16, 2, 3, 5), (0, 3), (3, 0)]


@pytest.fixture(params=[8, 24, 1 << 20])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of 8 and 24 elements as well as the real size."""
    size = int(request.param)
    monkeypatch.setattr("onnxprune_passes.arrays.CHUNK", size)
    monkeypatch.setattr(slices, "CHUNK", size)
    return size


def sparse(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> NDArray:
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, shape).astype(dtype)
    for axis, size in enumerate(shape):
        values[(slice(None),) * axis + (rng.random(size) < 0.4,)] = 0
    return values


def expected(values: NDArray) -> list[npt.NDArray[np.bool_]]:
    axes = range(values.ndim)
    return [~(values != 0).any(axis=tuple(one for one in axes if one != axis)) for axis in axes]


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, ml_dtypes.bfloat16])
def test_zero_slices(shape: tuple[int, ...], dtype: Any) -> None:
    values = sparse(shape, dtype)
    for found, wanted in zip(zero_slices(Array(values)), expected(values), strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("shape", SHAPES)
def test_zero_slices_of_a_masked_tensor(shape: tuple[int, ...]) -> None:
    keep = np.random.default_rng(3).random(shape) < 0.3
    source = Masked(Array(np.ones(shape, np.float32)), np.packbits(keep.reshape(-1), bitorder="little"))
    for found, wanted in zip(zero_slices(source), expected(keep), strict=True):
        assert np.array_equal(found, wanted)


def test_negative_zero_is_zero_and_nan_is_not() -> None:
    rows, _ = zero_slices(Array(np.array([[-0.0, 0.0], [np.nan, 0.0], [1.0, -1.0]])))
    assert rows.tolist() == [True, False, False]


def test_each_source_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source, zeros = Array(np.zeros((2, 2))), ZeroSlices()
    first = zeros.of(source)
    monkeypatch.setattr(slices, "zero_slices", lambda _: pytest.fail("read again"))
    assert zeros.of(source) is first


def flags(shape: tuple[int, ...], axes: tuple[int, ...], seed: int) -> dict[int, npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    return {axis: rng.random(shape[axis]) < 0.6 for axis in axes}


def cut_by_numpy(values: NDArray, keep: dict[int, npt.NDArray[np.bool_]]) -> NDArray:
    for axis, kept in keep.items():
        values = values.compress(kept, axis=axis)
    return values


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("shape", SHAPES[3:-2])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1), (1, 0)])
@pytest.mark.parametrize("seed", range(4))
def test_cut(shape: tuple[int, ...], axes: tuple[int, ...], seed: int) -> None:
    values, keep = sparse(shape, seed=seed), flags(shape, axes, seed)
    after = cut(Array(values), keep)
    assert np.array_equal(after.array(), cut_by_numpy(values, keep))
    assert after.array().flags.c_contiguous


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("shape", SHAPES[3:-2])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_cut_of_a_masked_tensor_stays_masked(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    mask, keep = np.random.default_rng(5).random(shape) < 0.5, flags(shape, axes, 6)
    bits = np.packbits(mask.reshape(-1), bitorder="little")
    after = cut(Masked(Array(sparse(shape)), bits), keep)
    assert isinstance(after, Masked)
    assert np.array_equal(after.array(), cut_by_numpy(np.where(mask, sparse(shape), 0), keep))
    wanted = cut_by_numpy(mask, keep)
    assert np.array_equal(cut_bits(bits, shape, keep), np.packbits(wanted.reshape(-1), bitorder="little"))


def test_cut_of_a_filled_tensor_keeps_the_fill() -> None:
    bits = np.packbits(np.array([1, 0, 0, 1, 1, 0], np.uint8), bitorder="little")
    source = Masked(Array(np.arange(6, dtype=np.int8).reshape(2, 3)), bits, np.array([[7], [9]], np.int8))
    after = cut(source, {1: np.array([True, False, True])})
    assert after.array().tolist() == [[0, 7], [3, 9]]
