"""Statistics of BatchNormalization: every node stores what reaches it, and what may not be touched is left and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, Skip, State
from onnxprune_passes.storage import from_proto, load, to_proto

from onnxprune.cli.main import cli
from onnxprune.feeds import Feeds
from onnxprune.recalibration import FEWEST, Recalibrate, inputs_to_recalibrate
from onnxprune.resolve import options_from
from onnxprune.steps import Steps
from onnxprune.verification import Inputs, Source

Array = npt.NDArray[Any]

RESIDUAL = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,6,6] x) => (float[N,4] y) {
    a = Conv<pads=[1,1,1,1]>(x, c1) an = BatchNormalization(a, s1, b1, m1, v1) ar = Relu(an)
    b = Conv<pads=[1,1,1,1]>(ar, c2) bn = BatchNormalization(b, s2, b2, m2, v2)
    c = Conv(ar, c3) cn = BatchNormalization(c, s3, b3, m3, v3)
    d = Add(bn, cn) e = Relu(d) p = GlobalAveragePool(e) f = Flatten(p)
    g = Gemm<transB=1>(f, f1) h = BatchNormalization(g, s4, b4, m4, v4) y = Gemm<transB=1>(h, f2) }"""
"""Two nodes in a row, two beside each other, and one behind a Gemm."""
SHAPES = {"c1": (6, 3, 3, 3), "c2": (8, 6, 3, 3), "c3": (8, 6, 1, 1), "f1": (5, 8), "f2": (4, 5)}
SIZES = (6, 8, 8, 5)
REACH = ("a", "b", "c", "g")


def residual(dtype: Any = np.float32, text: str = RESIDUAL, **arrays: Array) -> Model:
    """The net with normal weights and statistics that fit nothing."""
    rng = np.random.default_rng(0)
    values: dict[str, Array] = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    for index, size in enumerate(SIZES, start=1):
        values |= {f"{part}{index}": rng.standard_normal(size) for part in "sb"}
        values |= {f"m{index}": np.full(size, 7.0), f"v{index}": np.full(size, 9.0)}
    proto = onnx.parser.parse_model(text)
    for name, array in (values | arrays).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array).astype(dtype), name))
    return from_proto(proto)


def inputs(count: int = 96, batch: int = 40, *, dtype: Any = np.float32, float32: bool = False) -> Inputs:
    x = (np.random.default_rng(1).standard_normal((count, 3, 6, 6)) * 3 + 1).astype(dtype)
    batches = tuple({"x": x[start : start + batch]} for start in range(0, count, batch))
    return Inputs(Feeds(batches, None, "the test"), float32)


def reaches(model: Model, feeds: Feeds) -> list[Array]:
    """What reaches each BatchNormalization of the net, all samples, by onnxruntime without optimisations."""
    proto = to_proto(model)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in REACH)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    found = [session.run(list(REACH), dict(batch)) for batch in feeds.batches]
    return [np.concatenate([one[index] for one in found]).astype(np.float64) for index in range(len(REACH))]


def test_every_node_stores_what_reaches_it() -> None:
    before, given = State(residual()), inputs()
    after = Recalibrate(given)(before)
    for index, values in enumerate(reaches(after.model, given.feeds), start=1):
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        mean, variance = (after.model.initializers[f"{part}{index}"] for part in "mv")
        scale = np.sqrt(values.var(axis=axes))
        assert np.abs(mean - values.mean(axis=axes)).max() <= 1e-5 * scale.max()
        np.testing.assert_allclose(variance, values.var(axis=axes, ddof=1), rtol=1e-5)
    assert before.model.initializers["m1"].tolist() == [7.0] * 6
    changes = [entry for entry in after.log if isinstance(entry, Change)]
    assert changes == [Change("recalibrate", "statistics of 4 BatchNormalizations from 96 samples, the test")]
    assert not after.masks


def test_everything_else_is_the_same_object() -> None:
    before = State(residual())
    after = Recalibrate(inputs())(before)
    for key in before.model.initializers:
        if key[0] not in "mv":
            assert after.model.initializers.source(key) is before.model.initializers.source(key)


