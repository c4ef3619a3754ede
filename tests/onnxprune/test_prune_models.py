from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.prune import prune_file
from onnxprune.recipe import PruneOptions
from onnxprune.report import Report

Array = npt.NDArray[Any]


def _pruned(model: Path, **options: Any) -> tuple[Report, Path]:
    made = PruneOptions(model=str(model), **options)
    return prune_file(made), model.with_name(f"{model.stem}.pruned.onnx")


def test_external_data_counts_and_stays_external(net: Path, tmp_path: Path) -> None:
    folder = tmp_path / "external"
    folder.mkdir()
    model = folder / "net.onnx"
    onnx.save(onnx.load(str(net)), str(model), save_as_external_data=True, location="net.bin", size_threshold=1024)
    report, output = _pruned(model, sparsity=0.9)
    assert report.verified
    assert report.input is not None
    assert report.input.bytes == model.stat().st_size + (folder / "net.bin").stat().st_size
    assert report.output is not None
    data = [path for path in folder.iterdir() if path not in (model, output, folder / "net.bin")]
    assert report.output.bytes == output.stat().st_size + sum(path.stat().st_size for path in data)


def _with_type(path: Path, kind: int, dtype: Any) -> Path:
    """Relu(x) @ w in a type that onnxruntime's CPU may lack kernels for."""
    import ml_dtypes

    dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    weight = np.random.default_rng(0).standard_normal((64, 48)).astype(dtype)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])],
        "typed",
        [helper.make_tensor_value_info("x", kind, ["N", 64])],
        [helper.make_tensor_value_info("y", kind, ["N", 48])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT16", "DOUBLE"])
def test_types_without_kernels_are_verified_as_float32_and_the_report_says_so(tmp_path: Path, kind: str) -> None:
    dtype = {"BFLOAT16": "bfloat16", "FLOAT16": np.float16, "DOUBLE": np.float64}[kind]
    model = _with_type(tmp_path / "typed.onnx", getattr(TensorProto, kind), dtype)
    report, output = _pruned(model, sparsity=0.8)
    assert report.verified
    assert report.inputs_from is not None
    assert ("cast to float32" in report.inputs_from) == (kind == "BFLOAT16")
    assert output.stat().st_size < 0.6 * model.stat().st_size


def test_an_initializer_that_is_an_input_becomes_a_node_output_unless_it_is_kept(net: Path) -> None:
    model = onnx.load(str(net))
    model.graph.input.append(helper.make_tensor_value_info("fc1.weight", TensorProto.FLOAT, [96, 64]))
    onnx.save(model, str(net))
    report, output = _pruned(net, sparsity=0.9)
    assert [value.name for value in onnx.load(str(output)).graph.input] == ["x"]
    assert {(one.before, one.after) for one in report.comparisons} >= {("shrunk", "dense"), ("dense", "encoded")}
    report, output = _pruned(net, sparsity=0.9, keep_inputs=True)
    assert [value.name for value in onnx.load(str(output)).graph.input] == ["x", "fc1.weight"]
    assert {layer.name: layer.scheme for layer in report.layers}["fc1.weight"] == "dense"


@pytest.mark.parametrize(("sparsity", "share"), [(0.9, 0.14), (0.5, 0.55)])
def test_lenet_300_100_shrinks_as_promised(tmp_path: Path, sparsity: float, share: float) -> None:
    model = Path(__file__).parents[2] / "models" / "lenet_300_100.onnx"
    if not model.exists():
        pytest.skip("models/lenet_300_100.onnx is not there; models/train_lenets.py makes it")
    output = tmp_path / "small.onnx"
    report = prune_file(PruneOptions(model=str(model), sparsity=sparsity, output=str(output)))
    assert report.verified
    assert output.stat().st_size <= share * model.stat().st_size
    onnx.checker.check_model(str(output), full_check=True)


def test_a_model_without_weights_goes_through(tmp_path: Path) -> None:
    model = tmp_path / "relu.onnx"
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(model))
    report, output = _pruned(model)
    assert (report.verified, report.layers) == (True, ())
    assert "there are no weights" in {note.by: note.summary for note in report.changes}["magnitude-prune"]
    assert output.exists()
