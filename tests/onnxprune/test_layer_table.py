from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.storage import load, save

from onnxprune.analysis import Analysis
from onnxprune.cli.main import cli
from onnxprune.layers import DataSource, LayerTable, layer_table
from onnxprune.prune import prune_file
from onnxprune.resolve import options_from

Array = npt.NDArray[Any]
MODELS = Path(__file__).parents[2] / "models"


def _file(folder: Path, text: str, **arrays: Array) -> Path:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    path = folder / "made.onnx"
    onnx.save(proto, str(path))
    return path


def _ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def _data(folder: Path, **arrays: Array) -> str:
    path = folder / "made.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # taken for savez's own option
    return str(path)


def _shares(table: LayerTable) -> dict[str, tuple[float | None, float | None]]:
    return {layer.name: (layer.activations, layer.reads) for layer in table.layers}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("lenet_300_100", {"fc1": (235_200, 470_400), "fc2": (30_000, 60_000), "fc3": (1_000, 2_000)}),
        (
            "lenet_5",
            {"conv1": (500, 576_000), "conv2": (25_000, 3_200_000), "fc1": (400_000, 800_000), "fc2": (5_000, 10_000)},
        ),
    ],
)
def test_weights_and_flops_of_the_lenets(network: str, expected: dict[str, tuple[int, int]]) -> None:
    table = layer_table(MODELS / f"{network}.onnx")
    found = {layer.name.removesuffix(".weight"): (layer.weights, layer.flops) for layer in table.layers}
    assert found == expected
    assert {layer.flop_share for layer in table.layers} == {None}


def test_shares_are_counted_behind_relu_and_pooling(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"w": rng.integers(-3, 4, (4, 2, 3, 3)), "b": rng.integers(-9, 3, 4), "v": rng.integers(-3, 4, (36, 5))}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    text = """g (float[N,2,8,8] x) => (float[N,5] y) {
        c = Conv(x, w, b)  r = Relu(c)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)  f = Flatten(p)
        y = MatMul(f, v)
    }"""
    path = _file(tmp_path, text, **arrays)
    x = rng.integers(-2, 3, (70, 2, 8, 8)).astype(np.float32)
    table = layer_table(path, DataSource(_data(tmp_path, x=x)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    made = np.maximum(np.einsum("nchwij,ocij->nohw", windows, arrays["w"]) + arrays["b"][None, :, None, None], 0)
    pooled = made.reshape(70, 4, 3, 2, 3, 2).max(axis=(3, 5))
    answers = pooled.reshape(70, -1) @ arrays["v"]
    conv, dense = table.layers
    assert (conv.neurons, dense.neurons, table.samples) == (36, 5, 70)
    assert conv.activations == pytest.approx(np.count_nonzero(pooled) / pooled.size)
    assert dense.activations == pytest.approx(np.count_nonzero(answers) / answers.size)
    assert conv.reads == 1.0
    assert dense.reads == pytest.approx(conv.activations)
    kept = np.count_nonzero(arrays["v"])
    assert dense.flop_share == pytest.approx(kept / 180 * np.count_nonzero(pooled) / pooled.size)


def test_samples_are_spread_evenly_and_all_by_default(tmp_path: Path) -> None:
    path = _file(tmp_path, "g (float[N,2] x) => (float[N,2] y) { m = MatMul(x, w)  y = Relu(m) }", w=_ones(2, 2))
    x = np.ones((10, 2), np.float32)
    x[1:9] = -1
    data = _data(tmp_path, x=x)
    assert [layer.activations for layer in layer_table(path, DataSource(data)).layers] == [0.2]
    few = layer_table(path, DataSource(data, samples=2))  # the first and the last
    assert (few.samples, few.layers[0].activations) == (2, 1.0)


def test_a_fixed_batch_runs_whole_batches_only(tmp_path: Path) -> None:
    path = _file(tmp_path, "g (float[4,2] x) => (float[4,2] y) { m = MatMul(x, w)  y = Relu(m) }", w=_ones(2, 2))
    table = layer_table(path, DataSource(_data(tmp_path, x=np.ones((10, 2), np.float32))))
    assert (table.samples, table.layers[0].neurons) == (8, 2)
    with pytest.raises(DataError, match="fewer than one batch of 4"):
        layer_table(path, DataSource(_data(tmp_path, x=np.ones((8, 2), np.float32)), samples=3))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (  # a bias that is added, a clip, and a value that two nodes read: the layer's activations end there
            """g (float[N,2] x) => (float[N,2] y) {
                a = MatMul(x, w)  b = Add(a, minus)  c = Clip(b, zero)  d = MatMul(c, v)  e = Neg(c)  y = Add(d, e)
            }""",
            {"w": (0.0, 1.0), "v": (0.0, 0.0)},
        ),
        (  # what scales and moves an input is the input still
            "g (float[N,2] x) => (float[N,2] y) { a = Mul(x, zero)  b = Reshape(a, shape)  y = MatMul(b, w) }",
            {"w": (0.0, 1.0)},
        ),
        (  # the activations of a residual sum are those of all that is added
            """g (float[N,2] x) => (float[N,2] y) {
                a = MatMul(x, w)  b = Mul(x, minus)  c = Add(a, b)  d = Relu(c)  y = MatMul(d, v)
            }""",
            {"w": (0.0, 1.0), "v": (0.0, 0.0)},
        ),
        (  # padding is not read
            "g (float[N,2] x) => (float[N,4] y) { a = Abs(x)  b = Pad(a, pads)  y = MatMul(b, u) }",
            {"u": (1.0, 1.0)},
        ),
    ],
)
def test_what_belongs_to_a_layer(tmp_path: Path, text: str, expected: dict[str, tuple[float, float]]) -> None:
    arrays: dict[str, Array] = {
        "w": _ones(2, 2),
        "v": _ones(2, 2),
        "u": _ones(4, 4),
        "minus": np.array([-9, -9], np.float32),
        "zero": np.array(0, np.float32),
        "shape": np.array([-1, 2]),
        "pads": np.array([0, 1, 0, 1]),
    }
    path = _file(tmp_path, text, **{name: array for name, array in arrays.items() if name in text})
    table = layer_table(path, DataSource(_data(tmp_path, x=np.ones((5, 2), np.float32))))
    assert _shares(table) == expected


