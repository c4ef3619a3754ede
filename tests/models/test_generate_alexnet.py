from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from onnxprune.layers import layer_table


@pytest.fixture(scope="module")
def alexnet(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("generate_alexnet")


@pytest.fixture(scope="module")
def vgg16(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("generate_vgg16")


def generate(alexnet: ModuleType, out: Path, *options: str) -> Path:
    result = CliRunner().invoke(alexnet.main, ["--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return out


def test_the_full_shape_table_counts_what_the_model_zoo_counts(alexnet: ModuleType, vgg16: ModuleType) -> None:
    shapes = vgg16.shapes_of(alexnet.layers())
    assert sum(math.prod(shape) for shape in shapes.values()) == 60_965_224
    assert shapes["conv2.weight"] == (256, 48, 5, 5)
    assert shapes["fc6.weight"] == (4096, 9216)


def test_it_runs_with_a_dynamic_batch_and_gives_finite_logits(alexnet: ModuleType, tmp_path: Path) -> None:
    path = generate(alexnet, tmp_path / "alexnet.onnx", "--scale", "16")
    onnx.checker.check_model(path, full_check=True)
    images = np.random.default_rng(3).standard_normal((2, 3, 227, 227), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": images})[0]
    assert logits.shape == (2, 1000)
    assert np.isfinite(logits).all()
    assert len(np.unique(logits)) > 1800


def test_the_seed_decides_and_external_weights_hold_the_same_bytes(alexnet: ModuleType, tmp_path: Path) -> None:
    first = generate(alexnet, tmp_path / "first.onnx", "--scale", "16")
    other = generate(alexnet, tmp_path / "other.onnx", "--scale", "16", "--seed", "1")
    assert first.read_bytes() == generate(alexnet, tmp_path / "again.onnx", "--scale", "16").read_bytes()
    external = onnx.load(generate(alexnet, tmp_path / "external.onnx", "--scale", "16", "--external"))
    values = [{one.name: one.raw_data for one in model.graph.initializer} for model in (onnx.load(first), external)]
    assert values[0] == values[1]
    assert values[0] != {one.name: one.raw_data for one in onnx.load(other).graph.initializer}


ALEXNET_FLOPS = {
    "conv1": 2 * 55 * 55 * 96 * 3 * 121,
    "conv2": 2 * 27 * 27 * 256 * 48 * 25,
    "conv3": 2 * 13 * 13 * 384 * 256 * 9,
    "conv4": 2 * 13 * 13 * 384 * 192 * 9,
    "conv5": 2 * 13 * 13 * 256 * 192 * 9,
    "fc6": 2 * 9216 * 4096,
    "fc7": 2 * 4096 * 4096,
    "fc8": 2 * 4096 * 1000,
}
PUBLISHED_ALEXNET = (211e6, 448e6, 299e6, 224e6, 150e6, 75e6, 34e6, 8e6)  # the paper's table 4, rounded
PUBLISHED_VGG = (0.2e9, 3.7e9, 1.8e9, 3.7e9, 1.8e9, 3.7e9, 3.7e9, 1.8e9, 3.7e9, 3.7e9, *(925e6,) * 3, 206e6, 34e6, 8e6)


def _holes(network: ModuleType, vgg16: ModuleType, folder: Path) -> Path:
    """The full-size network with weights of zero, which take no room on disk: holes in a data file."""
    data = folder / "holes.onnx.data"
    tensors, offset = [], 0
    for name, shape in vgg16.shapes_of(network.layers()).items():
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": data.name, "offset": str(offset), "length": str(4 * math.prod(shape))}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
        offset += 4 * math.prod(shape)
    with data.open("wb") as file:
        file.truncate(offset)
    path = folder / "holes.onnx"
    path.write_bytes(network.model_from_tensors(tensors, 1, 0).SerializeToString())
    return path


def test_flops_of_alexnet_are_those_of_the_paper(alexnet: ModuleType, vgg16: ModuleType, tmp_path: Path) -> None:
    table = layer_table(_holes(alexnet, vgg16, tmp_path))
    found = {layer.name.removesuffix(".weight"): layer.flops for layer in table.layers}
    assert found == ALEXNET_FLOPS
    assert list(found.values()) == pytest.approx(PUBLISHED_ALEXNET, rel=0.03)
    assert table.total.weights == 60_954_656
    assert table.total.flops == pytest.approx(1.5e9, rel=0.04)
    assert table.total.kept == 0


@pytest.mark.slow
def test_flops_of_vgg16_are_those_of_the_paper(vgg16: ModuleType, tmp_path: Path) -> None:
    table = layer_table(_holes(vgg16, vgg16, tmp_path))
    for layer, published in zip(table.layers, PUBLISHED_VGG, strict=True):
        digit = 0.06e9 if published > 1e9 else 0.03 * published  # one digit behind the point
        assert layer.flops == pytest.approx(published, abs=max(digit, 0.05e9 if published == 0.2e9 else 0)), layer.name
    assert table.total.weights == 138_344_128
    assert table.total.flops == pytest.approx(30.9e9, rel=0.005)
