from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.masks import Masks

from onnxprune.cli.main import cli
from onnxprune.plots import plot_histogram, plot_mask, plot_trade_off
from onnxprune.plots.trade_off import read_points
from onnxprune.plots.weights import read_weight
from onnxprune.prune import prune_file
from onnxprune.records import tools
from onnxprune.report import Report
from onnxprune.resolve import options_from
from onnxprune.rounds import Measure, Round, Rounds
from onnxprune.serialize import write_json

pytest.importorskip("matplotlib")

Array = npt.NDArray[Any]
PNG = b"\x89PNG"


def _run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["plot", *map(str, args)])


def _arrays(path: Path) -> dict[str, Array]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def _pruned(net: Path, name: str = "small.onnx", **given: Any) -> Path:
    out = net.with_name(name)
    given = {name.replace("_", "-"): value for name, value in given.items()}
    report = prune_file(options_from(str(net), {"output": str(out), "quiet": True, **given}))
    assert report.status == "done", report.error
    return out


@pytest.fixture
def axes_drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All axes of the figures that are saved."""
    from matplotlib.figure import Figure

    drawn: list[Any] = []
    save = Figure.savefig

    def spy(self: Figure, *args: Any, **options: Any) -> None:
        drawn.extend(self.axes)
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    return drawn


def test_a_mask_has_a_row_for_each_neuron_and_a_column_for_each_input(net: Path, axes_drawn: list[Any]) -> None:
    small, out = _pruned(net, sparsity=0.8, shrink=False), net.with_name("mask.png")
    plot_mask(small, "fc1.weight", out, band=16)
    picture, counts = axes_drawn
    kept = read_weight(small, "fc1.weight").values != 0
    assert kept.shape == (96, 64)
    assert 0 < np.count_nonzero(kept) < kept.size
    np.testing.assert_array_equal(np.asarray(picture.images[0].get_array()), kept)
    np.testing.assert_allclose(counts.lines[0].get_ydata(), 100 * kept.mean(axis=0))
    assert [line.get_xdata()[0] for line in picture.lines] == [16, 32, 48]
    assert out.read_bytes().startswith(PNG)


def test_masks_are_drawn_over_the_model_that_was_pruned(net: Path, axes_drawn: list[Any]) -> None:
    masks, out = net.with_name("masks.npz"), net.with_name("mask.png")
    small = _pruned(net, sparsity=0.8, shrink=False, save_masks=str(masks))
    assert _run("mask", net, "--weight", "fc1.weight", "--masks", masks, "-o", out).exit_code == 0
    kept = read_weight(small, "fc1.weight").values != 0
    np.testing.assert_array_equal(np.asarray(axes_drawn[0].images[0].get_array()), kept)
    result = _run("mask", net, "--weight", "fc1.weight", "--masks", net.with_name("gone.npz"), "-o", out)
    assert result.exit_code == 1


def test_masks_of_another_model_are_refused(net: Path, dead_net: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks.npz"
    _pruned(net, sparsity=0.8, only=["fc2.*"], save_masks=str(masks))
    with pytest.raises(DataError, match=r"no mask of 'fc1\.weight'"):
        read_weight(dead_net, "fc1.weight", masks)
    Masks({"fc1.weight": np.ones((2, 2), np.bool_)}).save(masks)
    with pytest.raises(DataError, match=r"has the shape \(2, 2\), expected \(96, 64\)"):
        read_weight(net, "fc1.weight", masks)


def test_neurons_are_rows_however_the_weight_is_stored(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,4] y) { y = MatMul(x, w) }'
    proto = onnx.parser.parse_model(text)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    proto.graph.initializer.append(numpy_helper.from_array(values, "w"))
    onnx.save(proto, str(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(read_weight(tmp_path / "m.onnx", "w").values, values.T)


def test_a_histogram_counts_what_is_not_zero_over_one_range(net: Path, axes_drawn: list[Any]) -> None:
    small, out = _pruned(net, sparsity=0.7), net.with_name("histogram.png")
    plot_histogram(small, "fc1.weight", out, before=net, bins=20)
    dense = _arrays(net)["fc1.weight"]
    kept = read_weight(small, "fc1.weight").values
    before, after = axes_drawn
    limit = np.abs(dense).max()
    for axes, values in ((before, dense), (after, kept[kept != 0])):
        expected, edges = np.histogram(values, bins=20, range=(-limit, limit))
        np.testing.assert_array_equal([bar.get_height() for bar in axes.patches], expected)
        assert axes.patches[0].get_x() == pytest.approx(edges[0])
    axes_drawn.clear()
    plot_histogram(small, "fc1.weight", out)
    assert len(axes_drawn) == 1


@pytest.mark.parametrize(("glob", "count"), [("fc9*", 0), ("fc*", 3)])
def test_one_weight_is_drawn(net: Path, glob: str, count: int) -> None:
    with pytest.raises(SelectionError, match=rf"names {count} weights of .*choose of fc1\.weight, fc2\.weight"):
        plot_mask(net, glob, net.with_name("mask.png"))


def test_points_come_from_reports(net: Path, labelled: Path) -> None:
    files = []
    for share in (0.5, 0.9):
        files.append(net.with_name(f"{share}.json"))
        _pruned(net, data=str(labelled), sparsity=share, json=str(files[-1]))
    points = [point for file in files for point in read_points(file)]
    assert [point.pruned for point in points] == pytest.approx([0.5, 0.9], abs=1e-3)
    assert [point.metric for point in points] == ["accuracy"] * 2
    assert points[1].change < points[0].change <= 0  # the labels are the dense model's own answers


def test_a_report_of_rounds_gives_a_point_for_each(tmp_path: Path, axes_drawn: list[Any]) -> None:
    def one(number: int, density: float, metric: float | None) -> Round:
        return Round(
            number=number,
            unit="sparsity",
            target=1 - density,
            density=density,
            metric_before=0.1,
            metric=metric,
            epochs=1,
            seconds=1.0,
        )

    rounds = Rounds(
        dense=Measure("top5", 0.9, larger_is_better=True),
        max_drop=None,
        rounds=(one(1, 0.5, 0.95), one(2, 0.25, None), one(3, 0.1, 0.8)),
        taken=3,
        resumed=0,
    )
    file = tmp_path / "rounds.json"
    write_json(Report(status="done", tools=tools(), recipe=options_from("m.onnx", {}).recipe, rounds=rounds), file)
    points = read_points(file)
    assert [(point.pruned, point.metric) for point in points] == [(0.5, "top5"), (0.9, "top5")]
    assert [point.change for point in points] == pytest.approx([0.05, -0.1])
    untrained = read_points(file, trained=False)
    assert [point.pruned for point in untrained] == [0.5, 0.75, 0.9]
    assert [point.change for point in untrained] == pytest.approx([-0.8] * 3)
    out = tmp_path / "curves.png"
    result = _run("trade-off", "--curve", f"a={file}", "--untrained", f"b={file}", "-o", out)
    assert result.exit_code == 0, result.output
    lines = {line.get_label(): list(line.get_xdata()) for line in axes_drawn[0].lines}
    assert (len(lines["a"]), len(lines["b"])) == (2, 3)


def test_curves_are_drawn_in_the_order_of_what_is_pruned(net: Path, labelled: Path, axes_drawn: list[Any]) -> None:
    files = {}
    for share in (0.9, 0.5):
        files[share] = net.with_name(f"{share}.json")
        _pruned(net, data=str(labelled), sparsity=share, json=str(files[share]))
    out = net.with_name("curves.svg")
    curves = ["--curve", f"a={files[0.9]},{files[0.5]}", "--curve", f"b={files[0.5]}", "--curve", f"b={files[0.9]}"]
    result = _run("trade-off", *curves, "--floor", "-0.5", "-o", out)
    assert result.exit_code == 0, result.output
    (axes,) = axes_drawn
    lines = {line.get_label(): line.get_xdata() for line in axes.lines}
    assert list(lines["a"]) == list(lines["b"]) == pytest.approx([50, 90], abs=0.1)
    assert axes.get_ylim()[0] == -0.5
    assert b"<?xml" in out.read_bytes()[:50]


def test_reports_of_nothing_measured_or_of_something_else_are_refused(net: Path, tmp_path: Path) -> None:
    file = net.with_name("report.json")
    _pruned(net, json=str(file))
    with pytest.raises(DataError, match="no accuracy in it"):
        read_points(file)
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(DataError, match="is no report of 'onnxprune MODEL --json'"):
        read_points(other)
    with pytest.raises(DataError, match=r"gone\.json cannot be read"):
        plot_trade_off({"a": [tmp_path / "gone.json"]}, tmp_path / "a.png")


def test_the_commands_draw(net: Path) -> None:
    small = _pruned(net, sparsity=0.8)
    mask, histogram = net.with_name("mask.png"), net.with_name("histogram.png")
    assert _run("mask", small, "--weight", "fc2.*", "--band", "8", "-o", mask).exit_code == 0
    args = ("--weight", "fc2.*", "--before", net, "--bins", "10", "-o", histogram)
    assert _run("histogram", small, *args).exit_code == 0
    assert mask.read_bytes().startswith(PNG)
    assert histogram.read_bytes().startswith(PNG)


def test_a_result_of_sensitivity_is_drawn_again(net: Path, labelled: Path) -> None:
    result, first, second = net.with_name("s.json"), net.with_name("first.png"), net.with_name("second.png")
    args = ["--jobs", "1", "--densities", "1,0.5", "--json", str(result), "--plot", str(first), "-q"]
    assert CliRunner().invoke(cli, ["sensitivity", str(net), "--data", str(labelled), *args]).exit_code == 0
    assert _run("sensitivity", result, "-o", second).exit_code == 0
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("mask", "{net}", "--weight", "fc1*", "-o", "mask.txt"), 2, "--output mask.txt: a figure is a .png or .svg"),
        (("mask", "{net}", "--weight", "fc9*", "-o", "mask.png"), 2, "--weight 'fc9*' names 0 weights"),
        (("histogram", "{net}", "--weight", "fc1*", "-o", "gone/a.png"), 1, "gone/a.png cannot be written"),
        (("sensitivity", "{net}", "-o", "a.png"), 1, "is no result of 'onnxprune sensitivity'"),
        (("sensitivity", "gone.json", "-o", "a.png"), 1, "gone.json cannot be read"),
        (("trade-off", "--curve", "a.json", "-o", "a.png"), 2, "--curve 'a.json' is not LABEL=FILE"),
        (("trade-off", "--curve", "a=a.json", "--untrained", "b", "-o", "a.png"), 2, "--untrained 'b' is not LABEL"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(net: Path, args: tuple[str, ...], code: int, said: str) -> None:
    result = _run(*(one.format(net=net) for one in args))
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
