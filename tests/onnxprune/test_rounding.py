"""`--round-to auto`: what is timed, what is chosen, and how it is said."""

from __future__ import annotations

import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner
from onnx import TensorProto
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.errors import DataError, SelectionError, VerifyError
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load

from onnxprune import rounding
from onnxprune.cli.main import cli
from onnxprune.prune import prune_file
from onnxprune.records import RoundingCandidate
from onnxprune.report import Report
from onnxprune.resolve import options_from
from onnxprune.rounding import choice, inputs_for_timing, measure_roundings
from onnxprune.runtime import median_interval, open_session, time_pair, timing
from onnxprune.runtime.child import run_child
from onnxprune.verification import Source

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six pairs are enough to see that something was timed."""
    monkeypatch.setattr(rounding, "SECONDS", 0.0)


def _prune(net: Path, **given: Any) -> Report:
    values = {name.replace("_", "-"): value for name, value in given.items()}
    out = str(net.with_name("out.onnx"))
    return prune_file(options_from(str(net), {"quiet": True, "output": out, "encode": "dense", **values}))


@pytest.mark.parametrize("count", [*range(6, 41), 100])
def test_an_interval_of_the_median_is_the_narrowest_at_95_percent(count: int) -> None:
    """Of the values as often more as fewer than half lie below the median: a binomial."""
    low, high = median_interval([float(value) for value in range(count)])
    assert low + high == count - 1

    def outside(values_cut: int) -> float:
        return float(2 * sum(math.comb(count, below) for below in range(values_cut)) / 2**count)

    assert outside(int(low) + 1) <= 0.05 < outside(int(low) + 2)


def test_too_few_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match="5 values: give at least 6"):
        median_interval([1.0] * 5)


SUMS = """<ir_version: 8, opset_import: ["": 17]> g (float[256,256] x) => (float[256,256] y) {
    a = Add(x, x) b = Add(a, x) y = Add(b, x) }"""


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


def test_the_slower_of_two_is_slower(tmp_path: Path) -> None:
    """Three products of 256 x 256 matrices take some 50 times as long as three sums."""
    sums = _write(tmp_path, "sums.onnx", SUMS)
    products = _write(tmp_path, "products.onnx", SUMS.replace("Add", "MatMul"))
    feeds = {"x": np.ones((256, 256), np.float32)}
    found = time_pair(sums, products, feeds, pairs=1, seconds=0.0)
    assert found.pairs == 6
    assert 1 < found.low <= found.ratio <= found.high
    assert found.after_ms > found.before_ms > 0


def test_so_many_pairs_are_timed_as_fit_the_time(tmp_path: Path) -> None:
    sums = _write(tmp_path, "sums.onnx", SUMS)
    with open_session(sums, optimize=True, threads=1) as session:
        feeds = {"x": np.ones((256, 256), np.float32)}
        assert timing.timed(session, session, feeds, pairs=9, seconds=60.0).pairs == 9
        assert timing.timed(session, session, feeds, pairs=9, seconds=0.0).pairs == 6
        with pytest.raises(DataError, match="input x float32"):
            timing.timed(session, session, {"x": np.ones((2, 2), np.float32)}, pairs=9, seconds=0.0)


@pytest.mark.parametrize(("flush", "wanted"), [(False, "1e-40"), (True, "0.0")])
def test_denormals_are_flushed_on_request(flush: bool, wanted: str) -> None:
    """In a process of its own: the first session decides."""
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) { y = Mul(x, x) }'
    code = f"""import numpy, onnx.parser, onnxprune.runtime as runtime
