from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.arrays import CHUNK, Array, NDArray
from onnxprune_passes.encode import Blocks, choose, count, decoders, encode_model
from onnxprune_passes.encode.stored import stored_tensors
from onnxprune_passes.errors import EncodeError

Build = Callable[..., Any]
Exact = Callable[..., None]
Cut = Callable[[NDArray, tuple[int, ...]], Array]

ONE = np.ones(1, np.uint8)
F32, I64 = np.float32, np.int64
WIDTHS = (4, 8, 16, 32)


def mask_of(*row: int) -> NDArray:
    return np.array(row, np.uint8).reshape(1, -1, 1)


def in_blocks(shape: tuple[int, int], width: int, density: float = 0.2) -> NDArray:
    """float32 normal numbers, in blocks of `width` of which a share of `density` is kept."""
    rng = np.random.default_rng(width)
    kept = np.repeat(rng.random((shape[0], shape[1] // width)) < density, width, axis=1)
    found: NDArray = np.where(kept, rng.standard_normal(shape), 0).astype(np.float32)
    return found


@pytest.mark.parametrize(
    ("width", "values", "mask", "table", "stored"),
    [
        (4, [0, 0, 0, 0, 5, 0, 6, 0, 0, 0, 0, 0, 7, 8, 9, 1], [0b1010], [3, 4], [5, 0, 6, 0, 7, 8, 9, 1]),
        (4, [[0, 0], [0, 1], [0, 0], [0, 0]], [0b1], [2, 4], [0, 0, 0, 1]),
        (8, [0] * 15 + [3], [0b10], [2, 8], [0] * 7 + [3]),
        (16, [0] * 16, [0], [1, 16], []),
        (32, list(range(1, 33)), [1], [2, 32], list(range(1, 33))),
        (4, [0] * 32 + [3, 0, 0, 0], [0, 1], [2, 4], [3, 0, 0, 0]),
    ],
)
def test_a_bit_a_block(width: int, values: object, mask: list[int], table: list[int], stored: list[int]) -> None:
    array = np.array(values, np.float32)
    encoded = Blocks(width).encode(Array(array))
    found, *others = (part.tolist() for part in encoded.inputs)
    assert found == mask_of(*mask).tolist()
    assert others == [[1], table, [0] * width + stored, list(array.shape)]
    assert Blocks(width).decode(encoded.inputs).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("positions", "blocks"),
    [
        ([], {4: 0, 8: 0, 16: 0, 32: 0}),
        ([0], {4: 1, 8: 1, 16: 1, 32: 1}),
        ([0, 4], {4: 2, 8: 1, 16: 1, 32: 1}),
        ([3, 8, 31, 32], {4: 4, 8: 4, 16: 3, 32: 2}),
        ([99], {4: 1, 8: 1, 16: 1, 32: 1}),
        (list(range(100)), {4: 25, 8: 13, 16: 7, 32: 4}),
    ],
)
@pytest.mark.parametrize("lengths", [(100,), (1,), (5, 31, 2), (64,)])
def test_kept_blocks_are_counted(
    cut: Cut, positions: list[int], blocks: dict[int, int], lengths: tuple[int, ...]
) -> None:
    values = np.zeros(100, np.int8)
    values[positions] = 1
    assert count(cut(values, lengths)).patterns.blocks == blocks


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("lengths", [(7, 40, 1), (CHUNK,), (CHUNK - 5,)])
def test_blocks_that_chunks_cut(cut: Cut, width: int, lengths: tuple[int, ...]) -> None:
    size = 2 * CHUNK + 64 if max(lengths) > 99 else 320
    rng = np.random.default_rng(7)
    values = np.where(rng.random(size) < 0.05, rng.integers(1, 200, size), 0).astype(np.uint8)
    source = cut(values, lengths)
    encoded = Blocks(width).encode(source)
    assert encoded.inputs[2].tolist() == [1 + int(values.reshape(-1, width).any(axis=1).sum()), width]
    assert np.array_equal(Blocks(width).decode(encoded.inputs), values)


def test_minus_zero_and_nan_payloads_are_entries() -> None:
    bits = np.array([0x80000000, 0, 0, 0, 0, 0, 0, 0x7FC00001, 0, 0, 0, 0], np.uint32)
    array = bits.view(np.float32)
    encoded = Blocks(4).encode(Array(array))
    assert encoded.inputs[2].tolist() == [3, 4]
    assert Blocks(4).decode(encoded.inputs).tobytes() == array.tobytes()


def test_the_first_block_is_the_filler() -> None:
    table = np.array([9, 8, 7, 6, 1, 2, 3, 4], np.uint8)
    inputs = (mask_of(0b10), ONE, np.array([2, 4], I64), table, np.array([2, 6], I64))
    assert Blocks(4).decode(inputs).reshape(-1).tolist() == [9, 8, 7, 6, 1, 2, 3, 4, 9, 8, 7, 6]


def test_the_length_of_a_block_is_in_the_data() -> None:
    encoded = Blocks(16).encode(Array(in_blocks((4, 32), 16)))
    assert np.array_equal(Blocks(4).decode(encoded.inputs), in_blocks((4, 32), 16))


TABLE, SHAPE, VALUES = np.array([2, 4], I64), np.array([8], I64), np.zeros(8, F32)


@pytest.mark.parametrize(
    "inputs",
    [
        (mask_of(0b11), ONE, TABLE, VALUES, SHAPE),  # more bits than blocks
        (mask_of(0), ONE, TABLE, VALUES, SHAPE),  # fewer
        (mask_of(0b100), ONE, TABLE, VALUES, SHAPE),  # a bit past the end
        (mask_of(1), ONE, TABLE, VALUES[:7], SHAPE),  # values missing
        (mask_of(1), ONE, TABLE, np.zeros(9, F32), SHAPE),  # values left over
        (mask_of(1), ONE, TABLE, VALUES, np.array([7], I64)),  # no whole blocks
        (mask_of(1), ONE, TABLE, VALUES, np.array([36], I64)),  # a byte too few
        (mask_of(1, 0), ONE, TABLE, VALUES, SHAPE),  # a byte too many
        (mask_of(1), ONE, np.array([0, 4], I64), VALUES[:1], SHAPE),  # no filler
        (mask_of(1), ONE, np.array([2, 0], I64), VALUES[:1], SHAPE),  # no entries in a block
        (mask_of(1), ONE, np.array([-2, -4], I64), VALUES, SHAPE),
        (mask_of(1), ONE, np.array([2, 2, 2], I64), VALUES, SHAPE),
        (mask_of(1), ONE, TABLE.astype(np.int32), VALUES, SHAPE),
        (mask_of(1), np.array([2], np.uint8), TABLE, VALUES, SHAPE),  # other powers
        (mask_of(1, 1).reshape(2, 1, 1), np.array([1, 2], np.uint8), TABLE, VALUES, SHAPE),  # two rows of bits
        (mask_of(1), ONE, TABLE, VALUES),  # an input missing
    ],
)
def test_damaged_inputs_are_refused(inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match=r"DecodeBlocks.*damaged"):
        Blocks(4).decode(inputs)


def test_a_size_that_is_no_multiple_is_refused() -> None:
    array = np.ones((3, 4), np.float32)
    assert Blocks(4).supports(array.shape, array.dtype, 17)
    assert "12 entries" in Blocks(8).supports(array.shape, array.dtype, 17).reason
    with pytest.raises(EncodeError, match=r"blocks8: its 12 entries"):
        Blocks(8).encode(Array(array))


def test_counts_of_other_values_are_noticed() -> None:
    values = in_blocks((8, 32), 8)
    counts = count(Array(values))
    for other in (np.zeros_like(values), np.ones_like(values)):
        with pytest.raises(EncodeError, match="counted"):
            Blocks(8).encode(Array(other), counts)


@pytest.mark.parametrize("width", WIDTHS)
def test_chosen_for_blocks_alone(width: int) -> None:
    values = in_blocks((256, 512), width)
    for array, expected in ((values, f"blocks{width}"), (np.random.default_rng(1).permutation(values.T), "rice")):
        (choice,) = choose({"w": count(Array(np.ascontiguousarray(array)))}, 17).choices
        assert choice.coding is not None
        assert choice.coding.index.name == expected


@pytest.mark.parametrize("inline", [False, True])
def test_a_model_is_encoded_and_back(build: Build, exact: Exact, inline: bool) -> None:
    tensors = {name: np.round(1000 * in_blocks((128, 128), width)) for name, width in (("w", 16), ("v", 32))}
    model = build("g (float[N,128] x) => (float[N,128] y) { h = MatMul(x, w) y = MatMul(h, v) }", tensors)
    encoded = encode_model(model, inline=inline)
    expected = {"w": "blocks16", "v": "blocks32"}
    assert {tensor.key: tensor.scheme.split("+")[0] for tensor in encoded.tensors} == expected
    assert {one.key: one.coding.index.name for one in decoders(encoded.model)} == expected
    exact(model, encoded, {"x": np.eye(128, dtype=F32)})


def test_the_bytes_of_a_stored_tensor(build: Build) -> None:
    """Those that were planned with a label of two digits, which 18 names have; here it has one."""
    text = "g (float[N,128] x) => (float[N,128] y) { y = MatMul(x, w) }"
    encoded = encode_model(build(text, {"w": in_blocks((128, 128), 16)}))
    (planned,), (stored,) = encoded.tensors, stored_tensors(encoded.model)
    assert stored.scheme == planned.scheme == "blocks16+split4"
    assert (stored.nbytes, stored.index_nbytes) == (planned.nbytes - 18, 128 + 1 + 16)
