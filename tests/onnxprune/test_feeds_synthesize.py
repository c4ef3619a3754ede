"""Feeds made up for a model: ranges of integers, sizes of dynamic axes, and what happens when nothing works."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnxprune_passes.errors import DataError, ModelError, VerifyError

from onnxprune.feeds import Feeds, search, synthesize_feeds
from onnxprune.feeds.ranges import gather_rows
from onnxprune.runtime import open_session, run

DATA = Path(os.environ.get("ONNXPRUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
HEAD = '<ir_version: 8, opset_import: ["" : 18]> g '


def write(folder: Path, text: str) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(text if text.startswith("<") else HEAD + text).SerializeToString())
    return path


def made_up(folder: Path, text: str, batches: int = 1) -> Feeds:
    return synthesize_feeds(write(folder, text), batches, 0)


def test_floats_are_standard_normal_and_seeded(tmp_path: Path) -> None:
    path = write(tmp_path, "(float[100, 100] x, double[2] d, float16[2] h) => (float[100, 100] y) { y = Relu(x) }")
    feeds, again, other = (synthesize_feeds(path, 2, seed) for seed in (0, 0, 1))
    x = feeds.batches[0]["x"]
    assert abs(float(x.mean())) < 0.05
    assert abs(float(x.std()) - 1) < 0.05
    assert [array.dtype.name for array in feeds.batches[0].values()] == ["float32", "float64", "float16"]
    assert len(feeds.batches) == 2
    assert not np.array_equal(x, feeds.batches[1]["x"])
    assert not np.array_equal(x, other.batches[0]["x"])
    for batch, twin in zip(feeds.batches, again.batches, strict=True):
        assert all(np.array_equal(batch[name], twin[name]) for name in batch)
    assert feeds.labels is None


def test_integers_and_booleans_that_index_nothing_are_0_or_1(tmp_path: Path) -> None:
    text = "(int64[200] i, uint8[200] u, bool[200] b) => (int64[200] y) { y = Identity(i) }"
    for array in made_up(tmp_path, text).batches[0].values():
        assert sorted(set(array.tolist())) == [0, 1]


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("y = Gather(t, i)", 5),
        ("y = Gather<axis = 1>(t, i)", 3),
        ("y = Gather<axis = -1>(t, i)", 3),
        ("j = Cast<to = 6>(i) y = Gather(t, j)", 5),
        ("j = Unsqueeze(i, zero) k = Concat<axis = 0>(j, j) y = Gather(t, k)", 5),
        ("j = Reshape(i, minus) y = Gather(t, j)", 5),
        ("u = Identity(t) v = Transpose(u) y = Gather(v, i)", 3),
        ("a = Gather(t, i) b = Gather(s, i) y = Concat<axis = -1>(a, b)", 4),
        ("c = Constant<value = float[7, 1] {1, 2, 3, 4, 5, 6, 7}>() y = Gather(c, i)", 7),
        ("q = DequantizeLinear(d, one) y = Gather(q, i)", 6),
        ("y = If(yes) <then_branch = g1 () => (float[a, b] z) { z = Gather(t, i) },"
         " else_branch = g2 () => (float[c, d] w) { w = Gather(s, i) }>", 4),
    ],
)  # fmt: skip
def test_integers_run_over_the_rows_they_index(tmp_path: Path, body: str, rows: int) -> None:
    text = f"""(int64[400] i) => (float[N, M] y) <float[5, 3] t = {{{", ".join("1" * 15)}}},
        float[4, 2] s = {{{", ".join("1" * 8)}}}, int8[6, 1] d = {{1, 1, 1, 1, 1, 1}}, float one = {{1}},
        int64[1] zero = {{0}}, int64[1] minus = {{-1}}, bool yes = {{1}}> {{ {body} }}"""
    path = write(tmp_path, text)
    assert gather_rows(path, ["i"]) == {"i": rows}
    assert sorted(set(synthesize_feeds(path, 1, 0).batches[0]["i"].tolist())) == list(range(rows))


def test_integers_are_followed_into_functions(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "local" : 1]> g (int64[300] i) => (float[300, 1] y)
        <float[5, 1] t = {1, 2, 3, 4, 5}> { y = local.Embed(t, i) }
        <domain: "local", opset_import: ["" : 18]> Embed (table, at) => (out) { out = Gather(table, at) }"""
    assert made_up(tmp_path, text).batches[0]["i"].max() == 4


