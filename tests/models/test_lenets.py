"""The two trained files in models/, as they are."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"

SHAPES = {
    "lenet_300_100": {
        "fc1.weight": (300, 784),
        "fc1.bias": (300,),
        "fc2.weight": (100, 300),
        "fc2.bias": (100,),
        "fc3.weight": (10, 100),
        "fc3.bias": (10,),
    },
    "lenet_5": {
        "conv1.weight": (20, 1, 5, 5),
        "conv1.bias": (20,),
        "conv2.weight": (50, 20, 5, 5),
        "conv2.bias": (50,),
        "fc1.weight": (500, 800),
        "fc1.bias": (500,),
        "fc2.weight": (10, 500),
        "fc2.bias": (10,),
    },
}
OPERATORS = {
    "lenet_300_100": ["Flatten", "Gemm", "Relu", "Gemm", "Relu", "Gemm"],
    "lenet_5": [*["Conv", "Relu", "MaxPool"] * 2, "Flatten", "Gemm", "Relu", "Gemm"],
}
PARAMETERS = {"lenet_300_100": 266_610, "lenet_5": 431_080}
LARGEST_ERROR = {"lenet_300_100": 0.016, "lenet_5": 0.0085}

both = pytest.mark.parametrize("name", sorted(SHAPES))


def axes(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def session_from_file(name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(MODELS / f"{name}.onnx"), providers=["CPUExecutionProvider"])


@both
def test_structure(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert model.graph.name == name
    assert model.ir_version == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert [(value.name, axes(value)) for value in model.graph.input] == [("image", ["N", 1, 28, 28])]
    assert [(value.name, axes(value)) for value in model.graph.output] == [("logits", ["N", 10])]
    assert [node.op_type for node in model.graph.node] == OPERATORS[name]
    for node in model.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Gemm":
            assert attributes == {"transB": 1}
        if node.op_type in {"Gemm", "Conv"}:
            assert list(node.input[1:]) == [f"{node.name}.weight", f"{node.name}.bias"]


@both
def test_initializers(name: str) -> None:
    initializers = onnx.load(MODELS / f"{name}.onnx").graph.initializer
    assert {tensor.name: tuple(tensor.dims) for tensor in initializers} == SHAPES[name]
    assert sum(math.prod(tensor.dims) for tensor in initializers) == PARAMETERS[name]
    for tensor in initializers:
        assert tensor.data_type == onnx.TensorProto.FLOAT
        assert len(tensor.raw_data) == 4 * math.prod(tensor.dims)
        assert np.isfinite(np.frombuffer(tensor.raw_data, dtype="<f4")).all()


@both
def test_the_file_tells_how_it_was_made(name: str) -> None:
    model = onnx.load(MODELS / f"{name}.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert "models/train_lenets.py" in model.doc_string
    assert (properties["script"], properties["seed"]) == ("models/train_lenets.py", "0")
    assert properties["recipe"].startswith("Recipe(epochs=")
    readme = (MODELS / "README.md").read_text(encoding="utf-8")
    assert properties["test_error"].partition(" (")[0] in readme


@both
@pytest.mark.parametrize("batch", [1, 7])
def test_the_batch_axis_is_free_and_images_do_not_see_each_other(name: str, batch: int) -> None:
    images = np.random.default_rng(0).random((batch, 1, 28, 28), dtype=np.float32)
    session = session_from_file(name)
    logits = session.run(["logits"], {"image": images})[0]
    assert logits.shape == (batch, 10)
    alone = np.concatenate([session.run(["logits"], {"image": image[np.newaxis]})[0] for image in images])
    assert np.abs(logits - alone).max() <= 1e-5 * np.abs(alone).max()


@both
def test_the_test_error_is_as_good_as_promised_and_as_written(name: str, mnist: ModuleType, data_folder: Path) -> None:
    images, labels = mnist.load_mnist("test", data_folder)
    logits = session_from_file(name).run(["logits"], {"image": mnist.unit_images(images)})[0]
    errors = int(np.count_nonzero(logits.argmax(axis=1) != labels))
    assert errors <= LARGEST_ERROR[name] * len(labels)
    properties = {entry.key: entry.value for entry in onnx.load(MODELS / f"{name}.onnx").metadata_props}
    written = re.fullmatch(r"\d\.\d\d % \((\d+) of 10000\)", properties["test_error"])
    assert written is not None
    assert abs(errors - int(written[1])) <= 1  # another processor may round one close image the other way
