from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import NDArray, matmuls, proto, ramp, stored, value
from onnx import helper
from onnxprune_passes.fixed import fixed_transform
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.storage import from_proto, load
from onnxprune_passes.weights import find_weights


def looks(weight: NDArray, user: Any = None) -> str | None:
    """What a weight of shape [in, out], or the weight `w` of the node `user`, looks like."""
    model = matmuls({"w": weight})
    if user is not None:
        model = from_proto(proto([user], [stored("w", weight)], inputs=[value("x", None)]))
    (found,) = find_weights(model)
    return fixed_transform(model, found)


def dft(length: int, window: bool = False) -> NDArray:
    """Cosines and sines of every frequency, [2 (length / 2 + 1), length]."""
    phase = 2 * np.pi * np.outer(np.arange(length // 2 + 1), np.arange(length)) / length
    basis = np.concatenate([np.cos(phase), np.sin(phase)])
    if window:
        basis *= 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return basis.astype(np.float32)


def triangles(edges: NDArray, bins: int) -> NDArray:
    """One triangle between every three neighbours of `edges`, [len(edges) - 2, bins]."""
    at = np.arange(bins)
    rise = (at - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - at) / np.diff(edges)[1:, None]
    bank: NDArray = np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)
    return bank


def mel(filters: int, bins: int, rate: float = 16_000) -> NDArray:
    top = 2595 * np.log10(1 + rate / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, filters + 2) / 2595) - 1)
    return triangles(hertz / (rate / 2) * (bins - 1), bins)


