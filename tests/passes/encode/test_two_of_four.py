from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.arrays import CHUNK, Array, NDArray
from onnxprune_passes.encode import CODINGS, Coding, Split, TwoOfFour, choose, count, encode_model
from onnxprune_passes.encode.choose import priced
from onnxprune_passes.encode.compact import column_pattern
from onnxprune_passes.errors import EncodeError

Build = Callable[..., Any]
Exact = Callable[..., None]
Cut = Callable[[NDArray, tuple[int, ...]], Array]

POWERS = np.array([1, 2, 4], np.uint8)


def mask_of(*rows: int) -> NDArray:
    return np.array(rows, np.uint8).reshape(3, -1, 1)


def two_of_four(groups: int, seed: int = 0) -> NDArray:
    """A float32 vector of which two of each four entries are normally distributed, the others 0."""
    rng = np.random.default_rng(seed)
    kept = np.argsort(rng.random((groups, 4)), axis=1) < 2
    values: NDArray = np.where(kept, rng.standard_normal((groups, 4)), 0).astype(np.float32)
    return values.reshape(-1)


@pytest.mark.parametrize(
    ("values", "rows", "stored"),
    [
        ([5, 6, 0, 0], (1, 1, 0), [5, 6]),
        ([5, 0, 6, 0], (1, 0, 1), [5, 6]),
        ([5, 0, 0, 6], (1, 0, 0), [5, 6]),
        ([0, 5, 6, 0], (0, 1, 1), [5, 6]),
        ([0, 5, 0, 6], (0, 1, 0), [5, 6]),
        ([0, 0, 5, 6], (0, 0, 1), [5, 6]),
        ([0, 0, 0, 0], (0, 0, 0), []),
        ([5, 6, 7, 8], (1, 1, 1), [5, 6, 7, 8]),
        ([5, 0, 0, 0], (1, 0, 0), [5, 0]),  # a zero is stored, the last one
        ([0, 0, 5, 0], (0, 0, 1), [5, 0]),
        ([0, 0, 0, 5], (1, 0, 0), [0, 5]),  # or the first one
        ([0, 5, 6, 7], (1, 1, 1), [0, 5, 6, 7]),
        ([5, 6, 0, 7], (1, 1, 1), [5, 6, 0, 7]),
        ([5, 6, 7, 0], (1, 1, 1), [5, 6, 7, 0]),
        ([[5, 6], [0, 0], [0, 7], [0, 8]], (1, 3, 0), [5, 6, 7, 8]),
    ],
)
def test_three_bits_of_four_and_an_even_number_of_values(
    values: object, rows: tuple[int, int, int], stored: list[int]
) -> None:
    array = np.array(values, np.float32)
    encoded = TwoOfFour().encode(Array(array))
    mask, *others = (part.tolist() for part in encoded.inputs)
    assert mask == mask_of(*rows).tolist()
    assert others == [[1, 2, 4], [0, *stored], list(array.shape)]
    assert TwoOfFour().decode(encoded.inputs).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("values", "odd"),
    [([1, 1, 0, 0], 0), ([1, 0, 0, 0], 1), ([1, 1, 1, 0, 0, 0, 0, 9], 2), ([1, 1, 1, 1, 0, 0, 0, 0], 0), ([7], 1)],
)
def test_groups_with_one_or_three_are_counted(values: list[int], odd: int) -> None:
    assert count(Array(np.array(values, np.int8))).patterns.odd_fours == odd


def test_minus_zero_and_nan_payloads_are_entries() -> None:
    bits = np.array([0x80000000, 0, 0, 0x7FC00001, 0, 1, 0xFF800000, 0], np.uint32)
    array = bits.view(np.float32)
    encoded = TwoOfFour().encode(Array(array))
    assert encoded.inputs[2].size == 1 + 4
    assert TwoOfFour().decode(encoded.inputs).tobytes() == array.tobytes()


@pytest.mark.parametrize("lengths", [(1,), (3,), (6, 1, 9), (CHUNK,), (CHUNK - 3,)])
def test_groups_that_chunks_cut(cut: Cut, lengths: tuple[int, ...]) -> None:
    size = 2 * CHUNK + 12 if max(lengths) > 99 else 92
    rng = np.random.default_rng(7)
    values = np.where(rng.random(size) < 0.4, rng.integers(1, 200, size), 0).astype(np.uint8)
    source = cut(values, lengths)
    kept = (values.reshape(-1, 4) != 0).sum(axis=1)
    assert count(source).patterns.odd_fours == int(np.sum(kept % 2))
    encoded = TwoOfFour().encode(source)
    assert np.array_equal(TwoOfFour().decode(encoded.inputs), values)


def test_decode_fills_with_the_first_of_values() -> None:
    inputs = (mask_of(1, 0, 1), POWERS, np.array([128, 3, 4], np.uint8), np.array([4], np.int64))
    assert TwoOfFour().decode(inputs).tolist() == [3, 128, 4, 128]


SHAPE = np.array([8], np.int64)


