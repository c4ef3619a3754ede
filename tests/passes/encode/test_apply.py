"""What `encode_model` changes of a model beside its tensors, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data
from onnxprune_passes.encode import EncodedModel, decoders, densify, encode_model
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, Skip, State
from onnxprune_passes.storage import from_proto, load, save, to_proto
from onnxprune_passes.thresholds import Sparsity

NDArray = npt.NDArray[Any]
Feeds = Mapping[str, NDArray]
Exact = Callable[[Model, EncodedModel, Feeds], None]
Build = Callable[..., Model]
Sparse = Callable[..., NDArray]

ENCODINGS: tuple[Any, ...] = ("auto", "gaps", "bitmask", "coo")
ONE = "g (float[N,32] x) => (float[N,32] y) { y = MatMul(x, w) }"
TWO = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"


def keys_of(encoded: EncodedModel) -> list[str]:
    return [tensor.key for tensor in encoded.tensors]


def test_a_function_is_there_once_for_all_tensors(build: Build, sparse: Sparse) -> None:
    found = {"w": sparse(32, 32), "v": sparse(32, 32)}
    encoded = encode_model(build(TWO, found), "gaps").model
    assert len(list(decoders(encoded))) == 2
    assert [f.name for f in encoded.skeleton.functions] == ["ReadBits", "ReadBytes", "DecodeGaps"]
    assert {f.domain for f in encoded.skeleton.functions} == {"onnxprune"}
    assert [(e.domain, e.version) for e in encoded.skeleton.opset_import] == [("", 17), ("onnxprune", 1)]


def test_the_given_model_is_left_as_it_was(build: Build, sparse: Sparse) -> None:
    text = """g (float[N,32] x, bool c) => (float[N,32] y) {
      h = MatMul(x, w)
      y = If (c) <then_branch = t () => (float[N,32] o1) { k = Constant <value = float[1] {0}> ()
                                                           o1 = MatMul(h, k) },
                  else_branch = e () => (float[N,32] o2) { o2 = Neg(h) }>
    }"""
    model = build(text, {"w": sparse(32, 32), "y.then_branch/k": sparse(32, 32)}, ir=4)
    before = to_proto(model).SerializeToString()
    for encoding in ENCODINGS:
        assert len(encode_model(model, encoding).tensors) == 2
    assert to_proto(model).SerializeToString() == before


def test_everything_else_of_the_file_stays(build: Build, sparse: Sparse) -> None:
    proto = to_proto(build(TWO, {"w": sparse(32, 32), "v": sparse(32, 32)}))
    proto.producer_name, proto.producer_version, proto.domain, proto.model_version = "p", "1.2", "d", 7
    proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = "text"
    helper.set_model_props(proto, {"labels": "a,b"})
    proto.graph.node[1].metadata_props.add(key="k", value="v")
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 32]))
    expected = onnx.ModelProto()
    expected.CopyFrom(proto)
    model = from_proto(proto)
    found = to_proto(encode_model(model).model)
    assert list(found.graph.node)[-2:] == list(expected.graph.node)
    for each in (found, expected):
        for field in ("functions", "opset_import"):
            each.ClearField(field)
        for field in ("node", "initializer"):
            each.graph.ClearField(field)
    assert found == expected


INPUTS = "g (float[N,32] x, float[32,32] w, float[32,32] v, float[32] b) => (float[N,32] y) "
BODY = "{ h = MatMul(x, w)\n i = MatMul(h, v)\n y = Add(i, b) }"


def with_inputs(build: Build, sparse: Sparse, ir: int) -> Model:
    """An old exporter's model: its initializers are graph inputs too. `b` stays dense."""
    tensors = {"w": sparse(32, 32), "v": sparse(32, 32, density=0.05), "b": sparse(32, density=1.0)}
    return build(INPUTS + BODY, tensors, opset=11, ir=ir)


def names_of(values: Iterable[onnx.ValueInfoProto]) -> list[str]:
    return [value.name for value in values]


