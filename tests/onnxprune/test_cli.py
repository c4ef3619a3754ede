from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.encode import densify
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks
from onnxprune_passes.storage import load

from onnxprune.cli.main import cli
from onnxprune.cli.prune import prune
from onnxprune.recipe import KEYS
from onnxprune.report import Report
from onnxprune.train_recipe import TrainRecipe

Array = npt.NDArray[Any]


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _report(model: Path, *args: object) -> Report:
    """Run the command on `model`, which must succeed, and read its report."""
    file = model.with_name("report.json")
    result = _run(model, "--json", file, *args)
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(file.read_bytes(), type=Report)


def _densities(model: Path, *args: object) -> dict[str, float]:
    """Density of each weight after pruning alone."""
    return {layer.name: layer.density_after for layer in _report(model, "--no-shrink", *args).layers}


def _all(arrays: dict[str, Array]) -> Array:
    return np.concatenate([array.reshape(-1) for name, array in arrays.items() if name.endswith("weight")])


# The default command, and names


def test_a_model_alone_is_pruned_and_the_result_goes_to_stdout(net: Path) -> None:
    result = _run(net)
    assert result.exit_code == 0
    assert net.with_name("net.pruned.onnx").exists()
    assert "fc1.weight" in result.stdout
    assert "accuracy was not measured: no --data was given" in result.stdout
    assert result.stderr == ""


def test_prune_is_the_same_command(net: Path) -> None:
    assert _run("prune", net, "-o", net.with_name("a.onnx")).exit_code == 0
    assert _run("--sparsity", "0.5", net, "-o", net.with_name("b.onnx")).exit_code == 0
    assert net.with_name("a.onnx").read_bytes() == net.with_name("b.onnx").read_bytes()


def test_a_model_named_like_a_command_is_reached_by_its_path(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(net.parent)
    shutil.copy(net, "inspect")
    assert _run("./inspect", "-o", "a.onnx").exit_code == 0
    assert _run("prune", "inspect", "-o", "b.onnx").exit_code == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    assert _run("inspect").exit_code == 2


@pytest.mark.parametrize("args", [["-"], ["prune", "-"], ["inspect", "-"], ["verify", "-", "b"], ["densify", "-"]])
def test_standard_input_is_refused(args: list[str]) -> None:
    result = _run(*args)
    assert result.exit_code == 2
    assert "standard input is not supported" in result.stderr


def test_standard_output_is_refused(net: Path) -> None:
    for option in ("-o", "--json", "--save-masks"):
        result = _run(net, option, "-")
        assert result.exit_code == 2
        assert "standard output is not supported" in result.stderr


def test_every_recipe_key_is_an_option_of_the_command() -> None:
    options = {name.removeprefix("--") for param in prune.params for name in param.opts if name.startswith("--")}
    assert set(KEYS) - {"training"} <= options  # its options stand beside the others
    trained = set(TrainRecipe.__struct_encode_fields__)
    assert options - set(KEYS) - trained == {"recipe", "debug"}
    assert trained <= options


# One test an option: each fails when the option is ignored


def test_output(net: Path) -> None:
    assert _run(net, "--output", net.with_name("small.onnx")).exit_code == 0
    assert not net.with_name("net.pruned.onnx").exists()
    assert net.with_name("small.onnx").exists()


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.9])
def test_sparsity(net: Path, arrays: dict[str, Array], sparsity: float) -> None:
    report = _report(net, "--sparsity", sparsity, "--no-shrink")
    assert report.totals is not None
    assert report.totals.zeros_after == round(sparsity * _all(arrays).size)


def test_the_default_is_half(net: Path, arrays: dict[str, Array]) -> None:
    report = _report(net)
    assert report.totals is not None
    assert report.totals.zeros_after == _all(arrays).size // 2
    assert (report.recipe.sparsity, report.recipe.scope, report.recipe.score) == (0.5, "global", "lamp")


