"""`--channels` and `--round-to`, from the command line and from recipes, and the groups that `inspect` lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.masks import Masks
from onnxprune_passes.storage import load

from onnxprune.analysis import analyze_file
from onnxprune.cli.main import cli
from onnxprune.prune import prune_file
from onnxprune.report import Report
from onnxprune.resolve import options_from

Array = npt.NDArray[Any]


def _prune(net: Path, **given: Any) -> Report:
    values = {name.replace("_", "-"): value for name, value in given.items()}
    return prune_file(options_from(str(net), {"quiet": True, "output": str(net.with_name("out.onnx")), **values}))


def _widths(net: Path) -> list[int]:
    """The channels of the three layers in what `_prune` wrote."""
    stored = {tensor.name: list(tensor.dims) for tensor in onnx.load(str(net.with_name("out.onnx"))).graph.initializer}
    return [stored[f"fc{index}.weight"][0] for index in (1, 2, 3)]


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments], catch_exceptions=False)


def test_channels_alone_prune_nothing_else(net: Path) -> None:
    report = _prune(net, channels=0.5, scope="layer", encode="dense")
    assert (report.status, report.verified) == ("done", True)
    assert _widths(net) == [48, 16, 10]
    assert {note.by for note in report.changes} == {"prune-channels", "remove-dead-neurons"}
    assert report.totals is not None
    assert report.totals.zeros_after == 0
    assert [left.by for left in report.skips] == ["prune-channels"]
    assert "graph output 'y'" in report.skips[0].reason


@pytest.mark.parametrize(
    ("round_to", "widths"), [(1, [68, 23, 10]), (4, [68, 24, 10]), (8, [72, 24, 10]), (16, [80, 32, 10])]
)
def test_what_stays_is_rounded(net: Path, round_to: int, widths: list[int]) -> None:
    _prune(net, channels=0.3, scope="layer", round_to=round_to, encode="dense")
    assert _widths(net) == widths


def test_rounding_to_8_is_the_default(net: Path) -> None:
    report = _prune(net, channels=0.3, scope="layer", encode="dense")
    assert _widths(net) == [72, 24, 10]
    assert report.recipe.round_to == 8


def test_channels_are_chosen_over_the_whole_net_by_default(net: Path) -> None:
    report = _prune(net, channels=0.5, round_to=1, encode="dense")
    assert sum(_widths(net)) == 64 + 10
    assert _widths(net) != [48, 16, 10]
    assert report.recipe.scope == "global"


def test_without_shrinking_they_are_only_zeroed(net: Path) -> None:
    report = _prune(net, channels=0.5, scope="layer", shrink=False, encode="dense")
    assert _widths(net) == [96, 32, 10]
    after = load(net.with_name("out.onnx")).initializers
    assert (~after["fc1.weight"].any(axis=1)).sum() == 48
    assert np.array_equal(~after["fc2.weight"].any(axis=0), ~after["fc1.weight"].any(axis=1))
    assert after["fc1.bias"].all()
    assert report.verified


def _zeros(report: Report) -> Array:
    """Zeros of each layer."""
    return np.array([round(one.parameters_after * (1 - one.density_after)) for one in report.layers])


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_sparsity_counts_over_what_remains(net: Path, scope: str, sparsity: float) -> None:
    channels = _zeros(_prune(net, channels=0.5, scope=scope, shrink=False))
    both = _zeros(_prune(net, channels=0.5, sparsity=sparsity, scope=scope, shrink=False))
    left = np.array([96 * 64, 32 * 96, 10 * 32]) - channels
    if scope == "layer":
        assert np.abs(both - channels - sparsity * left).max() <= 0.5
    else:
        assert abs((both - channels).sum() - sparsity * left.sum()) <= 0.5
    report = _prune(net, channels=0.5, sparsity=sparsity, scope=scope)
    assert report.verified
    assert max(_widths_of(report)) < 96


def _widths_of(report: Report) -> list[int]:
    return [layer.shape_after[0] for layer in report.layers]


def test_a_layer_of_its_own_counts_over_what_remains_of_it(net: Path) -> None:
    given: dict[str, Any] = {"channels": 0.5, "scope": "layer", "shrink": False}
    channels = _zeros(_prune(net, **given))
    both = _zeros(_prune(net, sparsity=0.0, layer=["fc2.weight=0.75"], **given))
    assert (both - channels).tolist() == [0, 0.75 * 16 * 48, 0]


@pytest.mark.parametrize("given", [{"quality": 1.0}, {"threshold": 0.5}, {"nm": "2:4"}])
def test_other_modes_come_after_the_channels(net: Path, given: dict[str, Any]) -> None:
    report = _prune(net, channels=0.5, scope="layer", **given)
    assert [note.by for note in report.changes][:2] == ["prune-channels", "magnitude-prune"]
    assert report.verified


def test_skip_and_only_hold_for_channels(net: Path) -> None:
    _prune(net, channels=0.5, scope="layer", only=["fc1.weight"], encode="dense")
    assert _widths(net) == [48, 32, 10]
    _prune(net, channels=0.5, scope="layer", skip=["fc1.weight"], encode="dense")
    assert _widths(net) == [96, 16, 10]


def test_masks_are_saved_in_the_shapes_of_the_input(net: Path, tmp_path: Path) -> None:
    path = tmp_path / "masks.npz"
    _prune(net, channels=0.5, scope="layer", save_masks=str(path))
    masks = Masks.load(path)
    assert masks["fc1.weight"].shape == (96, 64)
    assert masks.kept("fc1.weight") == 48 * 64


def test_the_recipe_of_a_report_replays(net: Path) -> None:
    first = _prune(net, channels=0.5, round_to=4, scope="layer", encode="dense")
    before = net.with_name("out.onnx").read_bytes()
    text = {name: getattr(first.recipe, name) for name in first.recipe.__struct_fields__}
    given = {name.replace("_", "-"): value for name, value in text.items() if value not in (None, ())}
    again = prune_file(options_from(str(net), {}, given))
    assert again.recipe == first.recipe
    assert net.with_name("out.onnx").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"round-to": 8}, "--round-to belongs to --channels"),
        ({"sparsity": 0.5, "round-to": 8}, "--round-to belongs to --channels"),
        ({"channels": 0.5, "round-to": 3}, "--round-to"),
        ({"channels": 1.0}, "--channels: expected float < 1.0"),
        ({"channels": -0.1}, "--channels: expected float >= 0.0"),
        ({"channels": float("nan")}, "--channels"),
        ({"channels": 0.5, "score": "lamp"}, "--score has no meaning with --channels alone"),
        ({"channels": 0.5, "layer": ["a=0.5"]}, "--layer has no meaning with --channels alone: .*--channel-layer"),
        ({"sparsity": 0.5, "channel-score": "norm"}, "--channel-score belongs to --channels"),
        ({"channel-norm": "l1"}, "--channel-norm belongs to --channels"),
        ({"channel-reduce": "sum"}, "--channel-reduce belongs to --channels"),
        ({"channel-floor": 2}, "--channel-floor belongs to --channels"),
        ({"channel-kind": ["fc"]}, "--channel-kind belongs to --channels"),
        ({"channel-layer": ["a=0.5"]}, "--channel-layer belongs to --channels"),
        ({"channel-reads": "always"}, "--channel-reads belongs to --channels"),
        ({"channels": 0.5, "channel-reads": "often"}, "--channel-reads"),
        ({"channels": 0.5, "channel-score": "lamp"}, "--channel-score"),
        ({"channels": 0.5, "channel-norm": "l3"}, "--channel-norm"),
        ({"channels": 0.5, "channel-reduce": "max"}, "--channel-reduce"),
        ({"channels": 0.5, "channel-floor": 0}, "--channel-floor: expected int >= 1"),
        ({"channels": 0.5, "channel-kind": ["linear"]}, "--channel-kind"),
        ({"channels": 0.5, "channel-layer": ["a"]}, "--channel-layer 'a' is not GLOB=V"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        options_from("m.onnx", given)
    with pytest.raises(SelectionError, match=message):
        options_from("m.onnx", {}, given)


def test_a_recipe_and_the_command_line_are_put_together() -> None:
    options = options_from("m.onnx", {"round-to": 4}, {"channels": 0.5})
    assert (options.mode, options.channels, options.round_to, options.sparsity) == ("channels", 0.5, 4, None)
    options = options_from("m.onnx", {"quality": 1.0}, {"channels": 0.5, "sparsity": 0.9, "scope": "layer"})
    assert (options.mode, options.channels, options.scope, options.sparsity) == ("quality", 0.5, "layer", None)
    assert options_from("m.onnx", {"channels": 0.5, "quality": 1.0, "scope": "layer"}).scope == "layer"


def test_the_command_line_takes_the_options(net: Path) -> None:
    out = net.with_name("out.onnx")
    result = _run(net, "-o", out, "--channels", "0.3", "--round-to", "16", "--scope", "layer", "--encode", "dense")
    assert result.exit_code == 0
    assert _widths(net) == [80, 32, 10]
    assert "fc1.weight 96 -> 80" in " ".join(result.output.split())
    how = ["--channel-score", "batchnorm", "--channel-norm", "l1", "--channel-reduce", "mean", "--channel-floor", "9"]
    which = [
        "--channel-kind",
        "fc",
        "--channel-kind",
        "head",
        "--channel-layer",
        "fc1*=0.25",
        "--channel-reads",
        "never",
    ]
    report = net.with_name("report.json")
    result = _run(net, "-o", out, "--channels", "0.9", *how, *which, "--json", report, "--encode", "dense")
    assert (result.exit_code, _widths(net)) == (0, [72, 16, 10])
    recipe = json.loads(report.read_text())["recipe"]
    assert {key.removeprefix("channel-"): value for key, value in recipe.items() if key.startswith("channel-")} == {
        "score": "batchnorm",
        "norm": "l1",
        "reduce": "mean",
        "floor": 9,
        "kind": ["fc", "head"],
        "layer": ["fc1*=0.25"],
        "reads": "never",
    }
    assert _run(net, "-o", out, "--round-to", "8").exit_code == 2
    assert _run(net, "-o", out, "--channels", "0.5", "--round-to", "7").exit_code == 2


def test_the_floor_is_kept(net: Path) -> None:
    _prune(net, channels=0.9, scope="layer", round_to=1, channel_floor=20, encode="dense")
    assert _widths(net) == [20, 20, 10]


def test_layers_of_their_own(net: Path) -> None:
    _prune(net, channels=0.5, scope="layer", channel_layer=["fc*=0.75", "fc2.weight=0.25"], encode="dense")
    assert _widths(net) == [24, 24, 10]
    both = _prune(net, channels=0.5, scope="layer", channel_layer=["fc1*=0.75"], sparsity=0.2, layer=["fc2*=0.1"])
    assert _widths_of(both)[:2] == [24, 16]


def test_kinds_and_scores_are_those_asked_for(net: Path) -> None:
    with pytest.raises(SelectionError, match="no group of channels is of kind head: the model has fc"):
        _prune(net, channels=0.5, channel_kind=["head"])
    _prune(net, channels=0.5, channel_kind=["fc", "head"], scope="layer", encode="dense")
    assert _widths(net) == [48, 16, 10]
    said = {
        next(note.summary for note in _prune(net, channels=0.5, scope="layer", **{key: value}).changes)
        for key, value in (("channel_norm", "l1"), ("channel_reduce", "mean"), ("channel_score", "batchnorm"))
    }
    assert {text.split(":")[0] for text in said} == {
        "layer sparsity 0.5 by l1 sum",
        "layer sparsity 0.5 by l2 mean",
        "layer sparsity 0.5 by BatchNormalization scale in 0 of 2 groups, by l2 sum in the others, which pass none",
    }


def test_norms_and_reductions_choose_differently(net: Path) -> None:
    """Each option reaches the pass: the masks of the first layer differ from those of the defaults."""
    path, found = net.with_name("masks.npz"), []
    for given in ({}, {"channel_norm": "l1"}, {"channel_reduce": "mean"}):
        _prune(net, channels=0.5, scope="layer", save_masks=str(path), **given)
        found.append(Masks.load(path)["fc1.weight"])
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_nothing_to_prune_is_said(net: Path) -> None:
    assert "no channels that may go" in {note.summary for note in _prune(net, channels=0.0).changes}


def test_inspect_lists_the_coupled_groups(net: Path) -> None:
    found = analyze_file(net).channels
    assert [(one.path, one.channels) for one in found[:2]] == [
        ("fc1.weight out 96 -> fc2.weight in", 96),
        ("fc2.weight out 32 -> fc3.weight in", 32),
    ]
    assert found[0].pinned_by is None
    assert {one.kinds for one in found} == {("fc",)}
    assert "graph output 'y'" in str(found[2].pinned_by)
    assert all(len(one.norms) == 5 and sorted(one.norms, key=float) == list(one.norms) for one in found)  # type: ignore[arg-type]
    shown = " ".join(_run("inspect", net, "--groups").output.split())
    assert "Coupled groups" in shown
    assert "Coupled groups" not in _run("inspect", net).output


def test_a_norm_that_is_no_number_is_null(net: Path, arrays: dict[str, Array]) -> None:
    model = onnx.load(str(net))
    arrays["fc1.weight"][0, 0] = np.inf
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(arrays["fc1.weight"], "fc1.weight"))
    onnx.save(model, str(net))
    assert None in analyze_file(net).channels[0].norms


@pytest.mark.parametrize(("reads", "width"), [(None, 100), ("always", 100), ("never", 200)])
def test_channels_that_stay_may_be_left_unread(tmp_path: Path, reads: str | None, width: int) -> None:
    """A state that is a graph output stays 200 wide; the weight that reads it does without half, through a Gather."""
    rng = np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((200, 8)), "w2": rng.standard_normal((600, 200))}
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,8] x) => (float[N,200] r, float[N,600] y) '
        "{ a = Gemm<transB=1>(x, w1) r = Tanh(a) y = Gemm<transB=1>(r, w2) }"
    )
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    net = tmp_path / "net.onnx"
    onnx.save(proto, net)
    given = {} if reads is None else {"channel_reads": reads}
    report = _prune(net, channels=0.5, round_to=1, encode="dense", **given)
    assert report.verified
    assert {
        tensor.name: list(tensor.dims)[-1] for tensor in onnx.load(str(net.with_name("out.onnx"))).graph.initializer
    }["w2"] == width
    assert report.changes[0].by == "prune-channels"
    assert any("reads 100 of 200 channels of 'r'" in note.summary for note in report.changes) == (width == 100)