@pytest.mark.parametrize("ir", [3, 4, 8])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_initializers_that_are_inputs_too(
    build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any, ir: int
) -> None:
    model = with_inputs(build, sparse, ir)
    encoded = encode_model(model, encoding)
    assert keys_of(encoded) == ["w", "v"]
    inputs = names_of(encoded.model.graph.input)
    gone = [entry.summary for entry in encoded.log if isinstance(entry, Change) and "inputs" in entry.summary]
    if ir == 3:  # all of them were constants, which `b` would not be any more
        assert inputs == ["x"]
        assert gone == ["initializers that are no graph inputs any more: 3 (w, v, b)"]
    else:
        assert inputs == ["x", "b"]
        assert gone == ["initializers that are no graph inputs any more: 2 (w, v)"]
    exact(model, encoded, feed)


def test_a_long_list_of_inputs_is_cut(build: Build, sparse: Sparse) -> None:
    names = [f"w{number}" for number in range(6)]
    steps = "\n".join(f"h{i + 1} = MatMul({'x' if i == 0 else f'h{i}'}, {name})" for i, name in enumerate(names))
    inputs = ", ".join(f"float[32,32] {name}" for name in names)
    text = f"g (float[N,32] x, {inputs}) => (float[N,32] h6) {{ {steps} }}"
    encoded = encode_model(build(text, {name: sparse(32, 32) for name in names}))
    assert encoded.log == (Change("encode", "initializers that are no graph inputs any more: 6 (w0, w1, w2, w3, ...)"),)


@pytest.mark.parametrize("ir", [3, 8])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_keep_inputs(build: Build, sparse: Sparse, encoding: Any, ir: int) -> None:
    model = with_inputs(build, sparse, ir)
    encoded = encode_model(model, encoding, keep_inputs=True)
    assert encoded.model is model
    reason = "stays dense: it is a graph input too, and those are kept"
    assert encoded.log == (Skip("encode", "w", reason), Skip("encode", "v", reason))


@pytest.mark.parametrize("ir", [3, 8])
def test_keep_inputs_encodes_the_others(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, ir: int) -> None:
    text = """g (float[N,32] x, float[32,32] w) => (float[N,32] y) { k = Constant <value = float[1] {0}> ()
      h = MatMul(x, w)
      y = MatMul(h, k) }"""
    model = build(text, {"w": sparse(32, 32), "k": sparse(32, 32)}, opset=11, ir=ir)
    encoded = encode_model(model, keep_inputs=True)
    assert keys_of(encoded) == ["k"]
    assert names_of(encoded.model.graph.input) == ["x", "w"]
    exact(model, encoded, feed)


@pytest.mark.parametrize(
    ("encoding", "before", "after"),
    [("auto", 4, 8), ("auto", 7, 8), ("auto", 8, 8), ("auto", 9, 9), ("auto", 13, 13), ("coo", 4, 5), ("coo", 6, 6)],
)
def test_the_ir_version_is_raised_only_to_what_is_needed(
    build: Build, sparse: Sparse, encoding: Any, before: int, after: int
) -> None:
    encoded = encode_model(build(ONE, {"w": sparse(32, 32)}, ir=before), encoding)
    assert encoded.model.skeleton.ir_version == after
    said = Change("encode", f"raised the IR version from {before} to {after}, which the stored tensors need")
    assert encoded.log == (() if before == after else (said,))
    assert densify(encoded.model).skeleton.ir_version == after


def saved_external(model: Model, folder: Path) -> Model:
    folder.mkdir()
    return load(save(model, folder / "model.onnx", external=True))


@pytest.mark.parametrize("encoding", ["auto", "gaps", "bitmask"])
def test_external_data_stays_external(
    build: Build, sparse: Sparse, exact: Exact, encoding: Any, tmp_path: Path
) -> None:
    text = "g (float[N,64] x) => (float[N,512] y) { h = MatMul(x, w)\n i = MatMul(h, v)\n y = MatMul(i, s) }"
    tensors = {
        "w": sparse(64, 512, density=0.2, below=1000),
        "v": sparse(512, 2, density=1.0, below=100_000),
        "s": sparse(2, 512, density=0.02),
    }
    model = saved_external(build(text, tensors), tmp_path / "dense")
    encoded = encode_model(model, encoding)
    assert keys_of(encoded) == ["w", "s"]
    exact(model, encoded, {"x": np.ones((2, 64), np.float32)})

    stored = saved_as(encoded.model, tmp_path / "encoded")
    assert {name for name, tensor in stored.items() if uses_external_data(tensor)} >= {"0a", "v"}
    assert all(not uses_external_data(tensor) for name, tensor in stored.items() if name.startswith("s."))
    dense = saved_as(densify(load(tmp_path / "encoded" / "model.onnx")), tmp_path / "again")
    assert [name for name, tensor in sorted(dense.items()) if uses_external_data(tensor)] == ["s", "v", "w"]
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).iterdir()) for name in ("dense", "encoded", "again")]
    assert sizes[1] < sizes[0]
    assert abs(sizes[2] - sizes[0]) < 100


