from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxprune_passes import sharing
from onnxprune_passes.arrays import Array
from onnxprune_passes.encode import encode_model
from onnxprune_passes.errors import PassError
from onnxprune_passes.pipeline import Change, Pass, Skip, State
from onnxprune_passes.sharing import codebook, codebooks, shared
from onnxprune_passes.storage import from_proto
from onnxprune_passes.values import RoundValues, ShareValues

NDArray = npt.NDArray[Any]
TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,40] x) => (float[N,50] y) {
  h = MatMul(x, w)
  y = Add(h, b)
}"""


def state_of(weight: NDArray) -> State:
    proto = onnx.parser.parse_model(TEXT)
    bias = np.linspace(0.1, 0.9, 50).astype(np.float32)
    proto.graph.initializer.extend([numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")])
    return State(from_proto(proto))


def sparse(density: float = 0.3, seed: int = 0) -> NDArray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random((40, 50)) < density, rng.standard_normal((40, 50)), 0).astype(np.float32)


def slow_kmeans(values: NDArray, entries: int) -> NDArray:
    """Lloyd's iterations on the values themselves, begun linearly."""
    wide = np.sort(values.astype(np.float64))
    centres = np.linspace(wide[0], wide[-1], entries)
    for _ in range(200):
        nearest = np.abs(wide[:, None] - centres).argmin(axis=1)
        moved = np.array([wide[nearest == i].mean() if np.any(nearest == i) else c for i, c in enumerate(centres)])
        if np.allclose(moved, centres, rtol=0, atol=1e-15):
            break
        centres = moved
    return centres


def error_of(values: NDArray, centres: NDArray) -> float:
    return float(np.mean(np.min((values[:, None].astype(np.float64) - centres) ** 2, axis=1)))


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 300), bits=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_the_codebook_is_as_good_as_plain_k_means(seed: int, size: int, bits: int) -> None:
    values = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    entries = 2**bits - 1
    table = codebook(Array(values), entries)
    assert table.dtype == np.float32
    assert table.size <= entries
    assert np.all(np.diff(table) > 0)
    assert not np.any(table == 0)
    assert error_of(values, table) <= 1.02 * error_of(values, slow_kmeans(values, entries)) + 1e-6


def test_of_several_beginnings_the_best_is_taken() -> None:
    """Clusters begun linearly end worse where a few values lie far out."""
    values = np.random.default_rng(0).standard_t(3, 4000).astype(np.float32)
    assert error_of(values, codebook(Array(values), 63)) < 0.8 * error_of(values, slow_kmeans(values, 63))


def test_codebooks_of_several_sizes_are_those_of_each() -> None:
    values = Array(sparse())
    for table, size in zip(codebooks(values, (1, 7, 255)), (1, 7, 255), strict=True):
        assert np.array_equal(table, codebook(values, size))


def test_few_distinct_values_stay_what_they_are() -> None:
    values = np.array([0, 3, -2, 3, 0, 1e-30, 7, 1 / 3], np.float32)
    assert codebook(Array(values), 7).tolist() == np.unique(values[values != 0]).tolist()
    assert shared(Array(values), codebook(Array(values), 7))[0].tolist() == values.tolist()


def test_a_centre_is_never_zero() -> None:
    """Entries that share it would count as pruned."""
    values = np.array([-1, 1, -2, 2, 4, -4], np.float32)
    table = codebook(Array(values), 1)
    assert np.all(shared(Array(values), table)[0] != 0)


def test_codes_sum_gradients_for_each_entry_of_the_table() -> None:
    weight = sparse()
    table = codebook(Array(weight), 15)
    found, codes = shared(Array(weight), table)
    assert np.array_equal(np.concatenate(([0], table))[codes], found)
    assert np.array_equal(codes == 0, weight == 0)
    gradient = np.random.default_rng(1).standard_normal(weight.shape)
    sums = np.bincount(codes.reshape(-1), weights=gradient.reshape(-1), minlength=table.size + 1)[1:]
    moved = [float(np.sum(gradient[found == entry])) for entry in table]
    assert sums == pytest.approx(moved)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(2).standard_normal(200_000).astype(np.float32)
    whole = codebook(Array(weight), 15)
    monkeypatch.setattr(sharing, "_BLOCK", 70_000)
    assert codebook(Array(weight), 15) == pytest.approx(whole, rel=1e-6)


def test_nothing_kept_and_what_cannot_be_shared() -> None:
    assert codebook(Array(np.zeros(9, np.float32)), 15).size == 0
    with pytest.raises(PassError, match="infinite or NaN"):
        codebook(Array(np.array([1, np.inf], np.float32)), 15)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_sharing_a_weight(bits: int) -> None:
    state = state_of(sparse())
    done = ShareValues(bits)(state)
    before, after = state.model.initializers, done.model.initializers
    assert np.unique(after["w"][after["w"] != 0]).size <= 2**bits - 1
    assert np.array_equal(after["w"] == 0, before["w"] == 0)
    assert after["b"].tobytes() == before["b"].tobytes()
    assert [type(entry) for entry in done.log] == [Change]
    assert ShareValues(bits)(done) is done
    (stored,) = encode_model(done.model).tensors
    assert stored.scheme.endswith(f"+codes{bits}")


def test_an_error_takes_the_fewest_bits_that_keep_it() -> None:
    state = state_of(sparse(1.0))
    weight = state.model.initializers["w"]

    def distinct_and_error(share: float) -> tuple[int, float]:
        found = ShareValues(8, error=share)(state).model.initializers["w"]
        error = np.sqrt(np.sum((found - weight) ** 2) / np.sum(weight**2))
        return np.unique(found).size, float(error)

    sizes = []
    for share in (0.5, 0.1, 0.02):
        size, error = distinct_and_error(share)
        assert error <= share
        sizes.append(size)
    assert sizes == sorted(sizes)
    assert sizes[0] < 16 < sizes[-1] <= 255
    assert distinct_and_error(1e-6)[0] > 127  # not within reach: the most bits


@pytest.mark.parametrize(("to", "dtype"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_rounding_a_weight(to: Any, dtype: Any) -> None:
    state = state_of(sparse())
    done = RoundValues(to)(state)
    expected = state.model.initializers["w"].astype(dtype).astype(np.float32)
    assert np.array_equal(done.model.initializers["w"], expected)
    assert done.model.initializers["b"].tobytes() == state.model.initializers["b"].tobytes()
    assert RoundValues(to)(done) is done


@pytest.mark.parametrize(
    ("one", "entry", "reason"),
    [(RoundValues("f16"), 70_000, "beyond the range of float16"), (ShareValues(4), np.nan, "infinite or NaN")],
)
def test_what_cannot_be_changed_is_left_alone(one: Pass, entry: float, reason: str) -> None:
    weight = sparse()
    weight[0, 0] = entry
    state = state_of(weight)
    done = one(state)
    assert done.model is state.model
    (skip,) = done.log
    assert isinstance(skip, Skip)
    assert (skip.by, skip.name, reason in skip.reason) == (one.name, "w", True)


@pytest.mark.parametrize(("bits", "error"), [(0, None), (9, None), (4, 0.0), (4, 1.0)])
def test_options_out_of_range(bits: int, error: float | None) -> None:
    with pytest.raises(PassError, match="expected"):
        ShareValues(bits, error=error)
