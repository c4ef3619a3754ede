from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper
from onnxprune_passes.errors import DataError, ModelError, OnnxPruneError, VerifyError

from onnxprune.runtime import NoKernelError, TensorSpec, input_specs, is_float, lacks_kernel, open_session, run

DATA = Path(os.environ.get("ONNXPRUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
RELU = '<ir_version: 8, opset_import: ["" : 18]> g (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }'


def write(folder: Path, text: str) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    return path


def outputs_of(path: Path, **feeds: Any) -> dict[str, Any]:
    with open_session(path, optimize=True) as session:
        return run(session, feeds)


@pytest.mark.parametrize(
    ("declared", "dtype", "shape", "shown"),
    [
        ("float[N, 2]", "float32", ("N", 2), "x float32[N, 2]"),
        ("double[3]", "float64", (3,), "x float64[3]"),
        ("float16[0, 4]", "float16", (None, 4), "x float16[?, 4]"),
        ("bfloat16[?, ?]", "bfloat16", (None, None), "x bfloat16[?, ?]"),
        ("int64[]", "int64", (), "x int64[]"),
        ("uint8[1]", "uint8", (1,), "x uint8[1]"),
        ("bool[2]", "bool", (2,), "x bool[2]"),
        ("string[2]", "object", (2,), "x object[2]"),
    ],
)
def test_specs_name_dtype_and_shape(
    tmp_path: Path, declared: str, dtype: str, shape: tuple[Any, ...], shown: str
) -> None:
    text = f'<ir_version: 8, opset_import: ["" : 18]> g ({declared} x) => ({declared} y) {{ y = Identity(x) }}'
    (spec,) = input_specs(write(tmp_path, text))
    assert (spec.name, spec.dtype, spec.shape, str(spec)) == ("x", np.dtype(dtype), shape, shown)


def test_a_declared_size_of_minus_one_is_unknown(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(RELU)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert input_specs(path)[0].shape == (None, 2)


def test_an_initializer_that_is_an_input_too_needs_no_feed(tmp_path: Path) -> None:
    text = """<ir_version: 3, opset_import: ["" : 9]>
        g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }"""
    path = write(tmp_path, text)
    assert [spec.name for spec in input_specs(path)] == ["x"]
    assert outputs_of(path, x=np.zeros(2, np.float32))["y"].tolist() == [1, 2]


def test_accepts_shape_checks_rank_and_fixed_axes() -> None:
    spec = TensorSpec("x", "tensor(float)", np.dtype(np.float32), ("N", 3, None))
    assert spec.accepts_shape((9, 3, 7))
    assert not spec.accepts_shape((9, 4, 7))
    assert not spec.accepts_shape((3, 7))


def test_is_float_knows_the_extension_types() -> None:
    names = ("float16", "float64", "bfloat16", "float8_e5m2", "int8", "bool", "object")
    assert [name for name in names if is_float(np.dtype(name))] == ["float16", "float64", "bfloat16", "float8_e5m2"]


@pytest.mark.parametrize("optimize", [False, True])
def test_options_reach_onnxruntime(tmp_path: Path, optimize: bool) -> None:
    with open_session(write(tmp_path, RELU), optimize=optimize, threads=3) as session:
        options = session.ort.get_session_options()
        assert options.graph_optimization_level.name == ("ORT_ENABLE_ALL" if optimize else "ORT_DISABLE_ALL")
        assert options.intra_op_num_threads == 3
        assert session.ort.get_providers() == ["CPUExecutionProvider"]


def test_leaving_the_block_frees_the_session(tmp_path: Path) -> None:
    with open_session(write(tmp_path, RELU), optimize=False) as session:
        alive = weakref.ref(session.ort)
        assert alive() is not None
    assert alive() is None
    with pytest.raises(ValueError, match="closed"):
        run(session, {"x": np.zeros((1, 2), np.float32)})


def test_arrays_nobody_asked_for_are_ignored(tmp_path: Path) -> None:
    x = np.array([[-1, 2]], np.float32)
    assert outputs_of(write(tmp_path, RELU), x=x, labels=np.zeros(1, np.int64))["y"].tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("feeds", "found"),
    [
        ({"z": np.zeros((1, 2), np.float32)}, r"is not fed; found \['z'\]"),
        ({"x": np.zeros((1, 2))}, r"float64\[1, 2\]"),
        ({"x": np.zeros((1, 3), np.float32)}, r"float32\[1, 3\]"),
        ({"x": np.zeros(2, np.float32)}, r"float32\[2\]"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(tmp_path: Path, feeds: dict[str, Any], found: str) -> None:
    with pytest.raises(DataError, match=rf"x float32\[N, 2\].*{found}"):
        outputs_of(write(tmp_path, RELU), **feeds)


def test_a_failure_while_running_is_one_line(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[N] x) => (float[M] y)
        <int64[1] shape = {5}> { y = Expand(x, shape) }"""
    with pytest.raises(VerifyError, match=r"failed while running.*expand") as caught:
        outputs_of(write(tmp_path, text), x=np.zeros(2, np.float32))
    assert "\n" not in str(caught.value)


def model_text(body: str, *, opset: int = 18, ir: int = 8, kind: str = "float[2]", domains: str = "") -> str:
    return f'<ir_version: {ir}, opset_import: ["" : {opset}{domains}]> g ({kind} x) => ({kind} y) {{ {body} }}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (model_text("y = Relu(x)", opset=99), r"opset 99 of ai\.onnx.*at most \d+.*convert"),
        (model_text("y = Relu(x)", ir=99), r"IR version 99.*at most \d+.*ir_version"),
        (
            model_text("y = shop.Sell(x)", domains=', "shop" : 1'),
            r"operator Sell of domain shop.*without this",
        ),
        (model_text("y = Sell(x)"), r"operator Sell does not exist in opset 18"),
        (model_text("y = Relu(z)"), r"cannot load it: .*'z'.*correct"),
        (model_text("y = Add(x, x)", opset=6), r"opset 6 \(operator Add.*opset 7 and newer.*convert"),
    ],
)
def test_models_that_are_refused_say_what_and_the_fix(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ModelError, match=expected) as caught:
        open_session(path, optimize=True)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not lacks_kernel(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is no model at all, just some text", None])
def test_files_that_are_no_model(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.parser.parse_model(RELU).SerializeToString()
    path.write_bytes(model[: len(model) // 2] if content is None else content)
    with pytest.raises(ModelError, match="not an ONNX model, or cut short"):
        open_session(path, optimize=True)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.onnx", tmp_path):
        with pytest.raises(ModelError, match="no such file"):
            open_session(path, optimize=True)


def test_missing_external_data_names_the_tensor(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(model_text("y = Add(x, w)"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], b"\0" * 8, raw=True)
    onnx.external_data_helper.set_external_data(weight, "nothing.data")
    weight.ClearField("raw_data")
    model.graph.initializer.append(weight)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"initializer: w\b.*nothing\.data"):
        open_session(path, optimize=True)


@pytest.mark.parametrize(
    "text",
    [
        model_text("y = MatMul(x, x)", kind="bfloat16[2, 2]"),
        model_text("y = Conv(x, x)", kind="double[1, 1, 1, 1]"),
    ],
)
def test_a_missing_kernel_is_told_apart(tmp_path: Path, text: str) -> None:
    with pytest.raises(NoKernelError, match=r"no CPU kernel for operator (MatMul|Conv)") as caught:
        open_session(write(tmp_path, text), optimize=True)
    assert lacks_kernel(caught.value)


@pytest.mark.parametrize(
    ("declared", "dtype"), [("bfloat16", ml_dtypes.bfloat16), ("float8e4m3fn", ml_dtypes.float8_e4m3fn)]
)
def test_types_numpy_does_not_know_go_in_and_out(tmp_path: Path, declared: str, dtype: Any) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
        g ({declared}[N, 2] x) => ({declared}[N, 2] y, float[N, 2] z) {{ y = Identity(x) z = Cast<to = 1>(x) }}"""
    x = np.array([[1.5, -2], [0, 4]], dtype).T
    outputs = outputs_of(write(tmp_path, text), x=x)
    assert outputs["y"].dtype == np.dtype(dtype)
    assert outputs["y"].tolist() == outputs["z"].tolist() == [[1.5, 0], [-2, 4]]
    assert outputs_of(write(tmp_path, text), x=np.zeros((0, 2), dtype))["y"].shape == (0, 2)


def test_sequences_and_strings_come_back_as_arrays(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[2] x, string[1] s) => (seq(float[2]) y, string[1] t)
        { y = SequenceConstruct(x, x) t = Identity(s) }"""
    outputs = outputs_of(write(tmp_path, text), x=np.ones(2, np.float32), s=np.array(["a"]))
    assert {name: array.tolist() for name, array in outputs.items()} == {"y[0]": [1, 1], "y[1]": [1, 1], "t": ["a"]}


def test_class_maps_are_stacked(tmp_path: Path) -> None:
    zip_map = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["cat", "ant"])
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    graph = helper.make_graph(
        [zip_map],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_value_info("y", kind)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    outputs = outputs_of(path, x=np.array([[1, 2], [3, 4]], np.float32))
    assert outputs["y.keys"].tolist() == ["ant", "cat"]
    assert outputs["y.values"].tolist() == [[2, 1], [4, 3]]


def test_outputs_numpy_cannot_hold_are_skipped_and_named(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (int4[4] q, float[4] y)
        <float s = {1}, int4 z = {0}> { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"""
    with open_session(write(tmp_path, text), optimize=False) as session:
        assert [spec.name for spec in session.skipped] == ["q"]
        assert list(run(session, {"x": np.ones(4, np.float32)})) == ["y"]


def test_a_sequence_input_is_refused(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]> g (seq(float[2]) x) => (int64 y) { y = SequenceLength(x) }"""
    with pytest.raises(DataError, match="only tensor inputs"):
        outputs_of(write(tmp_path, text), x=np.zeros(2, np.float32))


def test_a_model_in_memory_runs() -> None:
    content = onnx.parser.parse_model(RELU).SerializeToString()
    with open_session(content, optimize=True) as session:
        assert run(session, {"x": np.array([[-1, 1]], np.float32)})["y"].tolist() == [[0, 1]]
    with pytest.raises(ModelError, match="model in memory: not an ONNX model"):
        open_session(content[:9], optimize=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist_opset1_ort_rejects", r"opset 1 \(operator Add, node 'Plus30'\).*convert"),
        ("superres_prepost_op18_custom_ops_ort_rejects", r"operator DecodeImage of domain com\.microsoft\.extensions"),
    ],
)
def test_real_files_that_onnxruntime_refuses(name: str, expected: str) -> None:
    path = DATA / "negative" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"no {path.name} in ONNXPRUNE_DATA")
    with pytest.raises(OnnxPruneError, match=expected) as caught:
        open_session(path, optimize=True)
    assert isinstance(caught.value, ModelError)