def test_layers_in_bodies_are_not_measured_and_count_whole(tmp_path: Path) -> None:
    text = """g (float[N,6] x, bool c) => (float[N,6] y) {
        y = If(c)<
            then_branch = t () => (float[N,6] a) { a = MatMul(x, w) },
            else_branch = e () => (float[N,6] b) { b = Neg(x) }
        >
    }"""
    path = _file(tmp_path, text, w=np.diag(np.array([1, 1, 1, 0, 0, 0], np.float32)))
    data = _data(tmp_path, x=np.ones((3, 6), np.float32), c=np.array(True))
    table = layer_table(path, DataSource(data))
    assert _shares(table) == {"w": (None, None)}
    assert table.total.flop_share == pytest.approx(3 / 36)
    assert any("w read was not measured" in note for note in table.notes)


def _pruned(net: Path, **given: Any) -> Path:
    out = net.with_name("small.onnx")
    report = prune_file(options_from(str(net), {"output": str(out), "quiet": True, **given}))
    assert report.status == "done", report.error
    return out


def test_an_encoded_file_is_counted_as_what_it_decodes_to(net: Path, labelled: Path) -> None:
    small = _pruned(net, sparsity=0.9, shrink=False)
    dense = save(load(_pruned(net, sparsity=0.9, shrink=False, encode="dense")), net.with_name("dense.onnx"))
    source = DataSource(str(labelled))
    assert layer_table(small, source).layers == layer_table(dense, source).layers