def test_a_table_that_a_function_decodes_has_the_size_of_its_value_info(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "local" : 1]> g (int64[300] i) => (float[300, 1] y)
        <float[5] v = {1, 2, 3, 4, 5}, int64[2] s = {5, 1}, float[5, 1] t> { t = local.Decode(v, s) y = Gather(t, i) }
        <domain: "local", opset_import: ["" : 18]> Decode (values, shape) => (out) { out = Reshape(values, shape) }"""
    assert made_up(tmp_path, text).batches[0]["i"].max() == 4


def test_integers_stay_within_their_type(tmp_path: Path) -> None:
    ones = ", ".join("1" * 300)
    text = f"(uint8[2000] i) => (float[2000] y) <float[300] t = {{{ones}}}> {{ j = Cast<to = 6>(i) y = Gather(t, j) }}"
    assert made_up(tmp_path, text).batches[0]["i"].max() == 255


def test_weights_are_not_read_without_integer_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, inputs: Any) -> dict[str, int]:
        raise AssertionError(f"{path} was read for {list(inputs)}")

    monkeypatch.setattr(search, "gather_rows", refuse)
    assert len(made_up(tmp_path, "(float[2] x) => (float[2] y) { y = Relu(x) }").batches) == 1


def test_equal_symbols_get_equal_sizes_and_first_axes_two(tmp_path: Path) -> None:
    text = "(float[N, T] a, float[N, T] b, float[T, N] c) => (float[N, T] y) { y = Sum(a, b) }"
    shapes = {name: array.shape for name, array in made_up(tmp_path, text).batches[0].items()}
    assert shapes == {"a": (2, 2), "b": (2, 2), "c": (2, 2)}
    text = "(float[N, T, 3] a, float[3, N, T] b) => (float[N, T, 3] y) { y = Relu(a) }"
    shapes = {name: array.shape for name, array in made_up(tmp_path, text).batches[0].items()}
    assert shapes == {"a": (2, 2, 3), "b": (3, 2, 2)}


CONVOLUTION = f"""(float[N, 1, T] x) => (float[N, 1, S] y) <float[1, 1, 20] w = {{{", ".join("1" * 20)}}}>
    {{ y = Conv(x, w) }}"""


def test_other_axes_grow_until_the_model_runs(tmp_path: Path) -> None:
    feeds = made_up(tmp_path, CONVOLUTION, batches=3)
    assert [batch["x"].shape for batch in feeds.batches] == [(2, 1, 64)] * 3
    assert feeds.note == "3 seeded batches (seed 0): x [2, 1, 64]"


def test_an_axis_with_the_symbol_of_a_first_axis_does_not_grow(tmp_path: Path) -> None:
    text = CONVOLUTION.replace("(float[N, 1, T] x)", "(float[N, 1, T] x, float[3, N] b)")
    assert made_up(tmp_path, text).batches[0]["b"].shape == (3, 2)


def test_outputs_must_not_be_empty(tmp_path: Path) -> None:
    text = """(float[1, T] x) => (float[1, S] y) <int64[1] from = {100}, int64[1] to = {1000}, int64[1] axis = {1}>
        { y = Slice(x, from, to, axis) }"""
    assert made_up(tmp_path, text).batches[0]["x"].shape == (1, 224)


def test_outputs_must_be_finite_and_scalar_integers_are_tried(tmp_path: Path) -> None:
    text = """(float[2] x, int64 sr) => (float[2] y) <int64 wanted = {16000}>
        { same = Equal(sr, wanted) one = Cast<to = 1>(same) y = Div(x, one) }"""
    feeds = made_up(tmp_path, text, batches=2)
    assert [batch["sr"].tolist() for batch in feeds.batches] == [16000, 16000]
    assert feeds.note.endswith("x [2], sr [], scalar integers 16000")


def test_a_recurrent_state_has_its_batch_on_a_later_axis(tmp_path: Path) -> None:
    text = f"""(float[?, ?] x, float[2, ?, 1] state) => (float[2, ?, ?] y)
        <float[1, 1, 20] w = {{{", ".join("1" * 20)}}}, int64[1] one = {{1}}>
        {{ z = Unsqueeze(x, one) c = Conv(z, w) s = Squeeze(c, one) y = Add(state, s) }}"""
    shapes = {name: array.shape for name, array in made_up(tmp_path, text).batches[0].items()}
    assert shapes == {"x": (2, 64), "state": (2, 2, 1)}


def test_a_model_that_takes_one_sample_only_gets_one(tmp_path: Path) -> None:
    text = "(float[N, 3] x) => (float[1, 3] y) <int64[2] shape = {1, 3}> { y = Reshape(x, shape) }"
    assert made_up(tmp_path, text).batches[0]["x"].shape == (1, 3)


def test_when_nothing_works_the_inputs_are_named(tmp_path: Path) -> None:
    text = "(float[N, 3] x, int64 k) => (float[N, 3] y) { a = Abs(x) b = Neg(a) y = Log(b) }"
    with pytest.raises(DataError, match=r"inputs: x float32\[N, 3\], k int64\[\]; last.*y is not finite; .*--data"):
        made_up(tmp_path, text)


def test_feeds_that_would_fill_the_memory_are_not_tried(tmp_path: Path) -> None:
    text = "(float[N, A, B, C] x) => (float[N, A, B, C] y) { y = Sqrt(x) }"
    with pytest.raises(DataError, match=r"last attempt: inputs of more than \d+ elements are not tried"):
        made_up(tmp_path, text)


@pytest.mark.parametrize("declared", ["string[2]", "seq(float[2])"])
def test_inputs_that_cannot_be_drawn_are_refused(tmp_path: Path, declared: str) -> None:
    with pytest.raises(DataError, match=r"input x .* cannot be made up; .*--data"):
        made_up(tmp_path, f"({declared} x) => ({declared} y) {{ y = Identity(x) }}")


def test_a_file_that_does_not_load_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        synthesize_feeds(tmp_path / "nothing.onnx", 1, 0)


def dying(condition: str) -> str:
    return f"""