model = onnx.parser.parse_model({text!r}).SerializeToString()
with runtime.open_session(model, optimize=True, threads=1, flush_denormals={flush}) as session:
    print(float(str(runtime.run(session, {{"x": numpy.full(64, 1e-20, numpy.float32)}})["y"][7])))"""
    assert run_child(code).stdout.decode().strip() == wanted


def test_timing_flushes_denormals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    real = open_session

    def watched(model: Any, *, flush_denormals: bool, **options: Any) -> Any:
        asked.append(flush_denormals)
        return real(model, **options)

    sums = str(_write(tmp_path, "sums.onnx", SUMS))
    content = pickle.dumps((sums, sums, {"x": np.ones((256, 256), np.float32)}, 1, 6, 0.0))
    monkeypatch.setattr(timing, "open_session", watched)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    timing.main()
    assert asked == [True, True]


def _candidate(round_to: int, nbytes: int, low: float, ratio: float, high: float) -> RoundingCandidate:
    return RoundingCandidate(
        round_to=round_to,
        parameters=nbytes // 4,
        dense_macs=None,
        bytes=nbytes,
        pairs=60,
        milliseconds=ratio,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
    )


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([(1, 100, 1.1, 1.2, 1.3), (4, 110, 0.7, 0.75, 0.8), (8, 120, 0.5, 0.55, 0.6)], 8),
        ([(1, 100, 1.1, 1.2, 1.3), (4, 110, 0.5, 0.6, 0.7), (8, 120, 0.5, 0.55, 0.6)], 4),
        ([(1, 100, 0.6, 0.7, 0.8), (4, 110, 0.5, 0.55, 0.6), (8, 90, 0.9, 0.95, 1.0)], 1),
        ([(1, 100, 0.5, 0.5, 0.6), (4, 100, 0.5, 0.5, 0.6), (8, 120, 0.4, 0.45, 0.49)], 8),
        ([(1, 100, 0.5, 0.5, 0.6), (4, 100, 0.5, 0.5, 0.6), (8, 120, 0.4, 0.45, 0.51)], 1),
    ],
)
def test_the_fastest_is_chosen_and_of_equally_fast_ones_the_smaller(
    candidates: list[tuple[int, int, float, float, float]], chosen: int
) -> None:
    assert choice(tuple(_candidate(*one) for one in candidates)) == chosen


def test_the_command_measures_and_takes_what_it_chose(net: Path, tmp_path: Path) -> None:
    data, out, file = (str(tmp_path / name) for name in ("x.npz", "out.onnx", "report.json"))
    np.savez(data, x=np.ones((70, 64), np.float32), labels=np.zeros(70, np.int64))
    how = ["--channels", "0.3", "--scope", "layer", "--round-to", "auto", "--round-threads", "2", "--data", data]
    done = CliRunner().invoke(cli, [str(net), "-o", out, "--json", file, *how], catch_exceptions=False)
    assert done.exit_code == 0
    report = json.loads(Path(file).read_text())
    found = report["rounding"]
    assert [one["round_to"] for one in found["candidates"]] == [1, 4, 8, 16]
    wide = {1: [68, 23, 10], 4: [68, 24, 10], 8: [72, 24, 10], 16: [80, 32, 10]}
    for one in found["candidates"]:
        first, second, third = wide[one["round_to"]]
        assert one["parameters"] == one["dense_macs"] == 64 * first + first * second + second * third
        assert one["pairs"] == 6
        assert 0 < one["ratio_low"] <= one["ratio"] <= one["ratio_high"]
        assert one["bytes"] > 4 * one["parameters"]
        assert one["milliseconds"] > 0
    assert found["threads"] == 2
    assert found["inputs_from"] == "the first of x.npz: 70 samples in 70 batches of 1"
    assert found["chosen"] == report["recipe"]["round-to"]
    assert [layer["shape_after"][0] for layer in report["layers"]] == wide[found["chosen"]]
    assert report["verified"]
    assert "measure" in report["seconds"]
    assert "Roundings (threads: 2; original:" in done.output
    row = next(line for line in done.output.splitlines() if line.rstrip().endswith("chosen"))
    one = next(one for one in found["candidates"] if one["round_to"] == found["chosen"])
    assert row.split()[:2] == [str(one["round_to"]), f"{one['parameters']:,}"]
    assert f"{one['ratio']:.3f} ({one['ratio_low']:.3f} to {one['ratio_high']:.3f})" in row


def test_what_has_the_same_shapes_is_timed_once(net: Path) -> None:
    report = _prune(net, channels=0.5, scope="layer", round_to="auto")
    found = report.rounding
    assert found is not None
    assert [one.same_as for one in found.candidates] == [None, 1, 1, 1]
    assert found.chosen == report.recipe.round_to == 1
    assert found.threads == 1
    assert found.inputs_from == "1 seeded batches (seed 0): x [2, 64]"
    assert report.verified


def test_a_type_that_onnxruntime_does_not_compute_in_is_timed_in_float32(net: Path) -> None:
    model = onnx.load(str(net))
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, TensorProto.BFLOAT16, array.shape, array.tobytes(), True))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    onnx.save(model, str(net))
    report = _prune(net, channels=0.5, scope="layer", round_to="auto")
    assert report.rounding is not None
    assert "models cast to float32" in report.rounding.inputs_from
    assert report.verified
    assert sorted(path.name for path in net.parent.iterdir()) == ["net.onnx", "out.onnx"]


def test_in_python(net: Path) -> None:
    model = load(net)

    def smaller(round_to: int) -> Model:
        return RemoveDeadNeurons()(PruneChannels(0.5, scope="layer", round_to=round_to)(State(model))).model

    found = measure_roundings(net, smaller, inputs_for_timing(net), seconds=0.0)
    assert found.chosen == 1
    assert found.candidates[0].parameters == 64 * 48 + 48 * 16 + 16 * 10


def test_other_data_gives_one_sample_too(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (net.parent / "my_data.py").write_text(
        "import numpy as np\ndef rows():\n    return [{'x': np.ones((9, 64), np.float32), 'labels': np.zeros(9, int)}]"
    )
    monkeypatch.syspath_prepend(str(net.parent))
    found = inputs_for_timing(net, Source("my_data:rows")).feeds.batches
    assert [batch["x"].shape for batch in found] == [(1, 64)]


def test_a_candidate_that_does_not_run_is_named(net: Path) -> None:
    broken = load(net).with_initializers({"fc2.weight": np.ones((32, 95), np.float32)})
    with pytest.raises(VerifyError, match=r"rounded_to_1.onnx cannot be timed beside .*net.onnx"):
        measure_roundings(net, lambda _: broken, inputs_for_timing(net), seconds=0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"round-to": "auto"}, "--round-to belongs to --channels"),
        ({"channels": 0.5, "round-to": "auto", "shrink": False}, "--no-shrink keeps them"),
        ({"channels": 0.5, "round-to": 8, "round-threads": 1}, "--round-threads belongs to --round-to auto"),
        ({"channels": 0.5, "round-to": "auto", "round-threads": 0}, "--round-threads: expected int >= 1"),
        ({"channels": 0.5, "round-to": "fast"}, "--round-to"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        options_from("m.onnx", given)
