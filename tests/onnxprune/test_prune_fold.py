"""`--fold`, and what shrinking takes out beside dead neurons, from the command line and from recipes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.pipeline import State

import onnxprune.products
from onnxprune.cli.main import cli
from onnxprune.prune import prune_file
from onnxprune.recipe import PruneOptions
from onnxprune.report import Report
from onnxprune.resolve import options_from

NET = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3,8,8] x{inputs}) => (float[N,10] y) {{
  i = Identity(x) a = Conv<pads=[1,1,1,1]>(i, w1) b = BatchNormalization(a, s, o, m, v) c = Relu(b) d = Dropout(c)
  e = Conv(d, w2, b2) f = Flatten(e) y = Gemm<transB=1>(f, w3) unused = Neg(c)
}}"""


@pytest.fixture
def conv_net(tmp_path: Path) -> Path:
    return _written(tmp_path / "net.onnx")


def _written(path: Path, inputs: str = "") -> Path:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(NET.format(inputs=inputs))
    shapes = {"w1": (16, 3, 3, 3), "w2": (4, 16, 3, 3), "b2": (4,), "w3": (10, 144), "s": (16,), "o": (16,), "m": (16,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {"v": rng.uniform(0.5, 2, 16).astype(np.float32), "spare": rng.standard_normal(100).astype(np.float32)}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.save(proto, str(path))
    return path


def _prune(net: Path, **given: Any) -> Report:
    values = {name.replace("_", "-"): value for name, value in given.items()}
    return prune_file(options_from(str(net), {"quiet": True, "output": str(net.with_name("out.onnx")), **values}))


def _ops(net: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(net.with_name("out.onnx"))).graph.node)


def _steps(report: Report) -> list[tuple[str, str, str]]:
    return [(one.before, one.after, one.wanted) for one in report.comparisons if one.optimizations == "off"]


def test_folding_is_asked_for(conv_net: Path) -> None:
    report = _prune(conv_net, encode="dense")
    assert report.verified
    assert not report.recipe.fold
    assert _ops(conv_net)["BatchNormalization"] == 1
    assert _steps(report) == [
        ("original", "pruned", "measured"),
        ("pruned", "shrunk", "within tolerance"),
        ("original", "encoded", "measured"),
    ]


def test_folding_is_a_step_with_a_tolerance_of_its_own(conv_net: Path) -> None:
    report = _prune(conv_net, fold=True, encode="dense")
    assert (report.status, report.verified) == ("done", True)
    assert _steps(report) == [
        ("original", "pruned", "measured"),
        ("pruned", "folded", "within tolerance"),
        ("original", "encoded", "measured"),
    ]
    folding = next(one for one in report.comparisons if one.after == "folded")
    assert 0 < (folding.outputs[0].max_error or 0) <= 1e-5
    assert _ops(conv_net) == {"Conv": 2, "Relu": 1, "Flatten": 1, "Gemm": 1}
    assert "fold-batch-norm: folded 1 of 1 BatchNormalizations into w1" in [
        f"{note.by}: {note.summary}" for note in report.changes
    ]
    assert "fold" in report.seconds
    assert report.layers[0].parameters_before == report.layers[0].parameters_after == 16 * 27


def test_nothing_to_fold_is_said(net: Path) -> None:
    said = {note.summary for note in _prune(net, fold=True).changes}
    assert "no BatchNormalization that may go" in said
    assert "no BatchNormalization that may go" not in {note.summary for note in _prune(net).changes}


def test_shrinking_takes_out_what_is_not_needed(conv_net: Path) -> None:
    report = _prune(conv_net, encode="dense")
    assert _ops(conv_net) == {"Conv": 2, "BatchNormalization": 1, "Relu": 1, "Flatten": 1, "Gemm": 1}
    assert "spare" not in {tensor.name for tensor in onnx.load(str(conv_net.with_name("out.onnx"))).graph.initializer}
    assert {"remove-no-ops", "remove-dead-neurons", "remove-unused"} <= {note.by for note in report.changes}


def test_without_shrinking_every_node_and_tensor_stays(conv_net: Path) -> None:
    report = _prune(conv_net, shrink=False, encode="dense")
    before, after = onnx.load(str(conv_net)).graph, onnx.load(str(conv_net.with_name("out.onnx"))).graph
    assert list(after.node) == list(before.node)
    assert [(one.name, list(one.dims)) for one in after.initializer] == [
        (one.name, list(one.dims)) for one in before.initializer
    ]
    assert {note.by for note in report.changes} == {"magnitude-prune"}
    with pytest.raises(SelectionError, match="--fold takes nodes away and --no-shrink keeps them all"):
        _prune(conv_net, shrink=False, fold=True)


def test_inputs_that_a_caller_may_set_stay_with_keep_inputs(tmp_path: Path) -> None:
    net = _written(tmp_path / "net.onnx", ", float[16] s")
    assert _prune(net, fold=True, encode="dense").verified
    assert _ops(net)["BatchNormalization"] == 0
    report = _prune(net, fold=True, keep_inputs=True, encode="dense")
    assert _ops(net)["BatchNormalization"] == 1
    assert [left.by for left in report.skips if "set by the caller" in left.reason] == ["fold-batch-norm"]


def test_the_order_of_the_passes() -> None:
    options = options_from("m.onnx", {"fold": True})
    assert [one.name for one in onnxprune.products.fold_passes(options)] == [
        "remove-unused",
        "remove-no-ops",
        "fold-batch-norm",
    ]
    assert [one.name for one in onnxprune.products.shrink_passes(options)] == [
        "remove-unused",
        "remove-no-ops",
        "remove-dead-neurons",
        "gather-live-inputs",
        "remove-unused",
    ]


@dataclass(frozen=True)
class _Breaks:
    """Stands in for folding and changes what the model computes."""

    keep_inputs: bool
    name: str = "fold-batch-norm"

    def __call__(self, state: State) -> State:
        bias = state.model.initializers["b2"]
        return State(state.model.with_initializers({"b2": bias + np.float32(0.1)}), state.masks, state.log)


def test_folding_that_moves_the_answers_is_refused(conv_net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxprune.products, "FoldBatchNorm", _Breaks)
    report = _prune(conv_net, fold=True)
    assert (report.status, report.output) == ("failed", None)
    assert report.error is not None
    assert "pruned -> folded: output y" in report.error
    assert "--no-fold leaves that step out" in report.error


def test_the_command_line_and_recipes_take_it(conv_net: Path, tmp_path: Path) -> None:
    out, recipe = conv_net.with_name("out.onnx"), tmp_path / "recipe.yaml"
    runner = CliRunner()
    assert runner.invoke(cli, [str(conv_net), "-o", str(out), "--fold"], catch_exceptions=False).exit_code == 0
    assert _ops(conv_net)["BatchNormalization"] == 0
    recipe.write_text("fold: true\n")
    arguments = [str(conv_net), "-o", str(out), "--recipe", str(recipe)]
    assert runner.invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    assert _ops(conv_net)["BatchNormalization"] == 0
    assert runner.invoke(cli, [*arguments, "--no-fold"], catch_exceptions=False).exit_code == 0
    assert _ops(conv_net)["BatchNormalization"] == 1
    assert runner.invoke(cli, [str(conv_net), "-o", str(out), "--fold", "--no-shrink"]).exit_code == 2


def test_masks_are_those_of_the_input(conv_net: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks.npz"
    _prune(conv_net, fold=True, sparsity=0.5, save_masks=str(masks))
    again = prune_file(
        PruneOptions(
            model=str(conv_net),
            masks=str(masks),
            sparsity=0.5,
            fold=True,
            output=str(tmp_path / "again.onnx"),
            quiet=True,
        )
    )
    assert again.verified
    assert (tmp_path / "again.onnx").read_bytes() == conv_net.with_name("out.onnx").read_bytes()


def _pixels(path: Path, weight: Any) -> Path:
    """One layer of `weight` [rows, 784] on an image."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,1,28,28] x) => (float[N,M] y) '
        "{ f = Flatten(x) y = Gemm<transB=1>(f, w) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(proto, str(path))
    return path


def _scattered() -> Any:
    """3 of 100 entries: 223 of 784 columns are dead."""
    rng = np.random.default_rng(0)
    return np.where(rng.random((40, 784)) < 0.03, rng.standard_normal((40, 784)), 0).astype(np.float32)


def test_pixels_that_nothing_reads_are_left_out(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((60, 784)).astype(np.float32)
    weight[:, 20:] = 0
    net = _pixels(tmp_path / "net.onnx", weight)
    report = _prune(net, sparsity=0.0, encode="dense")
    assert report.verified
    assert report.layers[0].shape_after == (60, 20)
    assert _ops(net) == {"Flatten": 1, "Gather": 1, "Gemm": 1}
    assert report.output is not None
    assert report.output.bytes < 60 * 20 * 4 + 20 * 4 + 500
    _prune(net, sparsity=0.0, encode="dense", shrink=False)
    assert _ops(net) == {"Flatten": 1, "Gemm": 1}


def test_whether_it_pays_is_counted_as_stored(tmp_path: Path) -> None:
    net = _pixels(tmp_path / "net.onnx", _scattered())
    _prune(net, sparsity=0.0, encode="dense")
    assert _ops(net)["Gather"] == 1
    report = _prune(net, sparsity=0.0, encode="gaps")
    assert _ops(net)["Gather"] == 0
    assert [left.by for left in report.skips] == ["gather-live-inputs"]


def test_a_weight_that_stays_an_input_counts_as_dense(tmp_path: Path) -> None:
    net = _pixels(tmp_path / "net.onnx", _scattered())
    proto = onnx.load(str(net))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [40, 784]))
    onnx.save(proto, str(net))
    _prune(net, sparsity=0.0, encode="gaps")
    assert _ops(net)["Gather"] == 0
    _prune(net, sparsity=0.0, encode="gaps", keep_inputs=True)
    assert _ops(net)["Gather"] == 1


def test_a_reader_that_no_output_depends_on_is_not_in_the_way(tmp_path: Path) -> None:
    proto = onnx.load(str(_written(tmp_path / "net.onnx")))
    proto.graph.node.append(onnx.helper.make_node("Softmax", ["a"], ["unused2"], axis=1))
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "w2")
    weight.CopyFrom(
        numpy_helper.from_array(np.where(np.arange(16)[:, None, None] < 9, numpy_helper.to_array(weight), 0), "w2")
    )
    onnx.save(proto, str(tmp_path / "net.onnx"))
    report = _prune(tmp_path / "net.onnx", sparsity=0.0, fold=True)
    assert report.verified
    assert ("folded", "shrunk", "within tolerance") in _steps(report)
    assert _ops(tmp_path / "net.onnx")["BatchNormalization"] == 0
    assert report.layers[0].shape_after[0] == 9
    assert _prune(tmp_path / "net.onnx", sparsity=0.0).layers[0].shape_after[0] == 9
