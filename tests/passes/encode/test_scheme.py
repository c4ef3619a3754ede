from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxprune_passes.arrays import Array, NDArray
from onnxprune_passes.encode import CODINGS, SCHEMES, Bitmask, Coding, Gaps, Rice, Scheme, count, scheme_of, values_of
from onnxprune_passes.encode.limits import MAX_SIZE
from onnxprune_passes.encode.rice_codes import RiceCodes, is_rice_codes
from onnxprune_passes.errors import EncodeError


@dataclass(frozen=True, eq=False)
class Pieces:
    """A source that gives its values in pieces of the lengths asked for, over and over."""

    values: NDArray
    lengths: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    @property
    def size(self) -> int:
        return self.values.size

    def chunks(self) -> Iterator[NDArray]:
        flat, start, turn = self.values.reshape(-1), 0, 0
        while start < flat.size:
            length = self.lengths[turn % len(self.lengths)]
            yield flat[start : start + length]
            start, turn = start + length, turn + 1

    def array(self) -> NDArray:
        return self.values


@dataclass(frozen=True)
class Huge:
    """A tensor that says it is huge and must not be read."""

    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def size(self) -> int:
        return int(np.prod([float(dim) for dim in self.shape]))

    def chunks(self) -> Iterator[NDArray]:
        raise AssertionError("was read")

    def array(self) -> NDArray:
        raise AssertionError("was read")


def sparse(size: int, density: float, seed: int) -> NDArray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(size) < density, rng.standard_normal(size), 0).astype(np.float32)


def test_kept_means_bits_that_are_not_zero() -> None:
    bits = np.array([0, 0x80000000, 1, 0x7FC00001, 0xFFC00001, 0x7F800001, 0x3F800000, 0], np.uint32)
    counts = count(Array(bits.view(np.float32)))
    assert counts.kept == 6
    assert set(counts.escapes.values()) == {0}


@pytest.mark.parametrize(
    ("gap", "escapes4", "escapes8"),
    [(0, 0, 0), (14, 0, 0), (15, 1, 0), (29, 1, 0), (30, 2, 0), (254, 16, 0), (255, 17, 1), (600, 40, 2)],
)
def test_escapes_are_counted_for_both_widths(gap: int, escapes4: int, escapes8: int) -> None:
    values = np.zeros(gap + 1 + 700, np.int8)
    values[gap] = 7
    counts = count(Array(values))
    assert (counts.kept, counts.escapes[4], counts.escapes[8]) == (1, escapes4, escapes8)


def test_counts_do_not_read_the_zeros_after_the_last_kept_entry() -> None:
    counts = count(Array(np.zeros((40, 50), np.float16)))
    assert (counts.kept, counts.size) == (0, 2000)
    assert set(counts.escapes.values()) == {0}


@given(
    size=st.integers(1, 3000),
    density=st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=4),
)
@settings(max_examples=30, deadline=None)
def test_nothing_depends_on_how_the_source_is_cut(size: int, density: float, seed: int, lengths: list[int]) -> None:
    values = sparse(size, density, seed)
    whole, pieces = Array(values), Pieces(values, tuple(lengths))
    assert count(pieces) == count(whole)
    counts = count(whole)
    for coding in CODINGS:
        if not coding.supports(counts, 17):
            continue
        expected, found = coding.encode(whole), coding.encode(pieces)
        assert [part.tobytes() for part in found.inputs] == [part.tobytes() for part in expected.inputs]


@given(size=st.integers(1, 500), density=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_layout_is_what_encode_builds(size: int, density: float, seed: int) -> None:
    source = Array(sparse(size, density, seed))
    counts = count(source)
    for coding in CODINGS:
        if not coding.supports(counts, 17):
            continue
        encoded = coding.encode(source, counts)
        layout = [(part.dtype, part.shape) for part in coding.layout(counts)]
        assert [(part.dtype, part.shape) for part in encoded.inputs] == layout
        assert encoded.nbytes == sum(part.nbytes for part in encoded.inputs)
        assert (encoded.scheme, encoded.shape, encoded.dtype) == (coding.name, source.shape, source.dtype)
        assert len(coding.suffixes) == len(layout)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize(
    ("shape", "dtype", "opset", "words"),
    [
        ((4, 8), np.float32, 10, "opset is 10"),
        ((4, 8), np.int32, 17, "dtype int32"),
        ((4, 8), np.complex64, 17, "dtype complex64"),
        ((4, 8), ">f4", 17, "dtype >f4"),
        ((2, 0, 3), np.float32, 17, "no entries"),
        ((), np.float32, 17, "no axis"),
        ((2**16, 2**15), np.float32, 17, "int32"),
        ((4, 8), ml_dtypes.bfloat16, 12, "bfloat16"),
    ],
)
def test_support_says_why_not(scheme: Scheme, shape: tuple[int, ...], dtype: Any, opset: int, words: str) -> None:
    support = scheme.supports(shape, np.dtype(dtype), opset)
    assert not support
    assert words in support.reason


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21, 26])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, np.uint8])
def test_every_scheme_supports_what_onnxruntime_runs(dtype: Any, opset: int) -> None:
    for scheme in SCHEMES:
        assert scheme.supports((4, 8), np.dtype(dtype), opset)
        assert scheme.supports((MAX_SIZE,), np.dtype(dtype), opset)


