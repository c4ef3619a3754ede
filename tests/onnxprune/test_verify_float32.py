"""The float32 copy of models whose type onnxruntime has no kernels for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.feeds import Feeds, feeds_as_float32, synthesize_feeds
from onnxprune.runtime import NoKernelError, input_specs, open_session, run
from onnxprune.verify import compare, float32_copy, lacks_kernel

HEAD = '<ir_version: 8, opset_import: ["" : 18]> g '


def write(path: Path, model: str | onnx.ModelProto) -> Path:
    if isinstance(model, str):
        model = onnx.parser.parse_model(model if model.startswith("<") else HEAD + model)
    path.write_bytes(model.SerializeToString())
    return path


def copied(folder: Path, model: str | onnx.ModelProto) -> onnx.ModelProto:
    """The float32 copy, checked."""
    float32_copy(write(folder / "model.onnx", model), folder / "copy.onnx")
    onnx.checker.check_model(folder / "copy.onnx", full_check=True)
    return onnx.load(folder / "copy.onnx")


def with_weight(text: str, array: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.append(numpy_helper.from_array(array, "w"))
    return model


@pytest.mark.parametrize(
    ("kind", "dtype", "text"),
    [
        ("double", np.float64, "(double[1, 1, 3, 3] x) => (double[1, 1, 2, 2] y) { y = Conv(x, w) }"),
        ("bfloat16", ml_dtypes.bfloat16, "(bfloat16[2, 2] x) => (bfloat16[2, 2] y) { y = MatMul(x, w) }"),
        ("bfloat16", ml_dtypes.bfloat16, "(bfloat16[2, 2] x) => (bfloat16[2, 2] y) { y = Gemm(x, w, w) }"),
    ],
)
def test_a_type_without_kernels_is_verified_on_the_copy(tmp_path: Path, kind: str, dtype: Any, text: str) -> None:
    shape = (1, 1, 2, 2) if "Conv" in text else (2, 2)
    before = write(tmp_path / "before.onnx", with_weight(text, np.full(shape, 0.5).astype(dtype)))
    after = write(tmp_path / "after.onnx", with_weight(text, np.full(shape, 0.25).astype(dtype)))
    with pytest.raises(NoKernelError) as caught:
        synthesize_feeds(before, 1, 0)
    assert lacks_kernel(caught.value)
    for path in (before, after):
        float32_copy(path, path.with_suffix(".f32.onnx"))
    copies = [path.with_suffix(".f32.onnx") for path in (before, after)]
    feeds = synthesize_feeds(copies[0], 2, 0)
    assert input_specs(copies[0])[0].dtype == np.dtype(np.float32)
    assert compare(copies[0], copies[0], feeds, optimize=True).equal
    comparison = compare(copies[0], copies[1], feeds, optimize=False)
    assert comparison.max_error == pytest.approx(0.5)
    assert len(comparison.failures(kind if kind != "double" else "float64")) == 1


def test_values_and_everything_else_stay(tmp_path: Path) -> None:
    array = np.array([1.5, -0.0, np.inf, np.nan, 2.0**-20], np.float16)
    model = with_weight("(float16[5] x) => (float16[5] y) { y = Add(x, w) }", array)
    model.graph.initializer.append(numpy_helper.from_array(np.array([3], np.int64), "unused"))
    model.metadata_props.add(key="author", value="nobody")
    model.doc_string = "kept"
    after = copied(tmp_path, model)
    weight, unused = after.graph.initializer
    assert numpy_helper.to_array(weight).dtype == np.float32
    np.testing.assert_array_equal(numpy_helper.to_array(weight), array.astype(np.float32))
    assert unused == model.graph.initializer[1]
    assert (after.doc_string, after.ir_version, after.opset_import) == ("kept", 8, model.opset_import)
    assert after.metadata_props == model.metadata_props
    assert after.graph.node == model.graph.node


def test_doubles_beyond_the_range_stay_finite(tmp_path: Path) -> None:
    model = with_weight("(double[4] x) => (double[4] y) { y = Add(x, w) }", np.array([1e300, -1e300, np.inf, 1.0]))
    limit = np.finfo(np.float32).max
    assert numpy_helper.to_array(copied(tmp_path, model).graph.initializer[0]).tolist() == [limit, -limit, np.inf, 1.0]


@pytest.mark.parametrize("store", ["raw", "typed"])
def test_both_ways_of_storing_values(tmp_path: Path, store: str) -> None:
    model = onnx.parser.parse_model(HEAD + "(double[2] x) => (double[2] y) { y = Add(x, w) }")
    values: Any = np.array([1.0, 2.0]).tobytes() if store == "raw" else [1.0, 2.0]
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.DOUBLE, [2], values, raw=store == "raw"))
    assert numpy_helper.to_array(copied(tmp_path, model).graph.initializer[0]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "text",
    [
        "(float[2] x) => (double[2] y) { y = Cast<to = 11>(x) }",
        "(float[2] x) => (float16[2] y) { y = Cast<to = 10>(x) }",
        "(int64[1] x) => (double[N] y) { y = ConstantOfShape<value = double[1] {2}>(x) }",
        "(double[1] x) => (double[1] y) { c = Constant<value = double[1] {2}>() y = Add(x, c) }",
        "(float[2] x) => (double[2] y) { y = RandomNormalLike<dtype = 11, seed = 1.0>(x) }",
        "(bool b, double[1] x) => (double[1] y) { y = If(b) <then_branch = t () => (double[1] z)"
        " { c = Constant<value = double[1] {2}>() z = Add(x, c) }, else_branch = e () => (double[1] w)"
        " <double[1] i = {3}> { w = Add(x, i) }> }",
        "(double[1] x) => (seq(double[1]) y) { y = SequenceConstruct(x, x) }",
        """<ir_version: 8, opset_import: ["" : 18, "local" : 1]> g (double[1] x) => (double[1] y) { y = local.F(x) }
        <domain: "local", opset_import: ["" : 18]> F (a) => (b)
        { c = Constant<value = double[1] {2}>() d = Cast<to = 11>(c) b = Add(a, d) }""",
    ],
)
def test_the_copy_is_float32_throughout_and_runs(tmp_path: Path, text: str) -> None:
    kept = str(copied(tmp_path, text))
    for trace in ("elem_type: 11", "elem_type: 10", "data_type: 11", "data_type: 10", "i: 11", "i: 10"):
        assert f"{trace}\n" not in kept
    with open_session(tmp_path / "copy.onnx", optimize=True) as session:
        feeds = {spec.name: np.ones([1 if d == 1 else 2 for d in spec.shape], spec.dtype) for spec in session.inputs}
        assert all(array.dtype == np.float32 for array in run(session, feeds).values())


def test_value_info_of_functions_is_cast(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18, "local" : 1]> g (double[1] x) => (double[1] y) { y = local.F(x) }
        <domain: "local", opset_import: ["" : 18]> F (a) => (b) { c = Neg(a) b = Neg(c) }"""
    model = onnx.parser.parse_model(text)
    model.functions[0].value_info.append(helper.make_tensor_value_info("c", TensorProto.DOUBLE, [1]))
    (info,) = copied(tmp_path, model).functions[0].value_info
    assert info == helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])