def test_a_shrunk_file_counts_against_the_dense_one(dead_net: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((40, 64)).astype(np.float32)
    source = DataSource(_data(tmp_path, x=x))
    small = _pruned(dead_net, sparsity=0.0)
    own = layer_table(small, source)
    against = layer_table(small, source, dense=dead_net)
    whole = layer_table(dead_net, source)
    assert own.layers[0].weights < against.layers[0].weights
    assert [layer.weights for layer in against.layers] == [layer.weights for layer in whole.layers]
    assert [layer.flops for layer in against.layers] == [layer.flops for layer in whole.layers]
    for layer, other in zip(against.layers, own.layers, strict=True):
        assert layer.density == pytest.approx(other.kept / layer.weights)
        assert layer.kept == other.kept <= next(one.kept for one in whole.layers if one.name == layer.name)


def test_a_layer_that_is_gone_stays_in_the_table(tmp_path: Path) -> None:
    text = "g (float[N,2] x) => (float[N,2] y) { a = MatMul(x, w)  y = MatMul(a, v) }"
    dense = _file(tmp_path, text, w=_ones(2, 2), v=_ones(2, 2)).rename(tmp_path / "dense.onnx")
    small = _file(tmp_path, "g (float[N,2] x) => (float[N,2] y) { y = MatMul(x, w) }", w=_ones(2, 2))
    table = layer_table(small, dense=dense)
    assert [(layer.name, layer.density) for layer in table.layers] == [("w", 1.0), ("v", 0.0)]
    assert table.total.density == 0.5
    assert any("v is not in the file any more" in note for note in table.notes)


def test_a_file_that_it_was_not_pruned_from_is_refused(net: Path, tmp_path: Path) -> None:
    other = _file(tmp_path, "g (float[N,2] x) => (float[N,2] y) { y = MatMul(x, w) }", w=_ones(2, 2))
    with pytest.raises(SelectionError, match=r"no weight named 'fc1\.weight'.*pruned from"):
        layer_table(net, dense=other)
    text = "g (float[N,3] x) => (float[N,3] y) { y = MatMul(x, w) }"
    with pytest.raises(SelectionError, match="w has 4 entries there and 9 in"):
        layer_table(_file(tmp_path.joinpath("net"), text, w=_ones(3, 3)), dense=other)


def _run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["inspect", *map(str, args)], terminal_width=200)


def test_the_command_prints_writes_and_gives_json(net: Path, labelled: Path, tmp_path: Path) -> None:
    small = _pruned(net, sparsity=0.8)
    markdown, file = tmp_path / "layers.md", tmp_path / "layers.json"
    result = _run(small, "--dense", net, "--data", labelled, "--samples", "20", "--markdown", markdown, "--json", file)
    assert result.exit_code == 0, result.output
    found = msgspec.json.decode(file.read_bytes(), type=Analysis).layers
    assert found is not None
    assert found == layer_table(small, DataSource(str(labelled), samples=20), dense=net)
    lines = markdown.read_text().splitlines()
    assert lines[0] == "| layer | weights | FLOP | Act % | Weights % | FLOP % |"
    first = found.layers[0]
    assert first.activations is not None
    assert first.flop_share is not None
    shares = (100 * first.activations, 100 * first.density, 100 * first.flop_share)
    assert lines[2] == f"| fc1.weight | 6,144 | 12,288 | {shares[0]:.1f} | {shares[1]:.1f} | {shares[2]:.1f} |"
    assert "20 samples" in result.stdout
    assert f"weights kept: {found.total.kept:,} of 9,536" in result.stdout


def test_the_table_comes_when_it_is_asked_for_only(net: Path) -> None:
    assert "FLOP" not in _run(net).stdout
    result = _run(net, "--layers")
    assert "FLOP %" in result.stdout
    assert "activations:" not in result.stdout


@pytest.mark.parametrize("option", [("--samples", "5"), ("--data-option", "scale=1")])
def test_options_of_the_data_need_data(net: Path, option: tuple[str, str]) -> None:
    result = _run(net, *option)
    assert result.exit_code == 2
    assert f"{option[0]} has no meaning without --data" in result.output