@pytest.mark.parametrize("batch", [1, 7, 96])
def test_how_samples_are_cut_in_batches_does_not_matter(batch: int) -> None:
    whole, cut = (Recalibrate(inputs(batch=size))(State(residual())).model for size in (96, batch))
    for key in ("m1", "v1", "m4", "v4"):
        np.testing.assert_allclose(cut.initializers[key], whole.initializers[key], rtol=1e-5, atol=1e-5)


def test_large_means_do_not_swallow_small_variances() -> None:
    """float32 activations around 4096 with a deviation of 1: sums of squares in float32 would lose the variance."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,2] x) => (float[N,2] y) {
        y = BatchNormalization(x, s, b, m, v) }"""
    proto = onnx.parser.parse_model(text)
    for name in "sbmv":
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), name))
    x = (4096 + np.random.default_rng(0).integers(-1, 2, (4000, 2))).astype(np.float32)
    feeds = Feeds(tuple({"x": x[start : start + 33]} for start in range(0, 4000, 33)), None, "")
    after = Recalibrate(Inputs(feeds))(State(from_proto(proto))).model
    np.testing.assert_allclose(after.initializers["v"], x.astype(np.float64).var(axis=0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(after.initializers["m"], x.astype(np.float64).mean(axis=0), rtol=1e-7)


def test_nodes_beside_each_other_are_measured_in_one_run() -> None:
    seen: list[str] = []
    steps = Steps(1, lambda name, _done, _total: seen.append(name))
    Recalibrate(inputs(), steps=steps)(State(residual()))
    assert seen == [f"recalibrate BatchNormalization {level} of 3" for level in (1, 2, 3)]


def test_channels_that_are_constant_keep_their_statistics() -> None:
    c1 = np.random.default_rng(5).standard_normal(SHAPES["c1"])
    c1[2] = 0
    after = Recalibrate(inputs())(State(residual(c1=c1))).model.initializers
    assert (after["m1"][2], after["v1"][2]) == (7.0, 9.0)
    assert not (after["m1"] == 7.0)[[0, 1, 3, 4, 5]].any()


def test_a_second_run_changes_nothing_beyond_rounding() -> None:
    once = Recalibrate(inputs())(State(residual()))
    twice = Recalibrate(inputs())(once)
    for index in range(1, 5):
        np.testing.assert_allclose(
            twice.model.initializers[f"v{index}"], once.model.initializers[f"v{index}"], rtol=1e-5
        )


@pytest.mark.parametrize("count", [1, FEWEST - 1])
def test_too_few_samples_change_nothing(count: int) -> None:
    before = State(residual())
    after = Recalibrate(inputs(count))(before)
    assert after.model is before.model
    (skip,) = after.log
    assert isinstance(skip, Skip)
    assert skip.name == "an"
    assert skip.reason.startswith(f"only {count} samples reach it, and 32 are needed")
    assert Recalibrate(inputs(FEWEST))(before).model is not before.model


def test_activations_without_a_finite_mean_change_nothing() -> None:
    c2 = np.full(SHAPES["c2"], 3e38)
    after = Recalibrate(inputs())(State(residual(c2=c2)))
    assert after.model.initializers["m2"].tolist() == [7.0] * 8
    assert "what reaches it holds NaN or infinity" in {entry.reason for entry in after.log if isinstance(entry, Skip)}
    assert "m1" not in {entry.name for entry in after.log if isinstance(entry, Skip)}


@pytest.mark.parametrize(
    ("old", "new", "name", "reason"),
    [
        ("BatchNormalization(b,", "BatchNormalization<training_mode=0>(b,", "", ""),
        ("(c, s3, b3, m3, v3)", "(c, s3, b3, m2, v3)", "cn", "its statistics 'm2' are read elsewhere too"),
        ("(c, s3, b3, m3, v3)", "(c, s3, b3, mc, v3) mc = Neg(m3)", "cn", "its statistics are computed"),
        ("=> (float[N,4] y)", "=> (float[N,4] y, float[8] m3)", "cn", "its statistics 'm3' are read elsewhere too"),
    ],
)
def test_what_may_not_be_replaced_is_left_and_named(old: str, new: str, name: str, reason: str) -> None:
    if "mc = Neg" in new:
        text = RESIDUAL.replace("a = Conv", "mc = Neg(m3) a = Conv").replace(old, "(c, s3, b3, mc, v3)")
    else:
        text = RESIDUAL.replace(old, new)
    after = Recalibrate(inputs())(State(residual(text=text)))
    skips = {entry.name: entry.reason for entry in after.log if isinstance(entry, Skip)}
    assert skips.get("cn", "") == reason
    assert bool(skips) == bool(name)
    assert after.model.initializers["v4"][0] != 9.0
    assert (after.model.initializers["v3"][0] == 9.0) == bool(name)


def test_nodes_that_train_are_left() -> None:
    text = RESIDUAL.replace("bn = BatchNormalization(b,", "bn, rm, rv = BatchNormalization<training_mode=1>(b,")
    skips = [entry for entry in Recalibrate(inputs())(State(residual(text=text))).log if isinstance(entry, Skip)]
    assert [entry.name for entry in skips] == ["bn"]


def test_nodes_in_bodies_are_left() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,2] x, bool c) => (float[N,2] y) {
        y = If(c) <then_branch = t () => (float[N,2] a) { a = BatchNormalization(x, s, b, m, v) },
                   else_branch = e () => (float[N,2] d) { d = Identity(x) }> }"""
    proto = onnx.parser.parse_model(text)
    for name in "sbmv":
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), name))
    before = State(from_proto(proto))
    after = Recalibrate(inputs())(before)
    assert after.model is before.model
    assert after.log == (Skip("recalibrate", "a", "it is inside a body or a function"),)


def test_without_batch_normalization_there_is_nothing_to_do(net: Path) -> None:
    state = State(load(net))
    assert Recalibrate(inputs())(state) is state
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,6,6] x) => (float[N,6,4,4] y) { y = Conv(x, c1) }"""
    after = Recalibrate(inputs())(State(residual(text=text)))
    (skip,) = after.log
    assert isinstance(skip, Skip)
    assert skip.name == "the graph"


