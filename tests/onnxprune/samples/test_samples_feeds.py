"""Samples as the batches of a verification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.errors import SelectionError

from onnxprune.runtime import TensorSpec
from onnxprune.samples import feeds_from_data

SpecOf = Callable[..., TensorSpec]
Own = Callable[[str], None]

CODE = """
def numbered(count=7, labels=True):
    x = np.arange(count, dtype=np.float32)[:, None]
    return [(x, np.arange(count)) if labels else x]
def soft():
    return [(np.zeros((7, 1)), np.zeros((7, 3)))]
def many():
    return numbered(3000)
def bare():
    return numbered(labels=False)
def pair():
    return numbered(), numbered(4)
"""


def rows_of(feeds: Any) -> list[list[float]]:
    return [batch["x"][:, 0].tolist() for batch in feeds.batches]


def test_all_samples_in_batches(own_module: Own, spec_of: SpecOf) -> None:
    own_module(CODE)
    feeds = feeds_from_data("own_data:many", [spec_of("x", ("N", 1))], ["count=3000"])
    assert [len(rows) for rows in rows_of(feeds)] == [64] * 46 + [56]
    assert feeds.labels is not None
    assert np.concatenate(feeds.labels).tolist() == list(range(3000))
    assert feeds.note.endswith("; all in 47 batches of 64")


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 3, 6]), (7, [0, 1, 2, 3, 4, 5, 6]), (9, range(7))])
def test_count_takes_samples_spread_evenly(own_module: Own, spec_of: SpecOf, count: int, expected: Any) -> None:
    own_module(CODE)
    feeds = feeds_from_data("own_data:numbered", [spec_of("x", ("N", 1))], [f"count={count}"])
    assert rows_of(feeds) == [list(expected)]


def test_1024_are_taken_by_default(own_module: Own, spec_of: SpecOf) -> None:
    own_module(CODE)
    feeds = feeds_from_data("own_data:many", [spec_of("x", ("N", 1))])
    assert sum(map(len, rows_of(feeds))) == 1024
    assert rows_of(feeds)[-1][-1] == 2999
    assert "1024 of them, spread evenly, in 16 batches of 64" in feeds.note


def test_fixed_batches_are_full(own_module: Own, spec_of: SpecOf) -> None:
    own_module(CODE)
    assert [len(rows) for rows in rows_of(feeds_from_data("own_data:numbered", [spec_of("x", (3, 1))]))] == [3, 3]
    assert rows_of(feeds_from_data("own_data:numbered", [spec_of("x", (9, 1))])) == [[0, 1, 2, 3, 4, 5, 6, 0, 1]]


def test_samples_to_validate_on_are_taken(own_module: Own, spec_of: SpecOf) -> None:
    own_module(CODE)
    assert rows_of(feeds_from_data("own_data:pair", [spec_of("x", ("N", 1))])) == [[0, 1, 2, 3]]


@pytest.mark.parametrize("name", ["bare", "soft"])
def test_labels_that_are_no_classes_are_left_out(own_module: Own, spec_of: SpecOf, name: str) -> None:
    own_module(CODE)
    assert feeds_from_data(f"own_data:{name}", [spec_of("x", ("N", 1))]).labels is None


def test_an_npz_file_is_taken_whole(tmp_path: Path, spec_of: SpecOf) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((3000, 1), np.float32))
    assert len(feeds_from_data(str(tmp_path / "x.npz"), [spec_of("x", ("N", 1))]).batches) == 47
    with pytest.raises(SelectionError, match=r"count has no meaning for an \.npz file"):
        feeds_from_data(str(tmp_path / "x.npz"), [spec_of("x", ("N", 1))], ["count=3"])
