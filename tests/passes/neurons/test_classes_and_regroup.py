"""United ids against a plain union-find, and which axes a reshape keeps together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxprune_passes.neurons.classes import classes
from onnxprune_passes.neurons.decide import slabs
from onnxprune_passes.neurons.flow import Flow
from onnxprune_passes.neurons.graph import Dim
from onnxprune_passes.neurons.regroup import Block, blocks, regrouped, solved


def plain_union_find(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    label = list(range(count))
    for one, other in pairs:
        low, high = sorted((label[one], label[other]))
        label = [low if found == high else found for found in label]
    return label


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_classes(count: int, pairs: list[tuple[int, int]]) -> None:
    pairs = [(one % count, other % count) for one, other in pairs]
    arrays = [(np.array([one]), np.array([other])) for one, other in pairs]
    assert classes(count, arrays).tolist() == plain_union_find(count, pairs)


def test_a_long_chain_is_one_class() -> None:
    ids = np.arange(10_000)
    assert not classes(10_000, [(ids[:-1], ids[1:])]).any()
    assert not classes(10_000, [(ids[1:], ids[:-1])]).any()


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (("N", 4, 3, 3), ("N", 36), [((0,), (0,)), ((1, 2, 3), (1,))]),
        (("N", 4, 3, 3), (None, 36), [((0,), (0,)), ((1, 2, 3), (1,))]),
        ((None, 4, 3, 3), (None, 4, 9), [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))]),
        ((1, 4, 1, 1), (4,), [((1,), (0,))]),
        ((2, 12, 5), (2, 3, 4, 5), [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]),
        ((6, 4), (4, 6), [((0, 1), (0, 1))]),
        (("N", 4, "W", "W"), ("N", 4, None), [((0,), (0,)), ((1,), (1,)), ((2, 3), (2,))]),
        (("N", "T", 8), (None, 8), [((0, 1), (0,)), ((2,), (1,))]),
        (("N", 4, "W"), ("N", None), [((0,), (0,)), ((1, 2), (1,))]),
        ((0, 4), (0, 2, 2), [((0, 1), (0, 1, 2))]),
        ((), (1, 1), []),
    ],
)
def test_blocks(before: tuple[Dim, ...], after: tuple[Dim, ...], wanted: list[tuple[tuple[int, ...], ...]]) -> None:
    assert blocks(before, after) == [Block(*pair) for pair in wanted]


def test_merged_axes_are_expanded() -> None:
    flow = Flow.of(np.arange(3).reshape(1, 3, 1, 1))
    found = regrouped(flow, ("N", 3, 2, 1), ("N", 6))
    assert found is not None
    assert found.ids.tolist() == [[0, 0, 1, 1, 2, 2]]


def test_an_axis_is_split() -> None:
    flow = Flow.of(np.arange(6).reshape(1, 6))
    found = regrouped(flow, ("N", 6), ("N", 2, 3, 1))
    assert found is not None
    assert found.ids.tolist() == [[[[0], [1], [2]], [[3], [4], [5]]]]


def test_neurons_do_not_merge_with_an_unknown_size() -> None:
    assert regrouped(Flow.of(np.arange(3).reshape(1, 3, 1)), ("N", 3, "W"), ("N", None)) is None


@pytest.mark.parametrize(
    ("before", "target", "stated", "wanted"),
    [
        (("N", 4, 3), (0, -1), None, ["N", 12]),
        (("N", 4, 3), (-1, 12), None, [None, 12]),
        ((5, 4, 3), (-1, 12), None, [5, 12]),
        (("N", 4, 3), (None, -1), ("N", None), ["N", 12]),
        (("N", 4, 3), (None, -1), ("M", "u"), ["M", "u"]),
        (("N", 4, "W"), (0, 4, -1), (None, None, "W"), ["N", 4, "W"]),
        ((2, 0, 3), (0, 0, 3), None, [2, 0, 3]),
    ],
)
def test_solved(
    before: tuple[Dim, ...], target: tuple[int | None, ...], stated: tuple[Dim, ...] | None, wanted: list[Dim]
) -> None:
    assert solved(before, target, stated, zero_copies=True) == wanted


def test_slabs_are_whole_slices() -> None:
    gone = np.array([[True, True, True], [True, False, False], [True, False, True]])
    wanted = np.array([[True, True, True], [True, False, False], [True, False, False]])
    assert np.array_equal(slabs(gone), wanted)