def test_constants_are_statistics_too() -> None:
    """Weights in Constant nodes, as several exporters write them."""
    proto = to_proto(residual())
    for index, tensor in enumerate(proto.graph.initializer):
        node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        proto.graph.node.insert(index, node)
    del proto.graph.initializer[:]
    after = Recalibrate(inputs())(State(from_proto(proto))).model
    plain = Recalibrate(inputs())(State(residual())).model
    assert np.array_equal(after.initializers["v4"], plain.initializers["v4"])
    stored = {node.output[0]: node for node in to_proto(after).graph.node if node.op_type == "Constant"}
    assert np.array_equal(numpy_helper.to_array(stored["v4"].attribute[0].t), plain.initializers["v4"])


@pytest.mark.parametrize(("kind", "dtype"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
def test_statistics_keep_their_type(kind: str, dtype: Any) -> None:
    model = residual(dtype, RESIDUAL.replace("float[", f"{kind}["))
    float32 = kind == "bfloat16"
    given = inputs(dtype=np.float32 if float32 else dtype, float32=float32)
    after = Recalibrate(given)(State(model)).model.initializers
    assert after["m1"].dtype == after["v1"].dtype == dtype
    plain = Recalibrate(inputs())(State(residual())).model.initializers
    np.testing.assert_allclose(after["v1"].astype(np.float64), plain["v1"], rtol=0.03)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    """The net as a file, and 96 labelled samples for it."""
    path, data = tmp_path / "m.onnx", tmp_path / "x.npz"
    given = inputs(96, 96)
    onnx.save(to_proto(Recalibrate(given)(State(residual())).model), str(path))
    np.savez(data, x=given.feeds.batches[0]["x"], labels=np.arange(96) % 4)
    return path, data


def _run(tmp_path: Path, saved: tuple[Path, Path], *options: str, data: bool = True) -> dict[str, Any]:
    out, report = tmp_path / "o.onnx", tmp_path / "r.json"
    given = ["--data", str(saved[1])] if data else []
    arguments = [str(saved[0]), "-o", str(out), "--json", str(report), "--encode", "dense", *given, *options]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def _by(report: dict[str, Any]) -> list[str]:
    return [note["by"] for note in report["changes"]]


def test_with_channels_and_data_it_is_done_unless_it_is_switched_off(tmp_path: Path, saved: tuple[Path, Path]) -> None:
    how = ("--channels", "0.5", "--round-to", "1")
    report = _run(tmp_path, saved, *how)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "o.onnx", "r.json", "x.npz"]
    assert _by(report) == ["prune-channels", "recalibrate", "remove-dead-neurons"]
    assert (report["verified"], report["recipe"]["recalibrate"]) == (True, True)
    after = load(tmp_path / "o.onnx").initializers
    assert after["c1"].shape[0] < 6
    off = _run(tmp_path, saved, *how, "--no-recalibrate")
    assert _by(off) == ["prune-channels", "remove-dead-neurons"]
    assert off["recipe"]["recalibrate"] is False
    assert not np.array_equal(after["v2"], load(tmp_path / "o.onnx").initializers["v2"])
    assert _by(_run(tmp_path, saved, *how, data=False)) == ["prune-channels", "remove-dead-neurons"]


def test_where_nothing_was_pruned_statistics_stay(tmp_path: Path, saved: tuple[Path, Path]) -> None:
    report = _run(tmp_path, saved, "--channels", "0", "--recalibrate")
    assert "recalibrate" not in _by(report)
    before, after = (load(path).initializers for path in (saved[0], tmp_path / "o.onnx"))
    assert np.array_equal(before["v1"], after["v1"])


def test_after_magnitude_pruning_only_when_asked_for(tmp_path: Path, saved: tuple[Path, Path]) -> None:
    assert _by(_run(tmp_path, saved, "--sparsity", "0.5")) == ["magnitude-prune", "remove-dead-neurons"]
    assert _by(_run(tmp_path, saved, "--sparsity", "0.5", "--recalibrate"))[:2] == ["magnitude-prune", "recalibrate"]
    both = _by(_run(tmp_path, saved, "--channels", "0.3", "--sparsity", "0.5"))
    assert both[:3] == ["prune-channels", "magnitude-prune", "recalibrate"]


def test_what_is_stored_is_what_reaches_the_output(tmp_path: Path, saved: tuple[Path, Path]) -> None:
    """The file's own activations have the statistics that the file stores, after shrinking too."""
    _run(tmp_path, saved, "--channels", "0.5", "--round-to", "1")
    model = load(tmp_path / "o.onnx")
    x = np.load(saved[1])["x"]
    for index, values in enumerate(reaches(model, Feeds(({"x": x},), None, "")), start=1):
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        variance = model.initializers[f"v{index}"]
        np.testing.assert_allclose(variance, values.var(axis=axes, ddof=1), rtol=1e-4)


@pytest.mark.parametrize(("count", "taken"), [(4096, 4096), (5000, 4096), (9000, 4096)])
def test_so_many_samples_are_enough(tmp_path: Path, saved: tuple[Path, Path], count: int, taken: int) -> None:
    """Batches of 64, the first and the last among them."""
    data = tmp_path / "many.npz"
    x = np.zeros((count, 3, 6, 6), np.float32)
    x[:64], x[-1] = 1, 2
    np.savez(data, x=x)
    feeds = inputs_to_recalibrate(saved[0], Source(str(data))).feeds
    assert sum(len(batch["x"]) for batch in feeds.batches) in {taken, taken - 64 + count % 64}
    assert (feeds.batches[0]["x"] == 1).all()
    assert (feeds.batches[-1]["x"][-1] == 2).all()
    assert ("64 of them, spread evenly" in feeds.note) == (count > 4096)


def test_what_was_left_is_a_warning(tmp_path: Path, saved: tuple[Path, Path]) -> None:
    few = tmp_path / "few.npz"
    np.savez(few, x=np.load(saved[1])["x"][:8])
    report = _run(tmp_path, (saved[0], few), "--channels", "0.5")
    assert any(text.startswith("recalibrate: left an alone: only 8 samples reach it") for text in report["warnings"])


def test_it_needs_data() -> None:
    with pytest.raises(SelectionError, match="--recalibrate needs --data"):
        options_from("m.onnx", {"channels": 0.5, "recalibrate": True})
    assert options_from("m.onnx", {"channels": 0.5}).recalibrate is False
    assert options_from("m.onnx", {"channels": 0.5, "data": "x.npz"}).recalibrate is True
    assert options_from("m.onnx", {"sparsity": 0.5, "data": "x.npz"}).recalibrate is False
    assert options_from("m.onnx", {"data": "x.npz", "recalibrate": True}).recalibrate is True
    assert options_from("m.onnx", {"recalibrate": False}, {"channels": 0.5, "data": "x"}).recalibrate is False