def test_integer_casts_and_attributes_of_other_names_stay(tmp_path: Path) -> None:
    text = "(double[1, 10, 1] x) => (int64[1, 10, 1] y) { c = Conv<group = 10>(x, w) y = Cast<to = 7>(c) }"
    model = with_weight(text, np.ones((10, 1, 1)))
    assert copied(tmp_path, model).graph.node == model.graph.node


def test_sparse_initializers_are_cast(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(HEAD + "(double[4] x) => (double[4] y) { y = Add(x, w) }")
    values = numpy_helper.from_array(np.array([5.0]), "w")
    indices = numpy_helper.from_array(np.array([2]), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    float32_copy(write(tmp_path / "model.onnx", model), tmp_path / "copy.onnx")
    sparse = onnx.load(tmp_path / "copy.onnx").graph.sparse_initializer[0]
    assert numpy_helper.to_array(sparse.values).dtype == np.float32
    assert numpy_helper.to_array(sparse.indices).tolist() == [2]


def test_external_data_is_read_and_large_copies_are_written_external(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(2048, dtype=np.float64)
    model = with_weight("(double[2048] x) => (double[2048] y) { y = Add(x, w) }", array)
    onnx.save_model(model, tmp_path / "model.onnx", save_as_external_data=True, location="w.data")
    float32_copy(tmp_path / "model.onnx", tmp_path / "small.onnx")
    assert not (tmp_path / "small.onnx.data").exists()
    monkeypatch.setattr("onnxprune.verify.float32._LARGEST_FILE", 1000)
    float32_copy(tmp_path / "model.onnx", tmp_path / "large.onnx")
    assert (tmp_path / "large.onnx.data").stat().st_size >= 4 * 2048
    for name in ("small", "large"):
        with open_session(tmp_path / f"{name}.onnx", optimize=False) as session:
            y = run(session, {"x": np.zeros(2048, np.float32)})["y"]
        np.testing.assert_array_equal(y, array.astype(np.float32))


def test_feeds_follow_the_copy(tmp_path: Path) -> None:
    copied(tmp_path, with_weight("(double[2] x) => (double[2] y) { y = Add(x, w) }", np.ones(2)))
    feeds = feeds_as_float32(Feeds(({"x": np.array([1.0, 2.0])},), None, "test"))
    with open_session(tmp_path / "copy.onnx", optimize=True) as session:
        assert run(session, feeds.batches[0])["y"].tolist() == [2.0, 3.0]
