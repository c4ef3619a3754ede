"""Samples that users' functions make: their own, loaders, iterables, pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.errors import DataError, SelectionError

from onnxprune.runtime import TensorSpec
from onnxprune.samples import read_pair, read_samples

SpecOf = Callable[..., TensorSpec]
Own = Callable[[str], None]

SAMPLES = """
class Squares:
    note = "squares"
    def __len__(self):
        return 5
    def batch(self, rows):
        return {"x": np.stack([rows, rows**2], 1).astype(np.float64)}, rows.astype(np.int16)
"""
ROWS = np.array([3, 0, 3], np.int64)
EXPECTED = [[3, 9], [0, 0], [3, 9]]


def check(samples: Any, labels: list[int] | None = None) -> None:
    feeds, found = samples.batch(ROWS)
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].tolist() == EXPECTED
    assert found.dtype == np.int64
    assert found.tolist() == (labels or [3, 0, 3])


def test_samples_are_taken_as_they_are_and_checked(own_module: Own, spec_of: SpecOf) -> None:
    own_module(SAMPLES)
    samples = read_samples("own_data:Squares", [spec_of("x", ("N", 2))])
    assert (len(samples), samples.note) == (5, "squares")
    check(samples)
    with pytest.raises(
        DataError, match=r"squares: x does not fit; expected x float32\[N, 3\]; found x float64\[3, 2\]"
    ):
        read_samples("own_data:Squares", [spec_of("x", ("N", 3))]).batch(ROWS)
    with pytest.raises(DataError, match=r"nothing for input y; expected y float32\[N, 2\]; found x float64\[3, 2\]"):
        read_samples("own_data:Squares", [spec_of("y", ("N", 2))]).batch(ROWS)
    with pytest.raises(DataError, match="x is float64, but the model takes int64"):
        read_samples("own_data:Squares", [spec_of("x", ("N", 2), np.int64)]).batch(ROWS)


def test_labels_must_count_the_rows(own_module: Own, spec_of: SpecOf) -> None:
    own_module(SAMPLES.replace("rows.astype(np.int16)", "rows[1:]"))
    with pytest.raises(DataError, match=r"squares: labels \[2\] for 3 samples"):
        read_samples("own_data:Squares", [spec_of("x", ("N", 2))]).batch(ROWS)


def test_a_fixed_batch_does_not_limit_the_rows(own_module: Own, spec_of: SpecOf) -> None:
    own_module(SAMPLES)
    check(read_samples("own_data:Squares", [spec_of("x", (1, 2))]))


ITEMS = {
    "pairs": "({'x': x}, y)",
    "in order": "(x, y)",
    "dicts": "{'x': x, 'labels': y, 'other': 1}",
    "label": "{'x': x, 'label': y}",
    "lists": "[x.tolist(), y.tolist()]",
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_an_iterable_of_batches_is_read_into_memory(own_module: Own, spec_of: SpecOf, item: str) -> None:
    own_module(f"""
def batches():
    for rows in (np.arange(2), np.arange(2, 5)):
        x, y = np.stack([rows, rows**2], 1).astype(np.float64), rows
        yield {item}
""")
    specs = [spec_of("x", ("N", 2))]
    if item.startswith("["):
        own_module("def batches():\n    return [[[[0., 0.], [1., 1.]], [0, 1]], [[[2., 4.], [3., 9.]], [2, 3]]]")
    samples = read_samples("own_data:batches", specs)
    check(samples)
    assert samples.note == f"own_data:batches: {len(samples)} samples, read into memory"


def test_an_input_alone_has_no_labels(own_module: Own, spec_of: SpecOf) -> None:
    own_module("def batches():\n    return [np.zeros((2, 3), np.float32)] * 3")
    samples = read_samples("own_data:batches", [spec_of("x", ("N", 3))])
    assert len(samples) == 6
    assert samples.batch(ROWS)[1] is None


def test_a_pair_is_to_train_and_to_validate_on(own_module: Own, spec_of: SpecOf) -> None:
    own_module(SAMPLES + "def pair():\n    return Squares(), [({'x': np.zeros((2, 2), np.float32)}, np.zeros(2, int))]")
    train, held_out = read_pair("own_data:pair", [spec_of("x", ("N", 2))])
    assert held_out is not None
    assert (len(train), len(held_out)) == (5, 2)
    assert len(read_samples("own_data:pair", [spec_of("x", ("N", 2))])) == 5


def test_a_loader_of_torch_is_read_by_row(own_module: Own, spec_of: SpecOf) -> None:
    pytest.importorskip("torch", reason="torch is not installed (extra torch)")
    own_module("""
import torch
class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 5
    def __getitem__(self, row):
        return torch.tensor([float(row), row**2.0], requires_grad=True), row + 10
def loaders():
    return (torch.utils.data.DataLoader(Items(), batch_size=2, shuffle=True),
            torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(3, 2), torch.ones(3).long())))
""")
    train, held_out = read_pair("own_data:loaders", [spec_of("x", ("N", 2))])
    check(train, [13, 10, 13])
    assert train.note == "own_data:loaders: 5 samples of a loader's data set"
    assert held_out is not None
    assert held_out.batch(ROWS[1:2])[0]["x"].tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f():\n    return 3", "gave int; expected Samples"),
        ("def f():\n    return 'abc'", "gave str; expected Samples"),
        ("def f():\n    return []", r"gave no batches; the model takes x float32\[N, 2\]"),
        ("def f():\n    return [(1, 2, 3)]", r"a batch has 3 parts; expected x float32\[N, 2\] in this order"),
        ("def f():\n    return [(np.zeros((4, 2)), np.zeros(3, int))]", r"a batch has \[3, 4\] samples in its parts"),
        ("def f():\n    return [(np.zeros((4, 2)), list('abcd'))]", "labels are str"),
        ("def f():\n    return [(np.zeros((2, 2)), [1, 2]), np.zeros((2, 2))]", None),
        ("def f():\n    return [{'x': np.zeros((4, 2, 2))}]", "x does not fit"),
        ("def f():\n    return [{'x': np.zeros((4, 2))}, {'x': np.float32(1)}]", "x does not fit"),
    ],
)
def test_what_is_no_data(own_module: Own, spec_of: SpecOf, code: str, message: str | None) -> None:
    own_module(code)
    with pytest.raises(DataError, match=message):
        read_samples("own_data:f", [spec_of("x", ("N", 2))])


def test_batches_of_different_lengths_of_sequence(own_module: Own, spec_of: SpecOf) -> None:
    own_module("def f():\n    return [np.zeros((2, 3), int), np.zeros((2, 4), int)]")
    with pytest.raises(DataError, match="batches differ in shape"):
        read_samples("own_data:f", [spec_of("x", ("N", "T"), np.int64)])


def test_a_function_takes_no_options(own_module: Own, spec_of: SpecOf) -> None:
    own_module(SAMPLES)
    with pytest.raises(SelectionError, match=r"mean has no meaning for module:function \(it takes none\)"):
        read_samples("own_data:Squares", [spec_of("x", ("N", 2))], ["mean=1"])
    with pytest.raises(SelectionError, match="own_data has no 'Cubes'"):
        read_samples("own_data:Cubes", [spec_of("x", ("N", 2))])
