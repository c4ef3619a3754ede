from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner, Result
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load, save
from onnxprune_passes.thresholds import Quality

from onnxprune.cli.main import cli
from onnxprune.sensitivity import Point, Sensitivity, SensitivityOptions, measure_sensitivity
from onnxprune.sensitivity import run as run_module
from onnxprune.sensitivity.evaluate import Task
from onnxprune.sensitivity.suggest import suggest
from onnxprune.sensitivity.units import find_units
from onnxprune.sensitivity.workers import Setup, Worker, measured

Array = npt.NDArray[Any]


@pytest.fixture
def data(net: Path) -> Path:
    """Samples for `net`, labelled by the net itself for three of four, so that it is 75 % accurate or more."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 64)).astype(np.float32)
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(net).graph.initializer}
    labels = _forward(arrays, x).argmax(axis=1)
    labels[::4] = rng.integers(0, 10, 50)
    path = net.with_name("data.npz")
    np.savez(path, x=x, labels=labels)
    return path


def _forward(arrays: dict[str, Array], x: Array) -> Array:
    for index in (1, 2, 3):
        x = x @ arrays[f"fc{index}.weight"].T + arrays[f"fc{index}.bias"]
        x = np.maximum(x, 0) if index < 3 else x
    return x


def _measured(net: Path, data: Path, **changes: Any) -> Sensitivity:
    given = {"densities": (1.0, 0.3, 0.05), "jobs": 1, **changes}
    return measure_sensitivity(SensitivityOptions(model=str(net), data=str(data), **given))


def test_each_point_is_the_metric_with_one_weight_pruned_by_magnitude(net: Path, data: Path) -> None:
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(net).graph.initializer}
    samples = np.load(data)
    result = _measured(net, data)
    assert [curve.name for curve in result.curves] == ["fc1.weight", "fc2.weight", "fc3.weight"]
    for curve in result.curves:
        weight = arrays[curve.name]
        for point in curve.points:
            gone = round(weight.size * (1 - point.wanted))
            pruned = weight.reshape(-1).copy()
            pruned[np.argsort(np.abs(pruned), kind="stable")[:gone]] = 0
            output = _forward({**arrays, curve.name: pruned.reshape(weight.shape)}, samples["x"])
            assert point.metric == np.mean(output.argmax(axis=1) == samples["labels"])
            assert point.density == (weight.size - gone) / weight.size
    assert result.dense == result.curves[0].points[0].metric
    assert result.curves[0].points[2].metric < result.dense


def test_the_quality_parameter_prunes_to_the_density_of_its_point(net: Path, data: Path) -> None:
    for curve in _measured(net, data).curves:
        assert curve.points[0].quality is None
        for point in curve.points[1:]:
            assert point.quality is not None
            state = MagnitudePrune(Quality(point.quality), only=(curve.name,))(State(load(net)))
            kept = np.count_nonzero(state.model.initializers[curve.name])
            assert kept / curve.size == point.density


def test_processes_find_what_one_process_finds(net: Path, data: Path) -> None:
    assert _measured(net, data, jobs=2).curves == _measured(net, data, jobs=1).curves


def test_results_are_written_and_nothing_else_is_left(net: Path, data: Path) -> None:
    result = _measured(net, data)
    written = net.with_name("net.sensitivity.json")
    assert msgspec.json.decode(written.read_bytes(), type=Sensitivity) == result
    assert {path.name for path in net.parent.iterdir()} == {"net.onnx", "data.npz", written.name}


def test_an_interrupted_run_goes_on_where_it_stopped(net: Path, data: Path) -> None:
    whole = _measured(net, data)
    calls: list[str] = []

    def stop_after(count: int) -> Any:
        def progress(name: str, _done: int, _total: int) -> None:
            calls.append(name)
            if " at " in name and sum(" at " in call for call in calls) == count:
                raise KeyboardInterrupt

        return progress

    options = SensitivityOptions(model=str(net), data=str(data), densities=(1.0, 0.3, 0.05), jobs=1)
    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(options, stop_after(4))
    journal = net.with_name(".net.sensitivity.json.journal")
    assert len(journal.read_bytes().splitlines()) == 5
    journal.write_bytes(journal.read_bytes()[:-10])  # the last line was cut short
    calls.clear()
    assert measure_sensitivity(options, lambda name, _done, _total: calls.append(name)).curves == whole.curves
    assert sum(" at " in call for call in calls) == 9 - 3
    assert not journal.exists()


@pytest.mark.parametrize("change", ["model", "samples", "overwrite"])
def test_measurements_of_something_else_are_not_used(net: Path, data: Path, change: str) -> None:
    def stop(name: str, _done: int, _total: int) -> None:
        if " at " in name:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(SensitivityOptions(model=str(net), data=str(data), jobs=1), stop)
    if change == "model":
        model = onnx.load(net)
        model.doc_string = "another"
        onnx.save(model, net)
    given: dict[str, Any] = {"samples": 100} if change == "samples" else {"overwrite": change == "overwrite"}
    names: list[str] = []
    options = SensitivityOptions(model=str(net), data=str(data), jobs=1, densities=(1.0, 0.5), **given)
    measure_sensitivity(options, lambda name, _done, _total: names.append(name))
    assert sum(" at " in name for name in names) == 6


def test_fewer_samples_only_and_skip(net: Path, data: Path) -> None:
    result = _measured(net, data, samples=64, only=("fc[12].*",), skip=("fc2.*",))
    assert result.samples == 64
    assert [curve.name for curve in result.curves] == ["fc1.weight"]
    with pytest.raises(SelectionError, match="'nothing' matches none"):
        _measured(net, data, only=("nothing",))


def test_fewer_samples_are_spread_evenly(net: Path, data: Path) -> None:
    samples = np.load(data)
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(net).graph.initializer}
    right = _forward(arrays, samples["x"]).argmax(axis=1) == samples["labels"]
    order = np.argsort(right, kind="stable")  # as a folder of classes comes sorted
    np.savez(data, x=samples["x"][order], labels=samples["labels"][order])
    rows = np.linspace(0, 199, 7).round().astype(int)
    assert _measured(net, data, samples=7, densities=(1.0,)).dense == right[order][rows].mean()


def test_samples_to_validate_on_are_measured(net: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net.with_name("own_measured.py").write_text(
        f"import numpy as np\n"
        f"def pair():\n"
        f"    data = np.load({str(data)!r})\n"
        f"    return [(data['x'], data['labels'])], [(data['x'][:9], data['labels'][:9])]\n"
    )
    monkeypatch.chdir(net.parent)
    monkeypatch.syspath_prepend(str(net.parent))
    result = measure_sensitivity(SensitivityOptions(model=str(net), data="own_measured:pair", densities=(1.0,), jobs=1))
    assert result.samples == 9
    with pytest.raises(SelectionError, match=r"mean has no meaning for an \.npz file"):
        _measured(net, data, data_option=("mean=1",))


def test_without_labels_the_dense_model_answers(net: Path, data: Path) -> None:
    np.savez(data, x=np.load(data)["x"])
    result = _measured(net, data)
    assert result.dense == 1
    assert "the dense model's own answers" in result.note
    squared = _measured(net, data, metric="mse")
    assert squared.dense == 0
    assert not squared.larger_is_better
    assert squared.curves[0].points[2].metric > squared.curves[0].points[1].metric > 0


def test_a_model_with_a_fixed_batch_is_given_whole_batches(net: Path, data: Path) -> None:
    model = onnx.load(net)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, net)
    assert _measured(net, data, densities=(1.0,)).samples == 198


def test_a_point_of_a_model_with_external_data_leaves_no_file(net: Path, data: Path, tmp_path: Path) -> None:
    external = tmp_path / "external.onnx"
    save(load(net), external, external=True)
    folder = tmp_path / "points"
    folder.mkdir()
    worker = Worker(Setup(external, Task(str(data), (), "accuracy", None, None, 64), folder))
    unit = find_units(load(external))[0]
    assert worker(unit, 0.5).density == 0.5
    assert list(folder.iterdir()) == []


def test_groups_are_measured_by_channels(net: Path, data: Path) -> None:
    result = _measured(net, data, groups=True, densities=(1.0, 0.5))
    groups = [curve for curve in result.curves if curve.kind == "group"]
    assert [curve.size for curve in groups] == [96, 32]
    for curve in groups:
        assert [point.density for point in curve.points] == [1.0, 0.5]
        assert curve.points[0].metric == result.dense
    assert groups[0].points[1].metric < result.dense


def test_another_output_is_measured_by_name(net: Path, data: Path) -> None:
    model = onnx.load(net)
    model.graph.node.append(onnx.helper.make_node("Neg", ["y"], ["worst"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("worst", onnx.TensorProto.FLOAT, ["N", 10]))
    onnx.save(model, net)
    assert _measured(net, data, output="worst", densities=(1.0,)).dense < 0.3 < _measured(net, data).dense
    with pytest.raises(DataError, match="no output named 'z'; --output-name is one of y, worst"):
        _measured(net, data, output="z")


POINTS = tuple(
    Point(wanted=density, density=density, metric=metric, quality=1 - density)
    for density, metric in [(1.0, 0.9), (0.5, 0.895), (0.2, 0.86), (0.1, 0.9)]
)


@pytest.mark.parametrize(("max_drop", "density"), [(0.0, 1.0), (0.005, 0.5), (0.03, 0.5), (0.04, 0.1)])
def test_the_last_point_before_the_first_bad_one_is_suggested(max_drop: float, density: float) -> None:
    found = suggest(POINTS, 0.9, max_drop, larger_is_better=True)
    assert found is not None
    assert found.density == density
    assert found.quality == 1 - density


def test_nothing_is_suggested_when_the_densest_point_is_bad() -> None:
    assert suggest(POINTS, 0.95, 0.01, larger_is_better=True) is None
    assert suggest(POINTS, 0.95, 0.01, larger_is_better=False) is not None
    assert suggest((msgspec.structs.replace(POINTS[0], metric=float("nan")),), 0.9, 1, larger_is_better=True) is None


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_command_prints_a_table_and_draws(net: Path, data: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    plot, result_file = net.with_name(f"curves.{suffix}"), net.with_name("s.json")
    args = ("--jobs", "1", "--densities", "1,0.5,0.1", "--max-drop", "0.5", "--json", result_file)
    result = _run("sensitivity", net, "--data", data, "--plot", plot, *args)
    assert result.exit_code == 0, result.output
    assert "fc1.weight" in result.stdout
    assert "--layer fc1.weight=" in result.stdout
    head = plot.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in head
    options = msgspec.json.decode(result_file.read_bytes(), type=Sensitivity).options
    assert options.densities == (1.0, 0.5, 0.1)
    assert options.max_drop == 0.5


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--densities", "1,2"), 2, "--densities: '2' is no density"),
        (("--plot", "curves.txt"), 2, "a figure is a .png or .svg file"),
        (("--jobs", "0"), 2, "--jobs: expected int >= 1"),
        (("--max-drop", "-1"), 2, "--max-drop: expected float >= 0"),
        (("--metric", "best"), 2, "no metric 'best'"),
        (("--batch", "0"), 2, "--batch: expected int >= 1"),
    ],
)
def test_wrong_options_are_one_line(net: Path, data: Path, args: tuple[str, ...], code: int, said: str) -> None:
    result = _run("sensitivity", net, "--data", data, *args)
    assert result.exit_code == code
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_quiet_prints_nothing(net: Path, data: Path) -> None:
    result = _run("sensitivity", net, "--data", data, "--jobs", "1", "--densities", "1", "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_all_cores_are_used_unless_told(net: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def spy(setup: Setup, tasks: Any, jobs: int) -> Any:
        asked.append(jobs)
        return measured(setup, tasks, 1)

    monkeypatch.setattr(run_module, "measured", spy)
    monkeypatch.setattr(run_module, "_ALL_CORES", 7)
    _measured(net, data, jobs=None)
    _measured(net, data, jobs=3)
    assert asked == [7, 3]
