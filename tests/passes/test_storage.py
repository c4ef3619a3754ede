from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from builders import constant, everything, proto, ramp, relu, stored, tensors_in, value
from hypothesis import given
from onnx import helper, numpy_helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.storage import from_proto, from_text, load, save, to_proto, to_text
from strategies import models


def exact(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def test_nothing_is_lost_between_load_and_save(tmp_path: Path) -> None:
    model = everything()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "m.onnx")
    after = onnx.load(save(loaded, tmp_path / "out.onnx"))
    assert after == model
    assert exact(after) == exact(model)
    assert to_proto(loaded) == model
    assert to_proto(from_proto(model)) == model


@given(models())
def test_load_and_save_are_inverse(model: onnx.ModelProto) -> None:
    before = exact(model)
    loaded = from_proto(model)
    assert exact(to_proto(loaded)) == before
    assert exact(model) == before  # what was handed in is not written to
    assert exact(to_proto(from_proto(to_proto(loaded)))) == before


def test_values_are_those_of_onnx() -> None:
    loaded = from_proto(everything())
    assert {"w", "half", "bf16", "long typed", "bytes typed", "scalar", "none"} <= set(loaded.initializers)
    for tensor in everything().graph.initializer:
        if tensor.name in ("words", "nibbles", "complex", "e4m3"):
            assert tensor.name not in loaded.initializers  # no whole-byte numbers
            continue
        expected = numpy_helper.to_array(tensor)
        found = loaded.initializers[tensor.name]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)
    assert loaded.initializers["looped.body/step"][0, 1] == 4
    assert loaded.initializers["bf16"].dtype == ml_dtypes.bfloat16


def test_big_tensors_leave_the_skeleton_and_small_ones_stay() -> None:
    sizes = {"just small": 64, "just big": 65}
    model = proto(
        [constant("c", ramp(65)), constant("s", ramp(64)), helper.make_node("Add", list(sizes), ["y"])],
        [stored(name, ramp(size)) for name, size in sizes.items()],
    )
    skeleton = from_proto(model).skeleton
    assert [len(tensor.raw_data) for tensor in tensors_in(skeleton)] == [0, 256, 256, 0]
    assert [tensor.data_location for tensor in tensors_in(skeleton)] == [1, 0, 0, 1]


def test_arrays_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    onnx.save(relu(stored("w", ramp(100))), tmp_path / "m.onnx")
    values = load(tmp_path / "m.onnx").initializers["w"]
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 5
    data = (tmp_path / "m.onnx").read_bytes()
    with (tmp_path / "m.onnx").open("r+b") as file:  # what is written to the file is seen: it was never copied
        file.seek(data.index(np.float32(50).tobytes()))
        file.write(np.float32(-50).tobytes())
    assert values[49] == -50


def test_shape_inference_reads_the_skeleton() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Reshape", ["c", "to"], ["y"]),
    ]
    model = proto(
        nodes,
        [stored("w", ramp(8, 3, 3, 3)), stored("to", np.array([0, -1], np.int64))],
        inputs=[value("x", [1, 3, 10, 10])],
        outputs=[value("y", None)],
    )
    inferred = onnx.shape_inference.infer_shapes(from_proto(model).skeleton)
    assert [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim] == [1, 512]


def test_text_goes_both_ways() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
        net (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }"""
    model = from_text(text)
    assert model.initializers["w"].tolist() == [[1, 2], [3, 4]]
    assert to_proto(from_text(to_text(model))) == to_proto(model)


def test_text_that_is_none_names_the_line() -> None:
    with pytest.raises(ModelError, match=r"cannot be parsed.*line"):
        from_text("<ir_version: 8>\n net (float x) = what")


@pytest.mark.corpus
@pytest.mark.parametrize("external", [None, False, True])
def test_the_corpus_comes_through(corpus_path: Path, tmp_path: Path, external: bool | None) -> None:
    before = onnx.load(corpus_path)
    loaded = load(corpus_path)
    after = onnx.load(save(loaded, tmp_path / "out.onnx", external=external))
    if external:  # onnx.load leaves external tensors in raw_data, and says DEFAULT at each
        assert list(tmp_path.glob("out.*.data"))
        for model in (before, after):
            for tensor in tensors_in(model):
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    assert after == before
    if external is None:
        assert exact(after) == exact(before)
        assert to_proto(loaded) == before
