from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnxprune_passes.encode import EncodedModel
from onnxprune_passes.errors import DataError, ModelError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

import onnxprune.products
from onnxprune.prune import densify_file, prune_file
from onnxprune.recipe import PruneOptions
from onnxprune.report import Report

Array = npt.NDArray[Any]


def _initializers(path: Path) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


def _answers(path: Path, x: Array) -> Array:
    answers: Array = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    return answers


def _pruned(model: Path, **options: Any) -> tuple[Report, Path]:
    made = PruneOptions(model=str(model), **options)
    return prune_file(made), model.with_name(f"{model.stem}.pruned.onnx")


def test_the_whole_job_leaves_one_new_file_that_is_smaller_and_verified(net: Path) -> None:
    before = net.read_bytes()
    report, output = _pruned(net, sparsity=0.9, shrink=False)
    assert sorted(net.parent.iterdir()) == [net, output]
    assert net.read_bytes() == before
    assert (report.status, report.verified, report.error) == ("done", True, None)
    assert report.input is not None
    assert report.output is not None
    assert (report.input.bytes, report.output.bytes) == (len(before), output.stat().st_size)
    assert output.stat().st_size < 0.35 * len(before)
    onnx.checker.check_model(str(output), full_check=True)
    assert report.totals is not None
    assert report.totals.zeros_after == round(0.9 * report.totals.parameters_before)


def test_what_is_kept_is_kept_bit_for_bit(net: Path, arrays: dict[str, Array]) -> None:
    _, output = _pruned(net, sparsity=0.9, shrink=False)
    dense = net.with_name("dense.onnx")
    densify_file(str(output), str(dense))
    for name, array in _initializers(dense).items():
        kept = array != 0
        assert np.array_equal(array[kept], arrays[name][kept])
        assert kept.all() or name.endswith("weight")


def test_each_model_is_compared_with_the_one_before_it_at_both_levels(dead_net: Path) -> None:
    report, _ = _pruned(dead_net, sparsity=0.6)
    found = {(one.before, one.after, one.optimizations): one.wanted for one in report.comparisons}
    assert found == {
        ("original", "pruned", "off"): "measured",
        ("pruned", "shrunk", "off"): "within tolerance",
        ("dense", "encoded", "off"): "within tolerance",
        ("original", "encoded", "off"): "measured",
        ("original", "pruned", "default"): "measured",
        ("pruned", "shrunk", "default"): "within tolerance",
        ("dense", "encoded", "default"): "equal",
        ("original", "encoded", "default"): "measured",
    }
    assert not any(one.problems for one in report.comparisons)
    assert [one.by for one in report.decoded] == ["densify", "onnxruntime (off)", "onnxruntime (default)"]
    assert all(one.tensors >= 1 and not one.different for one in report.decoded)


def test_dead_neurons_go_and_the_answers_stay(dead_net: Path) -> None:
    report, output = _pruned(dead_net, sparsity=0.0, encode="dense")
    rows = {layer.name: layer for layer in report.layers}
    assert rows["fc1.weight"].shape_before == (96, 64)
    assert rows["fc1.weight"].shape_after == (91, 64)
    assert rows["fc2.weight"].shape_after == (32, 91)
    x = np.random.default_rng(2).integers(-4, 5, (7, 64)).astype(np.float32)
    assert np.array_equal(_answers(dead_net, x), _answers(output, x))


def test_nothing_to_do_is_said(net: Path) -> None:
    report, output = _pruned(net, sparsity=0.0, encode="dense")
    said = {note.by: note.summary for note in report.changes}
    assert "nothing to prune" in said["magnitude-prune"]
    assert "no dead neurons" in said["remove-dead-neurons"]
    assert output.stat().st_size == net.stat().st_size


def test_a_model_that_is_sparse_enough_is_not_pruned_further(net: Path) -> None:
    _, output = _pruned(net, sparsity=0.8)
    report = prune_file(PruneOptions(model=str(output), sparsity=0.5))
    assert "nothing to prune" in {note.by: note.summary for note in report.changes}["magnitude-prune"]
    assert report.totals is not None
    assert report.totals.zeros_after == report.totals.zeros_before


def test_an_encoded_input_is_densified_first_and_may_grow_to_its_dense_form(net: Path) -> None:
    _, output = _pruned(net, sparsity=0.8)
    report = prune_file(PruneOptions(model=str(output), sparsity=0.8, encode="dense"))
    again = output.with_name("net.pruned.pruned.onnx")
    assert report.verified
    assert again.stat().st_size > 1.5 * output.stat().st_size
    assert set(_initializers(again)) == set(_initializers(net))


