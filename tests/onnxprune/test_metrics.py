"""Metrics against what plain numpy gives, their errors, and the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnxprune_passes.errors import DataError, SelectionError

from onnxprune.metrics import Metric, metric_from


def value(name: str, *batches: tuple[Any, Any]) -> float:
    metric = metric_from(name)
    for output, labels in batches:
        metric.update(np.asarray(output), np.asarray(labels))
    return metric.value()


@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(["accuracy", "top5"]))
def test_top_k_is_that_of_a_stable_sort(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (20, 7)).astype(np.float32)  # with many ties
    labels = rng.integers(0, 7, 20)
    best = np.argsort(-scores, axis=1, kind="stable")[:, : 1 if name == "accuracy" else 5]
    expected = np.mean([label in row for label, row in zip(labels, best, strict=True)])
    assert value(name, (scores[:8], labels[:8]), (scores[8:], labels[8:])) == expected


@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 3), -1), ((4, 5, 3), -1), ((4, 3, 5, 6), 1), ((4, 3, 1, 1), 1), ((4, 3, 5), 1)]
)
def test_the_class_axis_is_found_from_the_labels(shape: tuple[int, ...], axis: int) -> None:
    scores = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    best = np.argmax(scores, axis=axis)
    assert value("accuracy", (scores, best.reshape(4) if shape[2:] == (1, 1) else best)) == 1.0
    assert value("accuracy", (scores, (best + 1) % 3)) == 0.0


@pytest.mark.parametrize(("shape", "axis"), [((4, 3), 1), ((4, 5, 3), 2), ((4, 3, 5, 6), 1)])
def test_labels_in_the_shape_of_the_output_stand_for_their_largest_entry(shape: tuple[int, ...], axis: int) -> None:
    scores = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert value("accuracy", (scores, scores * 2)) == 1.0
    assert value("accuracy", (scores, np.roll(scores, 1, axis))) == 0.0


def test_nan_is_wrong() -> None:
    assert value("accuracy", (np.full((4, 3), np.nan), np.zeros(4, int))) == 0.0


def test_mean_squared_error_is_over_entries_in_float64() -> None:
    outputs = np.array([[1.0, 2.0], [3.0, 5.0], [0.0, 0.0]], np.float32)
    labels = np.array([[1.0, 0.0], [0.0, 5.0], [0.0, 1.0]])
    assert value("mse", (outputs[:1], labels[:1]), (outputs[1:], labels[1:])) == (4 + 9 + 1) / 6
    assert value("mse", (np.ones((3, 1), np.float16), np.zeros(3))) == 1.0


def test_which_way_is_up() -> None:
    assert [metric_from(name).larger_is_better for name in ("accuracy", "top5", "mse")] == [True, True, False]
    assert [metric_from(name).name for name in ("accuracy", "top5", "mse")] == ["accuracy", "top5", "mse"]


@pytest.mark.parametrize(
    ("name", "output", "labels", "message"),
    [
        ("accuracy", np.zeros((4, 3)), np.zeros(5, int), r"labels int64\[5\] do not fit scores \[4, 3\]"),
        ("accuracy", np.zeros((4, 3)), np.zeros(4), r"labels float64\[4\] do not fit scores"),
        ("accuracy", np.zeros((4, 1)), np.zeros(4, int), "do not fit scores"),
        ("accuracy", np.zeros(4), np.zeros(4, int), "do not fit scores"),
        ("accuracy", np.zeros((2, 3)), np.array([0, 3]), r"labels run from 0 to 3, but the scores have 3 classes"),
        ("accuracy", np.zeros((2, 3)), np.array([-1, 2]), r"labels run from -1 to 2"),
        ("top5", np.zeros((2, 5)), np.array([0, 2]), "top5 of 5 classes is always 1"),
        ("mse", np.zeros((2, 5)), np.zeros((2, 4)), r"shape of the output \[2, 5\]; found \[2, 4\]"),
        ("mse", np.zeros((1, 2)), np.zeros((2, 1)), "shape of the output"),
    ],
)
def test_labels_that_do_not_fit(name: str, output: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        value(name, (output, labels))


@pytest.mark.parametrize("name", ["accuracy", "top5", "mse"])
def test_nothing_seen_is_no_value(name: str) -> None:
    with pytest.raises(DataError, match="of no samples"):
        metric_from(name).value()


OWN = """
import numpy as np

def largest(output, labels):
    return float(output.max() + labels.sum())

def loss(output, labels, scale=1.0):
    return float(np.mean(output)) * scale
loss.larger_is_better = False

class Counting:
    name, larger_is_better = "counting", True
    def __init__(self):
        self.count = 0
    def update(self, output, labels):
        self.count += len(labels)
    def value(self):
        return float(self.count)

def nothing():
    return None

def words(output, labels):
    return "much"

three = lambda a, b, c: 0
constant = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_metrics.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    monkeypatch.delitem(__import__("sys").modules, "own_metrics", raising=False)


@pytest.mark.usefixtures("own")
def test_a_function_of_a_batch_is_averaged_over_samples() -> None:
    metric: Metric = metric_from("own_metrics:largest")
    assert (metric.name, metric.larger_is_better) == ("largest", True)
    metric.update(np.array([1.0, 2.0, 4.0]), np.zeros(3))
    metric.update(np.array([8.0]), np.ones(1))
    assert metric.value() == (3 * 4.0 + 9.0) / 4
    assert metric_from("own_metrics:loss").larger_is_better is False


@pytest.mark.usefixtures("own")
def test_a_function_without_arguments_gives_a_metric_anew() -> None:
    for _ in range(2):
        metric = metric_from("own_metrics:Counting")
        metric.update(np.zeros((5, 2)), np.zeros(5))
        assert (metric.name, metric.value()) == ("counting", 5.0)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("f1", "no metric 'f1'; give accuracy, top5, mse, or module:function"),
        ("no_such_module:f", "module 'no_such_module' cannot be imported"),
        (":f", "module '' fails while it is imported"),
        ("broken:f", r"module 'broken' fails while it is imported \(ZeroDivisionError: division by zero\)"),
        ("own_metrics:f", "own_metrics has no 'f'"),
        ("own_metrics:constant", "expected a function, found int"),
        ("own_metrics:nothing", r"expected a function of \(output, labels\)"),
        ("own_metrics:three", r"expected a function of \(output, labels\)"),
    ],
)
def test_what_is_no_metric(spec: str, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        metric_from(spec)


@pytest.mark.usefixtures("own")
def test_a_function_that_gives_no_number() -> None:
    metric = metric_from("own_metrics:words")
    with pytest.raises(DataError, match="metric words gave 'much'; expected a number"):
        metric.update(np.zeros((1, 2)), np.zeros(1))
