from __future__ import annotations

import math

import numpy as np
import pytest
from onnxprune_passes.arrays import Array
from onnxprune_passes.encode import CODINGS, count
from onnxprune_passes.encode.bound import bound_nbytes, entropy


def test_entropy() -> None:
    assert entropy((3, 0, 3)) == 1
    assert entropy((5,)) == 0
    assert entropy(()) == 0
    assert entropy((1, 3)) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))


def test_positions_and_values_are_added() -> None:
    """Half the entries of 1024 are kept, half of these are 1 and half are 2."""
    values = np.tile(np.array([0, 1, 0, 2], np.float32), 256)
    assert bound_nbytes(Array(values), count(Array(values))) == (1024 + 512 + 2 * 32) / 8


def test_of_many_values_only_the_exponents_are_known() -> None:
    values = np.linspace(1, 2, 1000, endpoint=False, dtype=np.float32)
    assert bound_nbytes(Array(values), count(Array(values))) == 1000 * 24 / 8
    doubled = np.concatenate((values, 2 * values))
    assert bound_nbytes(Array(doubled), count(Array(doubled))) == 2000 * 25 / 8


def test_of_other_dtypes_values_take_what_they_have() -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    assert bound_nbytes(Array(values), count(Array(values))) == 8000


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("distinct", [15, None])
def test_no_coding_is_under_the_bound(density: float, distinct: int | None) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(60_000) if distinct is None else rng.choice(rng.standard_normal(distinct), 60_000)
    array = np.where(rng.random(60_000) < density, values, 0).astype(np.float32)
    counts = count(Array(array))
    bound = bound_nbytes(Array(array), counts)
    sizes = []
    for coding in CODINGS:
        if coding.supports(counts, 17):
            index, own = coding.index_nbytes(counts), coding.value_nbytes(counts)
            assert index + own == sum(part.nbytes for part in coding.encode(Array(array), counts).inputs) - 8
            sizes.append(index + own)
    assert bound < min(sizes) * 1.001
    assert min(sizes) < 1.25 * bound