def test_an_output_larger_than_the_input_is_refused(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wasteful(model: Model, *_args: Any, **_options: Any) -> EncodedModel:
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(model.skeleton)
        skeleton.doc_string = "x" * (net.stat().st_size // 50)
        return EncodedModel(model.with_skeleton(skeleton))

    monkeypatch.setattr(onnxprune.products, "encode_model", wasteful)
    with pytest.raises(ModelError, match="more than the input's"):
        _pruned(net, sparsity=0.3)
    assert list(net.parent.iterdir()) == [net]


def test_densify_undoes_the_encoding_byte_for_byte(net: Path) -> None:
    prune_file(PruneOptions(model=str(net), sparsity=0.9, encode="dense", output=str(net.with_name("a.onnx"))))
    for scheme in ("auto", "gaps", "bitmask", "coo"):
        stored, back = net.with_name(f"{scheme}.onnx"), net.with_name(f"{scheme}.dense.onnx")
        prune_file(PruneOptions(model=str(net), sparsity=0.9, encode=scheme, output=str(stored)))
        done = densify_file(str(stored), str(back))
        assert done.tensors >= 2
        assert done.nbytes == back.stat().st_size
        expected, found = _initializers(net.with_name("a.onnx")), _initializers(back)
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in expected.items()
        }


def test_densify_does_not_write_over_its_input_unasked(net: Path) -> None:
    _, output = _pruned(net, sparsity=0.9)
    with pytest.raises(ModelError, match="--overwrite"):
        densify_file(str(output), str(output))
    assert densify_file(str(output), str(output), overwrite=True).tensors >= 2


def _steps_of(model: Path) -> list[str]:
    names: list[str] = []
    prune_file(PruneOptions(model=str(model), sparsity=0.9), lambda name, _done, _total: names.append(name))
    model.with_name(f"{model.stem}.pruned.onnx").unlink()
    return names


def test_an_interrupt_at_any_step_leaves_nothing_behind(dead_net: Path) -> None:
    steps = _steps_of(dead_net)
    assert len(steps) >= 12
    for stop in range(len(steps)):

        def interrupt(_name: str, done: int, _total: int, stop: int = stop) -> None:
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prune_file(PruneOptions(model=str(dead_net), sparsity=0.9, save_masks=str(dead_net) + ".npz"), interrupt)
        assert list(dead_net.parent.iterdir()) == [dead_net]


def test_the_progress_counts_up_and_the_seconds_are_by_step(dead_net: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = prune_file(PruneOptions(model=str(dead_net)), lambda _name, done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(len(seen)))
    assert all(done < total for done, total in seen)
    assert set(report.seconds) >= {"load", "prune", "shrink", "encode", "write", "verify", "report"}
    assert all(seconds >= 0 for seconds in report.seconds.values())


def test_check_0_does_not_verify_and_says_so(net: Path) -> None:
    report, output = _pruned(net, check=0)
    assert output.exists()
    assert (report.status, report.verified, report.comparisons, report.decoded) == ("done", False, (), ())
    assert any("not verified" in warning for warning in report.warnings)


def test_accuracy_is_measured_where_there_are_labels(net: Path, labelled: Path) -> None:
    report, output = _pruned(net, sparsity=0.95, data=str(labelled))
    assert report.accuracy is not None
    assert (report.accuracy.output, report.accuracy.samples, report.accuracy.before) == ("y", 50, 1.0)
    with np.load(labelled) as arrays:
        right = np.argmax(_answers(output, arrays["x"]), axis=1) == arrays["labels"]
    assert report.accuracy.after == right.mean()
    assert 0 < report.accuracy.after < 1
    assert report.accuracy_note is None


def test_that_accuracy_was_not_measured_is_said(net: Path, tmp_path: Path) -> None:
    report, _ = _pruned(net)
    assert report.accuracy is None
    assert report.accuracy_note == "accuracy was not measured: no --data was given"
    np.savez(tmp_path / "x.npz", x=np.ones((3, 64), np.float32))
    report, _ = _pruned(net, data=str(tmp_path / "x.npz"))
    assert report.accuracy_note is not None
    assert "has no class labels" in report.accuracy_note


def test_data_that_does_not_fit_is_an_error(net: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", z=np.ones((3, 64), np.float32))
    with pytest.raises(DataError, match="no array named x"):
        _pruned(net, data=str(tmp_path / "x.npz"))
    assert list(net.parent.iterdir()) == [net]


def test_masks_are_written_in_the_shapes_of_the_input_and_can_be_given_again(dead_net: Path) -> None:
    masks_file = dead_net.with_name("masks.npz")
    _pruned(dead_net, sparsity=0.7, save_masks=str(masks_file))
    masks = Masks.load(masks_file)
    assert masks["fc1.weight"].shape == (96, 64)
    other = dead_net.with_name("other.onnx")
    options = PruneOptions(
        model=str(dead_net), masks=str(masks_file), sparsity=0.0, shrink=False, encode="dense", output=str(other)
    )
    prune_file(options)
    original = _initializers(dead_net)
    for name, found in _initializers(other).items():
        keep = masks[name] if name in masks else np.ones(found.shape, np.bool_)
        assert np.array_equal(found, np.where(keep, original[name], 0))


def test_masks_of_another_model_are_refused(net: Path, tmp_path: Path) -> None:
    Masks({"elsewhere": np.zeros(4, np.bool_)}).save(tmp_path / "masks.npz")
    with pytest.raises(ModelError, match="belongs to another model"):
        _pruned(net, masks=str(tmp_path / "masks.npz"))