def test_quality(net: Path, arrays: dict[str, Array]) -> None:
    densities = _densities(net, "--quality", "0.8")
    for name, density in densities.items():
        kept = np.abs(arrays[name]) >= 0.8 * arrays[name].std(dtype=np.float64)
        assert density == pytest.approx(kept.mean(), abs=1e-12)


def test_threshold(net: Path, arrays: dict[str, Array]) -> None:
    densities = _densities(net, "--threshold", "0.3")
    assert densities == {name: pytest.approx((np.abs(arrays[name]) >= 0.3).mean(), abs=1e-12) for name in densities}


def test_nm(net: Path, tmp_path: Path) -> None:
    masks_file = tmp_path / "masks.npz"
    _report(net, "--nm", "1:4", "--save-masks", masks_file)
    mask = Masks.load(masks_file)["fc1.weight"]
    assert (mask.reshape(96, 16, 4).sum(axis=2) == 1).all()


def test_scope(net: Path) -> None:
    by_layer = _densities(net, "--scope", "layer")
    assert by_layer == {"fc1.weight": 0.5, "fc2.weight": 0.5, "fc3.weight": 0.5}
    assert _densities(net, "--scope", "global") != by_layer


def test_score(net: Path, arrays: dict[str, Array]) -> None:
    found = _densities(net, "--score", "magnitude", "--sparsity", "0.75")
    cut = np.sort(np.abs(_all(arrays)))[round(0.75 * _all(arrays).size)]
    assert found == {name: pytest.approx((np.abs(arrays[name]) >= cut).mean(), abs=1e-12) for name in found}
    assert _densities(net, "--score", "lamp", "--sparsity", "0.75") != found


def test_layer(net: Path) -> None:
    found = _densities(net, "--scope", "layer", "--layer", "fc*=0.25", "--layer", "fc3.*=0")
    assert found == {"fc1.weight": 0.75, "fc2.weight": 0.75, "fc3.weight": 1.0}


def test_only_and_skip(net: Path) -> None:
    found = _densities(net, "--only", "fc[12]*", "--skip", "fc2*")
    assert found == {"fc1.weight": 0.5, "fc2.weight": 1.0, "fc3.weight": 1.0}
    assert _densities(net, "--skip", "fc1.*", "--scope", "layer")["fc1.weight"] == 1.0


def test_embeddings(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    head = np.random.default_rng(1).standard_normal((16, 20)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("MatMul", ["e", "head"], ["y"])],
        "embed",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 20])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(head, "head")],
    )
    model = tmp_path / "embed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(model))
    assert _densities(model, "--scope", "layer") == {"table": 1.0, "head": 0.5}
    assert _densities(model, "--scope", "layer", "--embeddings") == {"table": 0.5, "head": 0.5}


def test_shrink(dead_net: Path) -> None:
    shapes = {layer.name: layer.shape_after for layer in _report(dead_net, "--sparsity", "0").layers}
    assert shapes["fc1.weight"] == (91, 64)
    shapes = {layer.name: layer.shape_after for layer in _report(dead_net, "--sparsity", "0", "--no-shrink").layers}
    assert shapes["fc1.weight"] == (96, 64)


@pytest.mark.parametrize("scheme", ["dense", "coo", "gaps", "bitmask", "rice", "2of4", "blocks"])
def test_encode(net: Path, scheme: str) -> None:
    report = _report(net, "--sparsity", "0.9", "--encode", scheme)
    assert {layer.name: layer.scheme for layer in report.layers}["fc1.weight"].startswith(scheme)
    assert report.verified


def test_encode_auto_takes_the_smallest_file(net: Path) -> None:
    sizes = {}
    for scheme in ("auto", "dense", "gaps", "bitmask"):
        output = _report(net, "--sparsity", "0.9", "--encode", scheme).output
        assert output is not None
        sizes[scheme] = output.bytes
    assert sizes["auto"] <= min(sizes.values())
    assert sizes["auto"] < sizes["dense"]