def test_what_was_inline_stays_inline(build: Build, sparse: Sparse, tmp_path: Path) -> None:
    """Beside external tensors too."""
    text = "g (float[N,64] x) => (float[N,64] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"
    external = saved_external(
        build(text, {"w": sparse(64, 64, below=1000, density=0.2), "v": sparse(64, 64, density=0.5, below=1000)}),
        tmp_path / "dense",
    )
    proto = onnx.load(tmp_path / "dense" / "model.onnx", load_external_data=False)
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(external.initializers["v"], "v"))
    mixed = from_proto(proto, tmp_path / "dense")
    encoded = encode_model(mixed, "bitmask")
    assert keys_of(encoded) == ["w", "v"]
    dense = saved_as(densify(encoded.model), tmp_path / "again")
    assert [uses_external_data(dense[name]) for name in ("w", "v")] == [True, False]


def saved_as(model: Model, folder: Path) -> dict[str, onnx.TensorProto]:
    folder.mkdir()
    proto = onnx.load(save(model, folder / "model.onnx"), load_external_data=False)
    return {tensor.name: tensor for tensor in proto.graph.initializer}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("dtype", "field"), [(np.float32, "float_data"), (np.float16, "int32_data")])
def test_typed_storage(
    build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any, dtype: Any, field: str
) -> None:
    text = "g (float[N,32] x) => (float[N,256] y) { f = Cast<to = 1>(w)\n y = MatMul(x, f) }"
    array = sparse(32, 256, density=0.05, dtype=dtype)
    proto = to_proto(build(text, {"w": array}))
    proto.graph.initializer[0].ClearField("raw_data")
    getattr(proto.graph.initializer[0], field).extend((array.view(np.uint16) if field == "int32_data" else array).flat)
    model = from_proto(proto)
    encoded = encode_model(model, encoding)
    assert keys_of(encoded) == ["w"]
    exact(model, encoded, feed)


def test_operators_of_other_domains(build: Build, sparse: Sparse, feed: Feeds, exact: Exact) -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
    g (float[N,32] x) => (float[N,32] y) { y = com.microsoft.FusedMatMul <alpha = 2.0> (x, w) }"""
    model = build(text, {"w": sparse(32, 32)})
    encoded = encode_model(model)
    assert keys_of(encoded) == ["w"]
    exact(model, encoded, feed)


def test_a_masked_tensor(build: Build, sparse: Sparse, feed: Feeds, exact: Exact) -> None:
    """What a pass leaves behind is read through its mask."""
    pruned = MagnitudePrune(Sparsity(0.9))(State(build(ONE, {"w": sparse(32, 32, density=1.0)}))).model
    encoded = encode_model(pruned)
    assert encoded.tensors[0].density == pytest.approx(0.1, abs=0.001)
    exact(pruned, encoded, feed)


LENET = Path(__file__).parents[3] / "models" / "lenet_300_100.onnx"


@pytest.mark.parametrize(("sparsity", "most"), [(0.9, 0.14), (0.5, 0.55)])
def test_the_lenet_shrinks_as_promised(sparsity: float, most: float, tmp_path: Path, run: Any) -> None:
    pruned = MagnitudePrune(Sparsity(sparsity))(State(load(LENET))).model
    encoded = encode_model(pruned)
    path = save(encoded.model, tmp_path / "lenet.onnx")
    assert path.stat().st_size <= most * LENET.stat().st_size
    onnx.checker.check_model(str(path), full_check=True)
    feeds = {pruned.graph.input[0].name: np.random.default_rng(0).random((4, 1, 28, 28), np.float32)}
    enabled = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert run(load(path), feeds, enabled) == run(pruned, feeds, enabled)
    assert {key: array.tobytes() for key, array in densify(load(path)).initializers.items()} == {
        key: array.tobytes() for key, array in pruned.initializers.items()
    }