@pytest.mark.parametrize(
    "inputs",
    [
        (mask_of(1, 1, 0), POWERS, np.zeros(2, np.float32), SHAPE),  # more bits than values
        (mask_of(3, 3, 3), POWERS, np.zeros(8, np.float32), SHAPE),  # the same, of eight values
        (mask_of(1, 1, 0), POWERS, np.zeros(4, np.float32), SHAPE),  # more values than bits
        (mask_of(4, 0, 0), POWERS, np.zeros(3, np.float32), SHAPE),  # a code past the end
        (mask_of(1, 1, 0), POWERS, np.zeros(3, np.float32), np.array([7], np.int64)),  # no whole groups
        (mask_of(1, 1, 0), POWERS, np.zeros(3, np.float32), np.array([36], np.int64)),  # a byte too few
        (mask_of(1, 0, 1, 0, 0, 0), POWERS, np.zeros(3, np.float32), SHAPE),  # a byte too many
        (mask_of(1, 1, 0)[:1], POWERS[:1], np.zeros(2, np.float32), SHAPE),  # one row of bits
        (mask_of(1, 1, 0), np.array([1, 2, 3], np.uint8), np.zeros(3, np.float32), SHAPE),  # other powers
        (mask_of(1, 1, 0), POWERS, np.zeros(3, np.float32)),  # an input missing
    ],
)
def test_damaged_inputs_are_refused(inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match="Decode2Of4"):
        TwoOfFour().decode(inputs)


def test_a_size_that_is_no_multiple_of_four_is_refused() -> None:
    array = np.array([[1, 0], [2, 0], [0, 0]], np.float32)
    assert "6 entries" in TwoOfFour().supports(array.shape, array.dtype, 17).reason
    with pytest.raises(EncodeError, match=r"2of4: its 6 entries"):
        TwoOfFour().encode(Array(array))


def test_counts_of_other_values_are_noticed() -> None:
    values = two_of_four(50)
    counts = count(Array(values))
    for other in (np.zeros_like(values), np.ones_like(values)):
        with pytest.raises(EncodeError, match="counted"):
            TwoOfFour().encode(Array(other), counts)


def test_zeros_are_values_only_where_a_group_is_odd() -> None:
    """A zero needs an exponent of its own, the third here, which codes of one bit do not reach."""
    values = two_of_four(300)
    values[np.flatnonzero(values)[::2]], values[np.flatnonzero(values)[1::2]] = 1.5, 2.5
    coding = Coding(TwoOfFour(), Split(1))
    assert coding.supports(count(Array(values)), 17)
    assert coding.decode(coding.encode(Array(values)).inputs).tobytes() == values.tobytes()
    values[np.flatnonzero(values)[0]] = 0
    assert not coding.supports(count(Array(values)), 17)


def test_chosen_for_a_2_of_4_pattern_alone() -> None:
    values = two_of_four(4000)
    other = np.random.default_rng(1).permutation(values)
    for array, expected in ((values, "2of4"), (other, "bitmask")):
        (choice,) = choose({"w": count(Array(array))}, 17).choices
        assert choice.coding is not None
        assert choice.coding.index.name == expected


def test_a_model_is_encoded_and_back(build: Build, exact: Exact) -> None:
    weight = np.round(1000 * two_of_four(4096))
    text = "g (float[N,128] x) => (float[N,128] y) { y = MatMul(x, w) }"
    model = build(text, {"w": weight.reshape(128, 128)})
    encoded = encode_model(model)
    assert [tensor.scheme.split("+")[0] for tensor in encoded.tensors] == ["2of4"]
    exact(model, encoded, {"x": np.eye(128, dtype=np.float32)})


def in_columns(rows: int, columns: int) -> NDArray:
    """A float32 matrix of whole numbers of which two of each four in a column are kept."""
    return np.ascontiguousarray(np.round(1000 * two_of_four(rows * columns // 4)).reshape(columns, rows).T)


def test_a_matrix_with_the_pattern_in_its_columns_is_turned(build: Build, exact: Exact) -> None:
    weight = in_columns(256, 512)
    model = build("g (float[N,256] x) => (float[N,512] y) { y = MatMul(x, w) }", {"w": weight})
    encoded = encode_model(model)
    assert [tensor.scheme for tensor in encoded.tensors] == ["2of4+split4+columns"]
    exact(model, encoded, {"x": np.eye(256, dtype=np.float32)})
    without = replace(count(Array(weight)), live={})
    assert encoded.tensors[0].nbytes < min(priced("w", without, 17, CODINGS, inline=False).nbytes_by_coding.values())


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (in_columns(64, 400), True),
        (in_columns(64, 20000), True),  # four rows are more than a chunk
        (np.repeat(two_of_four(4000).reshape(40, 400), 8, axis=0), True),  # blocks of 8 x 1
        (in_columns(64, 400).T, False),
        (in_columns(400, 8).reshape(20, 20, 8), False),
        (in_columns(64, 400)[:62], False),
        (np.where(np.random.default_rng(1).random((64, 400)) < 0.05, 1, 0), False),
        (np.zeros((64, 400)), False),
        (np.ones((64, 400)), False),
        (np.zeros((0, 400)), False),
    ],
)
def test_what_seems_to_be_a_pattern_in_columns(cut: Cut, weight: NDArray, expected: bool) -> None:
    weight = np.ascontiguousarray(weight, np.float32)
    assert column_pattern(Array(weight)) == expected
    assert column_pattern(cut(weight, (1000, 77))) == expected
