from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, from_text, load
from onnxprune_passes.weights import find_weights

from onnxprune.analysis import Analysis, analyze, analyze_file
from onnxprune.macs import total
from onnxprune.prune import prune_file
from onnxprune.recipe import PruneOptions
from onnxprune.zeros import count_zeros

Array = npt.NDArray[Any]


def _model(text: str, *, opset: int = 17, **arrays: Array) -> Model:
    """The graph in `text` with `arrays` as initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return from_proto(proto)


def _ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def _macs(model: Model) -> dict[str, int | None]:
    return {weight.name: weight.dense_macs for weight in analyze(model).weights}


@pytest.mark.parametrize(
    ("node", "weight", "x", "expected"),
    [
        ("Conv<pads=[1,1,1,1]>(x, w)", (8, 3, 3, 3), "2,3,10,12", 2 * 10 * 12 * 8 * 3 * 9),
        ("Conv<strides=[2,2]>(x, w)", (8, 3, 3, 3), "1,3,11,11", 5 * 5 * 8 * 3 * 9),
        ("Conv<group=4>(x, w)", (8, 1, 3, 3), "1,4,5,5", 3 * 3 * 8 * 9),
        ("Conv(x, w)", (8, 3, 5), "1,3,20", 16 * 8 * 3 * 5),
        ("ConvTranspose<strides=[2,2]>(x, w)", (3, 8, 2, 2), "1,3,6,7", 6 * 7 * 3 * 8 * 4),
        ("Gemm(x, w)", (6, 10), "5,6", 5 * 6 * 10),
        ("Gemm<transB=1>(x, w)", (10, 6), "5,6", 5 * 6 * 10),
        ("Gemm<transA=1>(x, w)", (6, 10), "6,5", 5 * 6 * 10),
        ("MatMul(x, w)", (6, 10), "2,3,5,6", 2 * 3 * 5 * 6 * 10),
        ("MatMul(x, w)", (2, 6, 10), "2,5,6", 2 * 5 * 6 * 10),
        ("MatMul(w, x)", (10, 6), "6,5", 5 * 6 * 10),
    ],
)
def test_macs_of_one_node(node: str, weight: tuple[int, ...], x: str, expected: int) -> None:
    model = _model(f"g (float[{x}] x) => (float[] y) {{ y = {node} }}", w=_ones(*weight))
    assert _macs(model) == {"w": expected}


def test_a_dynamic_batch_counts_as_one_and_the_analysis_says_so() -> None:
    model = _model("g (float[N,6] x) => (float[N,10] y) { y = MatMul(x, w) }", w=_ones(6, 10))
    assert _macs(model) == {"w": 60}
    assert any("batch axis taken as 1" in note for note in analyze(model).notes)


def test_unknown_shapes_make_unknown_macs_and_an_unknown_sum() -> None:
    model = _model(
        "g (float[1,3,H,W] x) => (float[] y) "
        "{ a = Conv(x, w)  b = GlobalAveragePool(a)  c = Flatten(b)  y = MatMul(c, v) }",
        w=_ones(8, 3, 3, 3),
        v=_ones(8, 5),
    )
    found = analyze(model)
    assert _macs(model) == {"w": None, "v": 40}
    assert (found.dense_macs, found.effective_macs) == (None, None)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_macs_of_recurrent_nodes_count_steps_gates_and_directions(op: str, gates: int) -> None:
    direction = '<hidden_size=5, direction="bidirectional">'
    model = _model(
        f"g (float[7,2,6] x) => (float[] y) {{ y = {op}{direction}(x, w, r) }}",
        w=_ones(2, gates * 5, 6),
        r=_ones(2, gates * 5, 5),
    )
    assert _macs(model) == {"w": 7 * 2 * 2 * gates * 5 * 6, "r": 7 * 2 * 2 * gates * 5 * 5}


def test_a_shared_weight_counts_each_use_and_a_table_counts_nothing() -> None:
    model = _model(
        "g (int64[4] ids) => (float[] y) "
        "{ e = Gather(table, ids)  t = Transpose<perm=[1,0]>(table)  y = MatMul(e, t) }",
        table=_ones(20, 6),
    )
    (table,) = analyze(model).weights
    assert (table.ops, table.dense_macs) == (("Gather", "MatMul"), 4 * 6 * 20)


def test_macs_are_found_in_the_bodies_of_an_if() -> None:
    text = """g (float[3,6] x, bool c) => (float[] y) {
        y = If(c)<
            then_branch = t () => (float[] a) { a = MatMul(x, w) },
            else_branch = e () => (float[] b) { b = Neg(x) }
        >
    }"""
    assert _macs(_model(text, w=_ones(6, 10))) == {"w": 180}


def test_effective_macs_leave_out_the_zeros() -> None:
    weight = _ones(6, 10)
    weight[:3] = 0
    weight[3, 0] = -0.0
    found = analyze(_model("g (float[2,6] x) => (float[] y) { y = MatMul(x, w) }", w=weight))
    (row,) = found.weights
    assert (row.parameters, row.zeros) == (60, 31)
    assert row.density == pytest.approx(29 / 60)
    assert (row.dense_macs, row.effective_macs) == (120, 58)
    assert (found.parameters, found.zeros, found.dense_macs, found.effective_macs) == (60, 31, 120, 58)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_zeros_of_both_signs_are_counted_in_every_float_type(dtype: str) -> None:
    import ml_dtypes

    values = np.array([0.0, -0.0, 1.0, -2.0] * 30).reshape(10, 12)
    weight = values.astype(getattr(ml_dtypes, dtype, dtype))
    kind = {"float32": "float", "float64": "double"}.get(dtype, dtype)
    model = _model(f"g ({kind}[2,10] x) => ({kind}[] y) {{ y = MatMul(x, w) }}", w=weight)
    (found,) = find_weights(model)
    assert count_zeros(model, found) == 60
    assert analyze(model).weights[0].dtype == dtype


def test_zeros_of_a_quantised_weight_are_its_zero_points() -> None:
    weight = np.arange(60, dtype=np.int8).reshape(6, 10)
    weight[:, 0] = 3
    zero = np.full(10, 3, np.int8)
    zero[1:] = 99
    model = _model(
        "g (float[2,6] x) => (float[] y) { d = DequantizeLinear<axis=1>(w, s, z)  y = MatMul(x, d) }",
        w=weight,
        s=np.ones(10, np.float32),
        z=zero,
    )
    (row,) = analyze(model).weights
    assert (row.zeros, row.dtype) == (6, "int8")


def test_groups_name_dead_neurons_what_is_coupled_and_what_pins(dead_net: Path) -> None:
    found = analyze_file(dead_net)
    groups = {group.name: group for group in found.groups}
    first = groups["fc1.weight"]
    assert (first.neurons, first.input_dead, first.output_dead, first.pinned_by) == (96, 3, 2, ())
    assert first.coupled == ("fc1.weight axis 0", "fc1.bias axis 0", "fc2.weight axis 1")
    assert "graph output" in groups["fc3.weight"].pinned_by[0]
    assert found.removable is not None
    assert "removed 5 of" in found.removable


def test_a_fixed_transform_and_a_weight_with_nan_are_refused() -> None:
    dft = np.cos(2 * np.pi * np.outer(np.arange(33), np.arange(64)) / 64).astype(np.float32)
    broken = _ones(64, 5)
    broken[0, 0] = np.nan
    model = _model(
        "g (float[2,64] x) => (float[] y, float[] z) "
        "{ t = Transpose<perm=[1,0]>(dft)  y = MatMul(x, t)  z = MatMul(x, w) }",
        dft=dft,
        w=broken,
    )
    refused = {left.name: left.reason for left in analyze(model).refused if left.by == "magnitude-prune"}
    assert refused == {"dft": "looks like a fixed transform (sinusoids)", "w": "holds NaN or infinity"}


def test_an_encoded_model_is_looked_at_as_the_dense_one_it_stands_for(net: Path) -> None:
    prune_file(PruneOptions(model=str(net), sparsity=0.9, encode="gaps"))
    found = analyze_file(net.with_name("net.pruned.onnx"))
    assert [weight.name for weight in found.weights] == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert found.encoded["fc1.weight"].startswith("gaps")
    assert found.zeros / found.parameters == pytest.approx(0.9, abs=0.05)
    assert found.file is not None
    assert found.file.bytes == net.with_name("net.pruned.onnx").stat().st_size


def test_other_tensors_are_counted_apart(net: Path) -> None:
    found = analyze_file(net)
    assert found.other_parameters == 96 + 32 + 10
    assert found.encoded == {}


def test_nothing_is_changed(dead_net: Path) -> None:
    model = load(dead_net)
    before = model.skeleton.SerializeToString()
    analyze(model)
    assert model.skeleton.SerializeToString() == before


def test_a_graph_of_unknown_operators_is_still_listed() -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>\n'
        "g (float[2,6] x) => (float[2,6] y) { y = com.example.Magic(x) }"
    )
    found = analyze(model)
    assert (found.weights, found.parameters, found.dense_macs) == ((), 0, 0)
    assert isinstance(found, Analysis)


def test_total_is_unknown_when_one_part_is() -> None:
    assert (total([1, 2]), total([1, None]), total([])) == (3, None, 0)


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no")
    with pytest.raises(ModelError, match="not an ONNX model"):
        analyze_file(tmp_path / "a.onnx")


def test_the_first_axis_of_every_input_is_a_batch_axis_and_its_symbol_everywhere() -> None:
    model = _model(
        "g (float[B,4,6] x) => (float[] y) { s = Reshape(x, shape)  y = MatMul(s, w) }",
        w=_ones(6, 10),
        shape=np.array([-1, 6], np.int64),
    )
    assert _macs(model) == {"w": 4 * 60}


def test_shapes_that_nodes_compute_are_evaluated_and_data_is_not() -> None:
    text = """g (float[N,3,8,8] x) => (float[] y) {
        s = Shape(x)
        c = Gather<axis=0>(s, one)
        half = Div(c, two)
        h = Unsqueeze(half, zero)
        pads = Concat<axis=0>(none, h, h, none, none, none)
        p = Pad(x, pads)
        y = Conv(p, w)
    }"""
    model = _model(
        text,
        w=_ones(4, 3, 3, 3),
        one=np.array(1, np.int64),
        two=np.array(2, np.int64),
        zero=np.array([0], np.int64),
        none=np.array([0], np.int64),
    )
    assert _macs(model) == {"w": None}  # pads has six numbers for four axes: the file contradicts itself
    model = _model(
        text.replace("(none, h, h, none, none, none)", "(none, none, h, h, none, none, none, none)"),
        w=_ones(4, 3, 3, 3),
        one=np.array(1, np.int64),
        two=np.array(2, np.int64),
        zero=np.array([0], np.int64),
        none=np.array([0], np.int64),
    )
    assert _macs(model) == {"w": 7 * 7 * 4 * 3 * 9}