def test_bfloat16_is_for_the_bitmask_from_opset_13_on() -> None:
    dtype = np.dtype(ml_dtypes.bfloat16)
    assert [bool(Bitmask().supports((4,), dtype, opset)) for opset in (11, 12, 13, 26)] == [False, False, True, True]
    for scheme in (Gaps(2), Gaps(8), Rice()):
        assert "Expand" in scheme.supports((4,), dtype, 26).reason


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.name)
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Array(np.zeros((0, 3), np.float32)), "no entries"),
        (Array(np.zeros((4, 3), np.int64)), "dtype int64"),
        (Huge((2**16, 2**15)), "2147483648 entries"),
        (Huge((MAX_SIZE + 1,)), f"{MAX_SIZE + 1} entries"),
    ],
    ids=["empty", "int64", "2^31", "one too many"],
)
def test_encode_refuses_in_one_line(scheme: Scheme, source: Array | Huge, words: str) -> None:
    with pytest.raises(EncodeError, match=words) as caught:
        scheme.encode(source)
    assert "\n" not in str(caught.value)
    assert scheme.name in str(caught.value)


def test_count_takes_a_tensor_without_entries_but_no_other_that_encode_refuses() -> None:
    assert count(Array(np.zeros((0, 3), np.float32))).kept == 0
    with pytest.raises(EncodeError, match="int64"):
        count(Array(np.zeros(3, np.int64)))
    with pytest.raises(EncodeError, match="int32"):
        count(Huge((2**20, 2**20)))


@pytest.mark.parametrize("scheme", [one for one in SCHEMES if not one.stores_zeros], ids=lambda scheme: scheme.name)
def test_counts_of_other_values_are_noticed(scheme: Scheme) -> None:
    values = sparse(500, 0.3, 1)
    counts = count(Array(values))
    fewer, more = values.copy(), values.copy()
    fewer[np.flatnonzero(values)[-1]] = 0
    more[np.flatnonzero(values == 0)[0]] = 1
    for other in (fewer, more, np.zeros_like(values), np.ones_like(values)):
        with pytest.raises(EncodeError, match="counted"):
            scheme.encode(Array(other), counts)
    for other in (values.reshape(50, 10), values.view(np.uint8)[:500]):
        with pytest.raises(EncodeError, match="count again"):
            scheme.encode(Array(other), counts)


@pytest.mark.parametrize("coding", [one for one in CODINGS if one != RiceCodes()], ids=lambda coding: coding.name)
def test_nodes_lead_back_to_their_schemes(coding: Coding) -> None:
    *before, node = coding.nodes("0", "w")
    names = dict(zip(coding.suffixes, coding.part_names("0"), strict=True))
    width = getattr(coding.index, "width", 1), getattr(coding.values, "width", 1)
    rows = {"gaps": (width[0], 5, 1), "table": (5, width[0]), "codes": (width[1], 5, 1), "exponents": (width[1], 5, 1)}
    shape_of = {name: rows.get(suffix, (5,)) for suffix, name in names.items()}

    def shapes(one: onnx.NodeProto) -> list[tuple[int, ...]]:
        return [shape_of.get(name, ()) for name in one.input]

    assert (scheme_of(node, shapes(node)), values_of(node, shapes(node))) == (coding.index, None)
    assert [values_of(one, shapes(one)) for one in before] == [scheme for scheme in (coding.values,) if scheme]
    assert [scheme_of(one, shapes(one)) for one in before] == [None] * len(before)
    assert list(node.input) == [names.get(suffix, "0v") for suffix in coding.index.suffixes]
    assert list(node.output) == ["w"]
    parts = {name for one in (*before, node) for name in one.input} - {name for one in before for name in one.output}
    assert parts == set(coding.part_names("0"))
    for one in (*before, node):
        one.domain = "elsewhere"
        assert (scheme_of(one), values_of(one)) == (None, None)


def test_the_node_of_rice_codes_is_no_schemes() -> None:
    (node,) = RiceCodes().nodes("0", "w")
    assert (scheme_of(node), values_of(node), is_rice_codes(node)) == (None, None, True)
    node.domain = "elsewhere"
    assert (scheme_of(node), values_of(node), is_rice_codes(node)) == (None, None, False)


def test_an_unknown_decoder_is_an_error() -> None:
    (node,) = Coding(Gaps(4)).nodes("0", "w")
    node.op_type = "DecodeRanges"
    with pytest.raises(EncodeError, match=r"DecodeRanges.*another version"):
        scheme_of(node)