def trained(*shape: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("length", [32, 64, 256, 512])
@pytest.mark.parametrize("window", [False, True])
def test_fourier_bases_are_found(length: int, window: bool) -> None:
    basis = dft(length, window)
    assert looks(basis.T) == "sinusoids"
    assert looks(basis[: length // 2 + 1].T) == "sinusoids"
    assert looks(basis[:, None, :], helper.make_node("Conv", ["x", "w"], ["y"])) == "sinusoids"
    assert looks(basis[:, None, None, :], helper.make_node("Conv", ["x", "w"], ["y"])) == "sinusoids"
    assert looks(basis, helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)) == "sinusoids"
    assert looks(basis[None, :, :].astype(np.float64).swapaxes(1, 2)) in ("sinusoids", None)  # a stack of one


def test_a_basis_of_few_tones_over_octaves_is_found() -> None:
    time = np.arange(256)
    tones = np.array([np.cos(2 * np.pi * 0.02 * 2 ** (k / 12) * time) * np.hanning(256) for k in range(36)], np.float32)
    assert looks(tones.T) == "sinusoids"


def test_a_basis_with_a_few_other_rows_is_found() -> None:
    basis = dft(128)
    basis[::12] = trained(11, 128)  # 8 %
    assert looks(basis.T) == "sinusoids"
    basis[::6] = trained(22, 128)  # 17 %
    assert looks(basis.T) is None


@pytest.mark.parametrize(("filters", "bins"), [(24, 129), (40, 257), (64, 257), (80, 513), (128, 513)])
def test_mel_banks_are_found_whichever_way_they_lie(filters: int, bins: int) -> None:
    bank = mel(filters, bins)
    assert looks(bank) == "triangular filters"
    assert looks(bank.T) == "triangular filters"
    assert looks(bank.astype(np.float64)) == "triangular filters"
    area = bank / np.maximum(bank.sum(axis=1, keepdims=True), 1e-9)  # of equal area, as some make them
    assert looks(area.T) == "triangular filters"


@pytest.mark.parametrize("size", [8, 64, 512])
@pytest.mark.parametrize("diagonal", [0, 1])
@pytest.mark.parametrize(("low", "high"), [(1, 0), (0, -1e9), (0, 1), (-3, 7)])
def test_triangular_masks_are_found(size: int, diagonal: int, low: float, high: float) -> None:
    square = np.where(np.tri(size, k=-diagonal, dtype=np.bool_), np.float32(low), np.float32(high))
    assert looks(square) == "triangular mask"
    assert looks(square.T.copy()) == "triangular mask"


def test_a_mask_with_one_entry_out_of_place_is_none() -> None:
    for at in ((0, 0), (5, 2), (2, 5), (63, 0), (0, 63)):
        square = np.where(np.tri(64, dtype=np.bool_), np.float32(1), np.float32(-2))
        square[at] += 1
        assert looks(square) is None


def learned() -> dict[str, NDArray]:
    """Weights that training makes, some of them smooth, sparse or of one sign."""
    chance = np.random.default_rng(3)
    low = np.zeros((64, 129), np.complex128)
    low[:, :3] = chance.standard_normal((64, 3)) + 1j * chance.standard_normal((64, 3))
    kernel = np.hanning(17) / np.hanning(17).sum()
    smooth = np.array([np.convolve(row, kernel, "same") for row in chance.standard_normal((64, 128))])
    sparse = chance.standard_normal((64, 128)) * (chance.random((64, 128)) < 0.05)
    rows = np.zeros((64, 128))
    rows[np.arange(64), chance.integers(0, 128, 64)] = 1
    return {
        "random": chance.standard_normal((64, 128)),
        "uniform": chance.uniform(-1, 1, (64, 128)),
        "low rank": chance.standard_normal((64, 3)) @ chance.standard_normal((3, 128)),
        "low-pass": np.fft.irfft(low, 256),
        "smoothed": smooth,
        "walks": np.cumsum(np.cumsum(chance.standard_normal((64, 128)), axis=1), axis=1),
        "averages": np.full((64, 128), 1 / 128) + chance.standard_normal((64, 128)) * 1e-4,
        "pruned": sparse,
        "pruned, one sign": np.abs(sparse),
        "one entry a row": rows,
        "non-negative": np.abs(chance.standard_normal((64, 128))),
        "all zero": np.zeros((64, 128)),
        "all one": np.ones((64, 64)),
        "ramp": np.arange(64 * 128).reshape(64, 128),
        "half a ramp": np.maximum(np.arange(64 * 128) - 5000, 0).reshape(64, 128),
        "lower triangle": np.tril(chance.standard_normal((64, 64))),
    }


@pytest.mark.parametrize("name", learned())
def test_what_training_makes_is_not_fixed(name: str) -> None:
    weight = learned()[name].astype(np.float32)
    assert looks(weight) is None
    assert looks(weight.T.copy()) is None
    assert looks(weight[:, None, :], helper.make_node("Conv", ["x", "w"], ["y"])) is None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rows", [8, 16, 64])
def test_smooth_filters_are_not_sinusoids_whatever_the_seed(seed: int, rows: int) -> None:
    chance = np.random.default_rng(seed)
    for bins in (2, 3):
        spectrum = np.zeros((rows, 33), np.complex128)
        spectrum[:, :bins] = chance.standard_normal((rows, bins)) + 1j * chance.standard_normal((rows, bins))
        assert looks(np.fft.irfft(spectrum, 64).astype(np.float32).T.copy()) is None


def test_pruned_transforms_are_told_by_the_values_they_had() -> None:
    basis = dft(64).T.copy()
    model = matmuls({"w": basis})
    masked = apply_masks(model, Masks({"w": np.abs(basis) > 0.9}))
    (weight,) = find_weights(masked)
    assert fixed_transform(masked, weight) == "sinusoids"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight", [trained(64, 64), dft(64).T.copy(), mel(24, 129), np.tri(64, dtype=np.float32)])
def test_nan_and_infinity_make_no_noise(weight: NDArray, bad: float) -> None:
    for rows in (slice(0, 1), slice(0, 40)):
        broken = weight.copy()
        broken[rows] = bad
        assert looks(broken) in (None, looks(weight))  # and no warning: those are errors here


@pytest.mark.parametrize("weight", [ramp(7, 64), np.ones((0, 64), np.float32), ramp(100), ramp(4, 4), ramp(1, 1)])
def test_small_weights_are_not_looked_at(weight: NDArray) -> None:
    assert looks(weight) is None


def test_image_filters_recurrent_and_quantised_weights_are_not_looked_at() -> None:
    assert looks(dft(64).reshape(66, 1, 8, 8), helper.make_node("Conv", ["x", "w"], ["y"])) is None
    gates = np.concatenate([dft(64)[:64]] * 4).reshape(1, 256, 64)
    assert looks(gates, helper.make_node("LSTM", ["x", "w", "x"], ["y"])) is None
    assert looks((dft(64) * 100).astype(np.int8), helper.make_node("ConvInteger", ["x", "w"], ["y"])) is None


FIXED = {
    "basic_pitch_nmp": {"const_fold_opt__664", "const_fold_opt__655"},
    "gtcrn_simple": {"onnx::MatMul_3414", "onnx::MatMul_3932"},
    "silero_vad": {"else_branch", "then_branch"},
    "silero_vad_16k_op15": {"model.stft.forward_basis_buffer"},
}


@pytest.mark.corpus
def test_the_corpus_holds_the_known_transforms_and_no_other(corpus_path: Path) -> None:
    model = load(corpus_path)
    found = [weight.key for weight in find_weights(model) if fixed_transform(model, weight)]
    if corpus_path.stem == "silero_vad":
        assert all(key.endswith("stft.forward_basis_buffer") for key in found)
        found = [key.split("/")[0].rpartition(".")[2] for key in found]
    assert sorted(found) == sorted(FIXED.get(corpus_path.stem, ()))
