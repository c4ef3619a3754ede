"""Plain indices in numpy; onnxruntime's side is in test_decoders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnxprune_passes.arrays import CHUNK, Array, NDArray
from onnxprune_passes.encode import choose, count
from onnxprune_passes.encode.indices import Indices
from onnxprune_passes.errors import EncodeError

F32, I32, I64 = np.float32, np.int32, np.int64


def test_indices_are_positions_in_the_flat_tensor() -> None:
    array = np.array([[0, 0, 5], [0, -0.0, 7]], F32)
    encoded = Indices().encode(Array(array))
    assert [part.tolist() for part in encoded.inputs] == [[2, 4, 5], [0, 5, 0, 7], [2, 3]]
    assert Indices().decode(encoded.inputs).tobytes() == array.tobytes()


def test_all_zero_has_no_index() -> None:
    encoded = Indices().encode(Array(np.zeros((4, 4), F32)))
    assert [part.tolist() for part in encoded.inputs] == [[], [0], [4, 4]]


def test_more_than_one_chunk() -> None:
    array = np.zeros(2 * CHUNK + 9, np.uint8)
    kept = [0, 3, CHUNK - 1, CHUNK, CHUNK + 1, array.size - 1]
    array[kept] = range(1, 7)
    encoded = Indices().encode(Array(array))
    assert encoded.inputs[0].tolist() == kept
    assert np.array_equal(Indices().decode(encoded.inputs), array)


@pytest.mark.parametrize(("one_in", "indices"), [(100_000, True), (1000, False)])
def test_it_is_the_choice_where_hardly_anything_is_kept(one_in: int, indices: bool) -> None:
    rng = np.random.default_rng(3)
    array = np.zeros(4_000_000, F32)
    array[rng.permutation(array.size)[: array.size // one_in]] = rng.standard_normal(array.size // one_in)
    (choice,) = choose({"w": count(Array(array))}, 17).choices
    assert choice.coding is not None
    assert (choice.coding.index == Indices()) == indices


def damaged(**changes: Any) -> tuple[NDArray, ...]:
    names = ("indices", "values", "shape")
    inputs = dict(zip(names, Indices().encode(Array(np.array([0, 1, 0, 2], F32))).inputs, strict=True))
    return tuple((inputs | changes).values())


@pytest.mark.parametrize(
    "inputs",
    [
        damaged()[:2],
        damaged(indices=np.array([1, 4], I32)),  # past the end
        damaged(indices=np.array([-1, 3], I32)),
        damaged(indices=np.array([3, 1], I32)),
        damaged(indices=np.array([1, 1], I32)),
        damaged(indices=np.array([1, 3], I64)),
        damaged(indices=np.array([[1, 3]], I32)),
        damaged(indices=np.array([1], I32)),
        damaged(values=np.zeros(0, F32)),
        damaged(values=np.zeros(9, F32)),
        damaged(shape=np.array([3], I64)),
    ],
)
def test_damaged_inputs_are_refused(inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match="DecodeIndices"):
        Indices().decode(inputs)