@pytest.mark.parametrize(
    ("values", "stored", "distinct"),
    [
        ("f32", "split", 1000),
        ("f16", "f16", 1000),
        ("bf16", "f16", 1000),
        ("int8", "int8", 2500),
        ("shared", "codes", 15),
        ("shared:3", "codes", 7),
    ],
)
def test_values(net: Path, values: str, stored: str, distinct: int) -> None:
    report = _report(net, "--sparsity", "0.8", "--values", values)
    assert report.verified
    weight = densify(load(net.with_name("net.pruned.onnx"))).initializers["fc1.weight"]
    assert len(np.unique(weight[weight != 0])) <= distinct
    assert stored in {layer.name: layer.scheme for layer in report.layers}["fc1.weight"]
    pairs = {(found.before, found.after): found.wanted for found in report.comparisons}
    assert pairs.get(("shrunk", "rounded")) == (None if values == "f32" else "measured")
    assert ("rounded" if values != "f32" else "shrunk", "encoded") in pairs or ("dense", "encoded") in pairs


def test_values_that_are_none(net: Path) -> None:
    result = _run(net, "--values", "shared:9")
    assert (result.exit_code, "--values" in result.stderr) == (2, True)


def test_inline(net: Path) -> None:
    for option, domains in (("--inline", [""]), ("--no-inline", ["", "onnxprune"])):
        report = _report(net, "--sparsity", "0.9", option)
        assert any(layer.scheme not in ("dense", "removed") for layer in report.layers)
        pruned = onnx.load(str(net.with_name("net.pruned.onnx")))
        assert sorted(entry.domain for entry in pruned.opset_import) == domains
        assert bool(pruned.functions) == (option == "--no-inline")


def test_keep_inputs(net: Path) -> None:
    model = onnx.load(str(net))
    model.graph.input.append(helper.make_tensor_value_info("fc1.weight", TensorProto.FLOAT, [96, 64]))
    onnx.save(model, str(net))
    for option, inputs in (("--keep-inputs", ["x", "fc1.weight"]), ("--no-keep-inputs", ["x"])):
        _report(net, "--sparsity", "0.9", option)
        pruned = onnx.load(str(net.with_name("net.pruned.onnx")))
        assert [value.name for value in pruned.graph.input] == inputs


def test_data(net: Path, labelled: Path) -> None:
    report = _report(net, "--data", labelled)
    assert report.inputs_from is not None
    assert "labelled.npz: 50 samples" in report.inputs_from
    result = _run(net, "--data", labelled)
    assert "accuracy: 100.00% -> " in result.stdout


def test_check_and_seed(net: Path) -> None:
    report = _report(net, "--check", "3", "--seed", "5")
    assert report.inputs_from is not None
    assert report.inputs_from.startswith("3 seeded batches (seed 5)")
    errors = {_error_of(_report(net, "--seed", seed)) for seed in ("5", "6")}
    assert len(errors) == 2


def _error_of(report: Report) -> float | None:
    return report.comparisons[0].outputs[0].max_error


def test_check_0_warns_and_does_not_claim_to_have_verified(net: Path) -> None:
    report = _report(net, "--check", "0")
    assert report.verified is False
    result = _run(net, "--check", "0", "--quiet")
    assert result.exit_code == 0
    assert "warning: the output was not verified" in result.stderr


def test_masks_and_save_masks(net: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks.npz"
    _report(net, "--sparsity", "0.9", "--save-masks", masks)
    first = net.with_name("net.pruned.onnx").read_bytes()
    _report(net, "--sparsity", "0", "--masks", masks)
    assert net.with_name("net.pruned.onnx").read_bytes() == first


def test_quiet(net: Path) -> None:
    result = _run(net, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_overwrite(net: Path) -> None:
    before = net.read_bytes()
    result = _run(net, "-o", net)
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert net.read_bytes() == before
    assert _run(net, "-o", net, "--overwrite").exit_code == 0
    assert net.read_bytes() != before


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = _run(tmp_path / "missing.onnx")
    assert isinstance(result.exception, SystemExit)
    result = _run(tmp_path / "missing.onnx", "--debug")
    assert isinstance(result.exception, ModelError)
