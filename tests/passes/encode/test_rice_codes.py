"""Rice codes and codes of a codebook in one; onnxruntime's side is in test_decoders, which knows every coding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnxprune_passes.arrays import Array, NDArray
from onnxprune_passes.encode import CODINGS, Codebook, Coding, Rice, RiceCodes, Split, bits, choose, count
from onnxprune_passes.errors import EncodeError

U8, F32, I64 = np.uint8, np.float32, np.int64


def few(distinct: int, density: float = 0.1, size: int = 4000) -> NDArray:
    rng = np.random.default_rng(distinct)
    weight = np.where(rng.random(size) < density, rng.integers(1, distinct + 1, size), 0).astype(F32)
    weight[: 3 * distinct : 3] = np.arange(1, distinct + 1)
    return weight


def test_the_rows_are_those_of_both() -> None:
    weight = few(9)
    high, low, powers, table, shape = RiceCodes().encode(Array(weight)).inputs
    expected = Coding(Rice(), Codebook(4)).encode(Array(weight)).inputs
    assert high.tobytes() == expected[0].tobytes()
    assert low.tobytes() == np.concatenate((expected[1], expected[4])).tobytes()
    rests = low.shape[0] - 4
    assert powers.tolist() == [[1 << bit for bit in range(rests)] + [0] * 4, [0] * rests + [1, 2, 4, 8]]
    assert (table.tolist(), shape.tolist()) == (list(range(10)), [4000])


@pytest.mark.parametrize(("distinct", "width"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (15, 4), (16, 5), (127, 7)])
def test_codes_are_as_wide_as_the_codebook_needs(distinct: int, width: int) -> None:
    weight = few(distinct) if distinct else np.zeros(40, F32)
    assert len(count(Array(weight)).values.distinct or ()) == distinct
    inputs = RiceCodes().encode(Array(weight)).inputs
    assert np.count_nonzero(inputs[2][1]) == width
    assert RiceCodes().decode(inputs).tobytes() == weight.tobytes()


@pytest.mark.parametrize(("density", "rests"), [(1.0, 0), (0.8, 0), (0.3, 1), (0.1, 2)])
def test_rests_have_no_bits_where_most_is_kept(density: float, rests: int) -> None:
    weight = few(15, density)
    high, low, powers, *_ = RiceCodes().encode(Array(weight)).inputs
    assert (low.shape[0] - 4, powers.shape) == (rests, (2, rests + 4))
    assert density < 1 or high.shape[1] == weight.size // 8
    assert RiceCodes().decode(RiceCodes().encode(Array(weight)).inputs).tobytes() == weight.tobytes()


def test_more_values_than_127_are_refused() -> None:
    assert "reach 127" in RiceCodes().supports(count(Array(few(128))), 17).reason


def test_what_cannot_be_stored_is_an_error() -> None:
    for coding, array in ((RiceCodes(), few(128)), (Coding(Rice(), Split(1)), few(9))):
        with pytest.raises(EncodeError, match="keep the tensor dense"):
            coding.encode(Array(array))


def test_bytes_are_said_to_be_of_positions_and_of_values() -> None:
    counts = count(Array(few(15)))
    both, apart = RiceCodes(), Coding(Rice(), Codebook(4))
    rests = both.layout(counts)[1].shape[0] - 4
    assert both.index_nbytes(counts) == apart.index_nbytes(counts) - rests + 2 * (rests + 4)
    assert both.value_nbytes(counts) == apart.value_nbytes(counts) - 4


def test_it_is_what_shared_values_take() -> None:
    weights = {f"w{number}": count(Array(few(15, 0.1, 9000 + number))) for number in range(3)}
    plan = choose(weights, 17)
    assert {choice.coding.name if choice.coding else "" for choice in plan.choices} == {"ricecodes"}
    assert plan.nbytes < choose(weights, 17, [one for one in CODINGS if one != RiceCodes()]).nbytes


def damaged(**changes: Any) -> tuple[NDArray, ...]:
    names = ("high", "low", "powers", "codebook", "shape")
    inputs = dict(zip(names, RiceCodes().encode(Array(few(3))).inputs, strict=True))
    return tuple((inputs | changes).values())


LOW, POWERS = damaged()[1:3]


@pytest.mark.parametrize(
    "inputs",
    [
        damaged()[:4],
        damaged(low=LOW[:-1]),  # a row for each power
        damaged(low=LOW[:, :, 0]),
        damaged(low=LOW[:, :-3]),  # fewer numbers than bits 1
        damaged(low=LOW.astype(np.int8)),
        damaged(powers=POWERS[:1]),
        damaged(powers=POWERS[::-1]),
        damaged(powers=POWERS * 0),
        damaged(powers=POWERS[0]),
        damaged(powers=POWERS.astype(np.int64)),
        damaged(powers=np.concatenate((POWERS[:, :1], POWERS), axis=1), low=np.concatenate((LOW[:1], LOW))),
        damaged(high=np.full((1, 4000, 1), 255, U8)),
        damaged(high=bits.pack(np.ones(9, U8), 2)),
        damaged(codebook=np.zeros(2, F32)),  # codes that are not in it
        damaged(codebook=np.zeros((2, 2), F32)),
        damaged(shape=np.array([50], I64)),
        damaged(shape=np.array([-4000], I64)),
    ],
)
def test_damaged_inputs_are_refused(inputs: tuple[NDArray, ...]) -> None:
    with pytest.raises(EncodeError, match="DecodeRiceCodes"):
        RiceCodes().decode(inputs)
