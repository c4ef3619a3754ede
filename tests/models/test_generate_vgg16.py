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
from onnx import numpy_helper


@pytest.fixture(scope="module")
def vgg16(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("generate_vgg16")


def generate(vgg16: ModuleType, out: Path, *options: str) -> Path:
    result = CliRunner().invoke(vgg16.main, ["--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return out


def arrays_by_name(path: Path) -> dict[str, bytes]:
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer}


def test_the_full_shape_table_counts_what_the_paper_counts(vgg16: ModuleType) -> None:
    shapes = vgg16.parameter_shapes()
    assert sum(math.prod(shape) for shape in shapes.values()) == 138_357_544
    assert len(shapes) == 32
    assert (next(iter(shapes)), list(shapes)[-1]) == ("conv1_1.weight", "fc8.bias")
    assert shapes["conv1_1.weight"] == (64, 3, 3, 3)
    assert shapes["conv5_3.weight"] == (512, 512, 3, 3)
    assert shapes["fc6.weight"] == (4096, 25_088)
    assert shapes["fc8.bias"] == (1000,)
    weights = sum(math.prod(shape) for name, shape in shapes.items() if name.endswith(".weight"))
    assert weights == 138_344_128


def test_the_graph_is_the_one_of_the_paper(vgg16: ModuleType, tmp_path: Path) -> None:
    path = generate(vgg16, tmp_path / "vgg16.onnx", "--scale", "64")
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    operators = [node.op_type for node in model.graph.node]
    block = ["Conv", "Relu"]
    convolutions = [operator for depth in (2, 2, 3, 3, 3) for operator in [*block * depth, "MaxPool"]]
    assert operators == [*convolutions, "Flatten", "Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    assert {t.name: tuple(t.dims) for t in model.graph.initializer} == vgg16.parameter_shapes(64)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("batch", [1, 2])
def test_it_runs_with_a_dynamic_batch_and_gives_finite_distinct_logits(
    vgg16: ModuleType, tmp_path: Path, batch: int
) -> None:
    path = generate(vgg16, tmp_path / "vgg16.onnx", "--scale", "16")
    images = np.random.default_rng(3).standard_normal((batch, 3, 224, 224), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": images})[0]
    assert logits.shape == (batch, 1000)
    assert np.isfinite(logits).all()
    assert len(np.unique(logits)) > 900 * batch


@pytest.mark.parametrize("scale", ["16", "64"])
def test_inline_and_external_hold_the_same_bytes(vgg16: ModuleType, tmp_path: Path, scale: str) -> None:
    inline = generate(vgg16, tmp_path / "inline.onnx", "--scale", scale)
    external = generate(vgg16, tmp_path / "external.onnx", "--scale", scale, "--external")
    assert arrays_by_name(inline) == arrays_by_name(external)
    onnx.checker.check_model(external, full_check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["external.onnx", "external.onnx.data", "inline.onnx"]


def test_external_tensors_are_aligned_apart_and_only_large_ones(vgg16: ModuleType, tmp_path: Path) -> None:
    path = generate(vgg16, tmp_path / "vgg16.onnx", "--scale", "16", "--external")
    end = 0
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        size = 4 * math.prod(tensor.dims)
        if size <= 1024:
            assert (tensor.data_location, len(tensor.raw_data)) == (onnx.TensorProto.DEFAULT, size)
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert (tensor.data_location, tensor.raw_data) == (onnx.TensorProto.EXTERNAL, b"")
        assert (place["location"], int(place["length"])) == ("vgg16.onnx.data", size)
        assert int(place["offset"]) % 4096 == 0
        assert end <= int(place["offset"]) < end + 4096
        end = int(place["offset"]) + size
    assert end == (tmp_path / "vgg16.onnx.data").stat().st_size


def test_the_seed_alone_decides_the_bytes(vgg16: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = generate(vgg16, tmp_path / "first.onnx", "--scale", "64", "--seed", "5").read_bytes()
    assert generate(vgg16, tmp_path / "again.onnx", "--scale", "64", "--seed", "5").read_bytes() == first
    assert arrays_by_name(generate(vgg16, tmp_path / "other.onnx", "--scale", "64")) != arrays_by_name(
        tmp_path / "first.onnx"
    )
    monkeypatch.setattr(vgg16, "CHUNK", 1001)  # odd on purpose: chunks must not show in the stream
    assert generate(vgg16, tmp_path / "chunks.onnx", "--scale", "64", "--seed", "5").read_bytes() == first


def test_weights_have_the_deviation_of_he_and_biases_are_zero(vgg16: ModuleType, tmp_path: Path) -> None:
    model = onnx.load(generate(vgg16, tmp_path / "vgg16.onnx", "--scale", "16"))
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in ("conv4_2.weight", "fc6.weight", "fc8.weight"):
        weight = arrays[name]
        expected = math.sqrt(2 / math.prod(weight.shape[1:]))
        # five standard errors of a deviation and of a mean estimated from this many draws
        assert abs(weight.std() / expected - 1) < 5 / math.sqrt(2 * weight.size)
        assert abs(weight.mean()) < 5 * expected / math.sqrt(weight.size)
    assert not any(array.any() for name, array in arrays.items() if name.endswith(".bias"))
    assert not np.array_equal(arrays["conv5_1.weight"], arrays["conv5_2.weight"])


@pytest.mark.parametrize("options", [[], ["--external"]])
def test_an_interrupted_run_leaves_nothing_under_the_final_names(
    vgg16: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    out = tmp_path / "vgg16.onnx"
    result = CliRunner().invoke(vgg16.main, ["--out", str(out), "--scale", "64", *options])
    assert result.exit_code == 1
    assert {path.suffix for path in tmp_path.iterdir()} == {".part"}


@pytest.mark.parametrize("options", [["--scale", "0"], ["--scale", "65"], ["--seed", "-1"], []])
def test_usage_errors_exit_2(vgg16: ModuleType, tmp_path: Path, options: list[str]) -> None:
    out = ["--out", str(tmp_path / "vgg16.onnx")] if options else []
    assert CliRunner().invoke(vgg16.main, [*out, *options]).exit_code == 2
    assert list(tmp_path.iterdir()) == []
