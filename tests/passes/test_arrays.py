from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from builders import ramp
from hypothesis import given
from hypothesis import strategies as st
from onnxprune_passes.arrays import CHUNK, Array, Bits, Masked, NDArray, as_source, bits_of, map_file, zero_where_pruned
from strategies import FLOATS, integers_as

SIZES = [0, 1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3]


def packed(keep: NDArray) -> Bits:
    return np.packbits(keep.reshape(-1), bitorder="little")


def test_chunks_begin_on_a_byte_of_a_packed_mask() -> None:
    assert CHUNK % 8 == 0


@pytest.mark.parametrize("size", SIZES)
def test_chunks_put_together_are_the_array(size: int) -> None:
    values = ramp(size)
    keep = np.arange(size) % 5 > 1
    for source, expected in ((Array(values), values), (Masked(Array(values), packed(keep)), values * keep)):
        chunks = list(source.chunks())
        assert [len(chunk) for chunk in chunks[:-1]] == [CHUNK] * (len(chunks) - 1)
        assert np.array_equal(np.concatenate([np.empty(0, np.float32), *chunks]), expected)
        assert np.array_equal(source.array(), expected)
        assert (source.size, source.shape, source.dtype) == (size, (size,), np.dtype(np.float32))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (2, 1, 5)])
def test_shapes_come_back(shape: tuple[int, ...]) -> None:
    values = ramp(*shape)
    masked = Masked(Array(values), packed(np.ones(shape, np.bool_)))
    assert masked.array().shape == Array(values).array().shape == shape
    assert np.array_equal(masked.array(), values)


def test_arrays_are_not_copied_and_not_written_to() -> None:
    values = ramp(10)
    source = as_source(values)
    assert np.shares_memory(source.array(), values)
    assert np.shares_memory(next(iter(source.chunks())), values)
    for array in (source.array(), Masked(Array(values), packed(values > 3)).array()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
    values[0] = 7  # the caller's own array stays writable


def test_unaligned_memory_is_read_right() -> None:
    buffer = b"?" + ramp(100).tobytes()
    values = np.frombuffer(buffer, np.uint8)[1:].view(np.float32)
    assert not values.flags.aligned
    (chunk,) = Array(values).chunks()
    assert chunk.flags.aligned
    assert np.array_equal(chunk, ramp(100))


@pytest.mark.parametrize("dtype", [*FLOATS, np.int8, np.uint8, np.int16])
@given(data=st.data())
def test_a_masked_source_is_the_product_with_the_mask(dtype: Any, data: st.DataObject) -> None:
    values = data.draw(integers_as(dtype, st.sampled_from([(3, 5), (1,), (16,)])))
    keep = data.draw(
        st.sampled_from([values.astype(np.float64) > 1, np.zeros(values.shape, bool), np.ones(values.shape, bool)])
    )
    found = Masked(Array(values), packed(keep)).array()
    assert found.dtype == values.dtype
    assert np.array_equal(found, np.where(keep, values, np.zeros((), dtype)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_pruned_entries_are_positive_zero_whatever_they_were(dtype: Any) -> None:
    values = np.array([np.nan, -0.0, np.inf, -3, 5], dtype)
    zeroed = zero_where_pruned(values, np.array([0, 0, 0, 0, 1], np.uint8))
    assert bits_of(zeroed)[:4].tolist() == [0, 0, 0, 0]
    assert zeroed[4] == 5
    kept = zero_where_pruned(values, np.ones(5, np.uint8))
    assert kept.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "fill",
    [np.array(7, np.int8), np.array([[7]], np.int8), np.array([[1], [2], [3]], np.int8), np.array([[1, 2]], np.int64)],
)
def test_a_fill_is_laid_along_the_tensor(fill: NDArray) -> None:
    values = np.array([[10, 20], [30, 40], [50, 60]], np.int8)
    keep = np.array([[True, False], [False, True], [True, False]])
    masked = Masked(Array(values), packed(keep), fill)
    assert masked.array().dtype == np.int8
    assert np.array_equal(masked.array(), np.where(keep, values, fill))
    assert b"".join(chunk.tobytes() for chunk in masked.chunks()) == masked.array().tobytes()


def test_a_fill_goes_with_the_chunks() -> None:
    values = np.zeros((3, CHUNK), np.uint8)
    fill = np.array([[1], [2], [3]], np.uint8)
    masked = Masked(Array(values), packed(np.zeros(values.shape, np.bool_)), fill)
    assert np.array_equal(masked.array(), np.broadcast_to(fill, values.shape))


def test_bits_are_a_view_of_any_width() -> None:
    values = np.array([1.0, -2.0], ml_dtypes.bfloat16)
    assert bits_of(values).tolist() == [0x3F80, 0xC000]
    assert np.shares_memory(bits_of(values), values)
    assert bits_of(np.array([-1], np.int8)).tolist() == [255]
    assert bits_of(np.array([1.0])).dtype == np.uint64


def test_sources_are_made_as_onnx_stores_them() -> None:
    transposed = ramp(3, 4).T
    assert as_source(transposed).array().flags.c_contiguous
    assert np.array_equal(as_source(transposed).array(), transposed)
    swapped = ramp(3).astype(">f4")
    assert as_source(swapped).dtype == np.dtype("<f4")
    assert next(iter(as_source(swapped).chunks())).tobytes() == ramp(3).tobytes()
    source = Array(ramp(3))
    assert as_source(source) is source


def test_an_empty_file_maps_to_no_bytes(tmp_path: Any) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(b"abc")
    assert map_file(tmp_path / "empty").size == 0
    assert map_file(tmp_path / "full").tobytes() == b"abc"
    with pytest.raises(FileNotFoundError):
        map_file(tmp_path / "gone")
