from __future__ import annotations

from collections.abc import Callable

import pytest
from onnxprune_passes.errors import OnnxPruneError, SelectionError
from onnxprune_passes.selection import matches, own_values, require_matches, selected
from onnxprune_passes.thresholds import NM, Absolute, Quality, Sparsity

KEYS = ("fc1.weight", "fc2.weight", "conv.weight", "conv.WEIGHT", "onnx::MatMul_3414", "w[0]", "If/then_branch/w")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("fc?.weight", {"fc1.weight", "fc2.weight"}),
        ("fc[12].weight", {"fc1.weight", "fc2.weight"}),
        ("fc[!1].weight", {"fc2.weight"}),
        ("*.weight", {"fc1.weight", "fc2.weight", "conv.weight"}),
        ("fc1", set()),  # the whole name
        ("conv.WEIGHT", {"conv.WEIGHT"}),
        ("w[0]", {"w[0]"}),  # the name itself, although it reads as a glob
        ("onnx::*", {"onnx::MatMul_3414"}),
        ("*/w", {"If/then_branch/w"}),  # a slash is a character like any other
        ("*", set(KEYS)),
        ("", set()),
    ],
)
def test_a_glob_is_about_the_whole_name_and_its_case(pattern: str, expected: set[str]) -> None:
    assert {key for key in KEYS if matches(key, pattern)} == expected


@pytest.mark.parametrize(
    ("only", "skip", "expected"),
    [
        ((), (), KEYS),
        (("fc*",), (), KEYS[:2]),
        (("conv*", "fc1*"), (), ("fc1.weight", "conv.weight", "conv.WEIGHT")),
        ((), ("fc*", "*/w"), KEYS[2:6]),
        (("fc*",), ("*2*",), ("fc1.weight",)),
        (("fc1.weight",), ("*2*",), ("fc1.weight",)),
    ],
)
def test_only_chooses_and_skip_wins(only: tuple[str, ...], skip: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert selected(KEYS, only, skip) == expected


@pytest.mark.parametrize(
    ("only", "skip", "says"),
    [
        (("fc9*",), (), r"'fc9\*' matches none of the 7 prunable weights \(fc1.weight, .*, …\)"),
        ((), ("gone",), r"'gone' matches none"),
        (("fc*",), ("fc*",), r"--only and --skip leave none of the 7 weights"),
    ],
)
def test_a_choice_of_nothing_is_an_error(only: tuple[str, ...], skip: tuple[str, ...], says: str) -> None:
    with pytest.raises(SelectionError, match=says) as caught:
        selected(KEYS, only, skip)
    assert "\n" not in str(caught.value)


def test_nothing_may_be_chosen_from_nothing() -> None:
    assert selected((), (), ()) == ()
    require_matches((), ())
    with pytest.raises(SelectionError, match="matches none of the 0"):
        selected((), ("a",), ())


def test_the_last_glob_that_matches_gives_the_value() -> None:
    assert own_values(KEYS, [("fc*", 0.5), ("*2*", 0.7), ("onnx*", 0.1)]) == {
        "fc1.weight": 0.5,
        "fc2.weight": 0.7,
        "onnx::MatMul_3414": 0.1,
    }
    assert own_values(KEYS, []) == {}
    with pytest.raises(SelectionError, match="'gone' matches none"):
        own_values(KEYS, [("fc*", 0.5), ("gone", 0.5)])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Sparsity(1.0), "0 <= sparsity < 1; found 1 "),
        (lambda: Sparsity(-0.1), "found -0.1"),
        (lambda: Sparsity(90), "90 % is written 0.9"),
        (lambda: Sparsity(float("nan")), "found nan"),
        (lambda: Sparsity(0.5, scope="all"), "'global' or 'layer'; found 'all'"),  # type: ignore[arg-type]
        (lambda: Sparsity(0.5, score="l2"), "'lamp' or 'magnitude'; found 'l2'"),  # type: ignore[arg-type]
        (lambda: Quality(-1), "quality parameter is a finite number >= 0; found -1"),
        (lambda: Quality(float("inf")), "found inf"),
        (lambda: Absolute(-1e-9), "threshold is a finite number >= 0; found -1e-09"),
        (lambda: Absolute(float("nan")), "found nan"),
        (lambda: NM(0, 4), "0 < N <= M; found 0:4"),
        (lambda: NM(5, 4), "found 5:4"),
        (lambda: NM(-1, -1), "found -1:-1"),
    ],
)
def test_values_out_of_range_are_refused_when_they_are_made(make: Callable[[], object], says: str) -> None:
    with pytest.raises(SelectionError) as caught:
        make()
    assert says in str(caught.value)
    assert isinstance(caught.value, OnnxPruneError)


def test_the_edges_of_the_ranges_are_in_them() -> None:
    assert Sparsity(0).value == 0
    assert Sparsity(0.999999).scope == "global"
    assert Sparsity(0.5).score == "lamp"
    assert (Quality(0).q, Absolute(0).threshold, NM(4, 4).n) == (0, 0, 4)