import os, sys
from onnxprune.feeds import search
problem_of_trial = search._problem_of_trial
def die_or_try(session, request, trial, bounds):
    if {condition}:
        os._exit(9)
    return problem_of_trial(session, request, trial, bounds)
search._problem_of_trial = die_or_try
search.main(sys.argv[1:])
"""


def test_a_size_that_kills_the_process_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_CHILD", dying("trial.size in (2, 64)"))
    assert made_up(tmp_path, CONVOLUTION).batches[0]["x"].shape == (2, 1, 224)
    monkeypatch.setattr(search, "_CHILD", dying("True"))
    with pytest.raises(DataError, match=r"last attempt: onnxruntime ended the process \(exit code 9\)"):
        made_up(tmp_path, CONVOLUTION)


def test_a_child_that_cannot_start_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_CHILD", "raise SystemExit('no such module')")
    with pytest.raises(VerifyError, match=r"tries input sizes failed: no such module; give --data"):
        made_up(tmp_path, CONVOLUTION)


def test_threads_reach_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int | None] = []

    def spy(path: str, *, optimize: bool, threads: int | None) -> Any:
        seen.append(threads)
        return open_session(path, optimize=optimize, threads=threads)

    monkeypatch.setattr("onnxprune.feeds.synthesize.open_session", spy)
    synthesize_feeds(write(tmp_path, "(float[2] x) => (float[2] y) { y = Relu(x) }"), 1, 0, threads=1)
    assert seen == [1]


@pytest.mark.parametrize(
    ("name", "input_name", "shape"),
    [
        ("silero_vad", "state", (2, 2, 128)),
        ("squeezenet_v1.0_deepcompressed", "data", (2, 3, 64, 64)),
        ("stories260K_llama_op18", "ids", (2, 2)),
        ("mnist_cntk_8", "Input3", (1, 1, 28, 28)),
    ],
)
def test_real_models(name: str, input_name: str, shape: tuple[int, ...]) -> None:
    path = DATA / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"no {path.name} in ONNXPRUNE_DATA")
    feeds = synthesize_feeds(path, 1, 0)
    assert feeds.batches[0][input_name].shape == shape
    with open_session(path, optimize=False) as session:
        assert all(np.isfinite(array).all() for array in run(session, feeds.batches[0]).values())
