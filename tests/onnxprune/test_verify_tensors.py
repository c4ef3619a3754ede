"""Fetching what onnxruntime computes for single tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from onnxprune_passes.errors import VerifyError

from onnxprune.runtime import open_session
from onnxprune.verify import fetch_tensors, same_bytes
from onnxprune.verify import tensors as tensors_module

TEXT = """<ir_version: 8, opset_import: ["" : 18, "onnxprune" : 1]> g (float[2, 3] x, float[2] v) => (float[2, 3] y)
    <float[2] kept = {7, -0.0}, int64[2] at = {1, 4}, int64[1] size = {6}, int64[2] shape = {2, 3}, bool yes = {1},
     float[2, 3] w, float[2] v = {5, 6}, float[1] broken = {1}>
    {
      w = onnxprune.Decode(kept, at, size, shape)
      n = Neg(w)
      y = Add(x, w)
      c = Constant<value = float[2] {1, 2}>()
      i = If(yes) <then_branch = t () => (float[2] z) { z = Add(kept, c) }, else_branch = e () => (float[2] u)
        { u = Identity(kept) }>
      a, b = Split<num_outputs = 2>(kept)
    }
    <domain: "onnxprune", opset_import: ["" : 18]> Decode (values, at, size, shape) => (tensor)
    { zeros = ConstantOfShape(size) flat = ScatterElements(zeros, at, values) tensor = Reshape(flat, shape) }"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx.parser.parse_model(TEXT).SerializeToString())
    return file


@pytest.mark.parametrize("optimize", [False, True])
def test_tensors_are_fetched_in_the_order_asked_for(path: Path, optimize: bool) -> None:
    expected = {
        "n": np.array([[-0.0, -7, -0.0], [-0.0, 0, -0.0]], np.float32),
        "w": np.array([[0, 7, 0], [0, -0.0, 0]], np.float32),
        "at": np.array([1, 4]),
        "v": np.array([5, 6], np.float32),
        "c": np.array([1, 2], np.float32),
        "i": np.array([8, 2], np.float32),
        "b": np.array([-0.0], np.float32),
    }
    fetched = list(fetch_tensors(path, expected, optimize=optimize))
    assert [name for name, _ in fetched] == list(expected)
    for name, array in fetched:
        assert same_bytes(array, expected[name]), name


def test_options_reach_the_sessions_which_are_one_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[bool, int | None, int]] = []
    sessions: list[Any] = []

    def spy(model: bytes, *, optimize: bool, threads: int | None) -> Any:
        assert all(session._session is None for session in sessions)
        opened.append((optimize, threads, len(model)))
        sessions.append(open_session(model, optimize=optimize, threads=threads))
        return sessions[-1]

    monkeypatch.setattr(tensors_module, "open_session", spy)
    list(fetch_tensors(path, ["at", "v"], optimize=True, threads=1))
    assert [(optimize, threads) for optimize, threads, _ in opened] == [(True, 1), (True, 1)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("y", r"tensor y depends on input x; fetch only constant tensors"),
        ("nothing", r"no tensor nothing in the top-level graph \(looking for nothing\)"),
        ("z", r"no tensor z in the top-level graph"),
    ],
)
def test_tensors_that_cannot_be_fetched(path: Path, name: str, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        list(fetch_tensors(path, [name], optimize=True))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_every_type_comes_back_with_its_bytes(tmp_path: Path, dtype: Any) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> g (float x) => (float y) { y = Neg(x) }')
    model.graph.initializer.append(numpy_helper.from_array(array, "w"))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    ((_, fetched),) = fetch_tensors(tmp_path / "model.onnx", ["w"], optimize=False)
    assert same_bytes(fetched, array)


def test_external_data_of_the_wanted_tensors_only_is_read(tmp_path: Path) -> None:
    arrays = {name: np.random.default_rng(seed).standard_normal(2048) for seed, name in enumerate(("a", "b"))}
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (double x) => (double y) { y = Neg(x) }'
    )
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, all_tensors_to_one_file=False)
    ((_, fetched),) = fetch_tensors(tmp_path / "m.onnx", ["b"], optimize=True)
    assert same_bytes(fetched, arrays["b"])
    (tmp_path / "a").unlink()
    assert [name for name, _ in fetch_tensors(tmp_path / "m.onnx", ["b"], optimize=True)] == ["b"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (np.array([0.0]), np.array([0.0]), True),
        (np.array([0.0]), np.array([-0.0]), False),
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.zeros(2, np.float32), np.zeros(2, np.int32), False),
        (np.zeros((2, 1)), np.zeros((1, 2)), False),
        (np.zeros((2, 0)), np.zeros((2, 0)), True),
        (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy(), True),
        (np.array(5), np.array(5), True),
        (np.array(["a"], object), np.array(["a"], object), True),
        (np.array(["a"], object), np.array(["b"], object), False),
    ],
)
def test_same_bytes(before: Any, after: Any, expected: bool) -> None:
    assert same_bytes(before, after) is expected
