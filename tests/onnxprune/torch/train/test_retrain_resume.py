"""Checkpoints: what is taken up goes on as if nothing had been, and what is another run's is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxprune_passes.errors import DataError, OnnxPruneError, SelectionError
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import save

from onnxprune.runtime import input_specs
from onnxprune.samples import Samples, read_samples
from onnxprune.torch.retrain import Retrain, Retrained
from onnxprune.torch.train.checkpoints import FILE, Store
from onnxprune.train_recipe import TrainRecipe
from onnxprune.train_report import Stopped, Watch


def recipe(folder: Path | None, **options: Any) -> TrainRecipe:
    base = {"data": "digits", "epochs": 3, "lr": 0.05, "batch_size": 32, "validation": 0.2}
    return TrainRecipe(**{**base, "checkpoint": None if folder is None else str(folder), **options})


def after(steps: int) -> Callable[[], bool]:
    """A question that is answered with yes after so many steps, once."""
    answers = iter([False] * (steps - 1) + [True])
    return lambda: next(answers, False)


def stopped(state: State, samples: Samples, folder: Path, steps: int, **options: Any) -> Stopped:
    with pytest.raises(Stopped) as found:
        Retrain(recipe(folder, **options), samples, watch=Watch(stop=after(steps))).run(state)
    return found.value


def bits(found: Retrained) -> dict[str, bytes]:
    model = found.state.model
    return {key: model.initializers[key].tobytes() for key in model.initializers}


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": ("a=0.3",), "ema": 0.9, "batch_norm": "train", "keep": "last"},
        {"optimizer": "adamw", "lr": 0.01, "train_only": "alternate", "schedule": "cosine"},
        {"amp": "fp16", "batch_norm": "recalibrate", "ema": 0.5, "patience": 3},
    ],
    ids=["noise", "adamw", "fp16"],
)
def test_stopped_twice_and_the_same_bits(
    pruned: State, digits: Samples, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = Retrain(recipe(None, **options), digits).run(pruned)
    stopped(pruned, digits, tmp_path / "c", 3, **options)
    stopped(pruned, digits, tmp_path / "c", 4, **options)
    torch.manual_seed(99)  # nothing of the caller's state matters
    found = Retrain(recipe(tmp_path / "c", **options), digits).run(pruned)
    assert found.training.resumed_at == 7
    assert bits(found) == bits(whole)
    for one, other in zip(found.training.epochs, whole.training.epochs, strict=True):
        assert (one.loss, one.validation_loss, one.metric, one.lr) == (
            other.loss,
            other.validation_loss,
            other.metric,
            other.lr,
        )


def test_the_message_says_where(pruned: State, digits: Samples, tmp_path: Path) -> None:
    message = str(stopped(pruned, digits, tmp_path / "c", 8))
    assert message == f"stopped after 2 of 6 steps of epoch 2; checkpoint in {tmp_path / 'c'}"
    with pytest.raises(Stopped, match="there is no checkpoint folder"):
        Retrain(recipe(None), digits, watch=Watch(stop=after(1))).run(pruned)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.04}, r"lr differs \(0.05 there, 0.04 now\)"),
        ({"epochs": 4}, "epochs differs"),
        ({"freeze": ("fc1.*",)}, "freeze differs"),
    ],
)
def test_another_option_is_refused(
    pruned: State, digits: Samples, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    stopped(pruned, digits, tmp_path / "c", 2)
    with pytest.raises(SelectionError, match=message):
        Retrain(recipe(tmp_path / "c", **options), digits).run(pruned)


def test_options_that_choose_nothing_are_free(pruned: State, digits: Samples, tmp_path: Path) -> None:
    stopped(pruned, digits, tmp_path / "c", 2)
    options = {"checkpoint_steps": 2, "checkpoint_seconds": 9.0, "threads": 1, "device": "cpu"}
    assert Retrain(recipe(tmp_path / "c", **options), digits).run(pruned).training.resumed_at == 2


def test_another_model_other_masks_or_samples_are_refused(
    small: Model, pruned: State, digits: Samples, digits_file: Path, tmp_path: Path
) -> None:
    stopped(pruned, digits, tmp_path / "c", 2)
    keep = np.ones((10, 16), np.bool_)
    keep[0, pruned.masks["fc2.weight"][0].argmax()] = False
    masks = pruned.masks.shrunk({"fc2.weight": keep})
    bias = pruned.model.initializers["fc1.bias"] + np.float32(1)
    arrays = np.load(digits_file)
    np.savez(tmp_path / "other.npz", x=arrays["x"] * 2, labels=arrays["labels"])
    other = read_samples(str(tmp_path / "other.npz"), input_specs(save(small, tmp_path / "small.onnx")))
    again = recipe(tmp_path / "c")
    for state, samples, what in (
        (State(pruned.model.with_initializers({"fc1.bias": bias}), pruned.masks), digits, "the model"),
        (State(apply_masks(pruned.model, masks), Masks(masks)), digits, "the model"),
        (pruned, other, "the training data"),
    ):
        with pytest.raises(SelectionError, match=f"is of another run: {what} differs; give the options"):
            Retrain(again, samples).run(state)
    assert Retrain(recipe(tmp_path / "c", restart=True), other).run(pruned).training.resumed_at is None


def test_a_damaged_checkpoint_is_an_error(pruned: State, digits: Samples, tmp_path: Path) -> None:
    stopped(pruned, digits, tmp_path / "c", 2)
    whole = (tmp_path / "c" / FILE).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x80\x04junk"):
        (tmp_path / "c" / FILE).write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read .*--restart"):
            Retrain(recipe(tmp_path / "c"), digits).run(pruned)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "harm").mkdir, ())

    (tmp_path / "c").mkdir()
    torch.save({"format": 1, "identity": {}, "module": Harmful()}, tmp_path / "c" / FILE)
    with pytest.raises(DataError, match="cannot be read"):
        Store(tmp_path / "c", {}).read()
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "c", {"option": {"lr": 1.0}})
    store.write({"number": 1})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left on device; free some space"):
        store.write({"number": 2})
    found = store.read()
    assert found is not None
    assert found["number"] == 1
    assert [one.name for one in (tmp_path / "c").iterdir()] == [FILE]
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OnnxPruneError, match="cannot be written"):
        Store(blocked / "c", {}).write({})


def test_one_every_so_many_steps(
    pruned: State, digits: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(Store, "write", lambda _, content: written.append(content["standing"]["steps"]))
    Retrain(recipe(tmp_path / "c", epochs=1), digits).run(pruned)
    assert written == [0, 6]
    written.clear()
    Retrain(recipe(tmp_path / "c", epochs=1, checkpoint_steps=4), digits).run(pruned)
    assert written == [0, 4, 6]
    written.clear()
    Retrain(recipe(tmp_path / "c", epochs=1, checkpoint_seconds=1e-9), digits).run(pruned)
    assert written == [0, 1, 2, 3, 4, 5, 6, 6]


def test_what_is_frozen_is_in_no_checkpoint(pruned: State, digits: Samples, tmp_path: Path) -> None:
    options = {"freeze": ("fc1.*",), "ema": 0.5, "keep": "best"}
    stopped(pruned, digits, tmp_path / "c", 8, **options)
    content = torch.load(tmp_path / "c" / FILE, weights_only=True)
    for held in (content["module"], content["ema"], content["standing"]["values"]):
        assert set(held) == {f"t:{key}" for key in ("conv%2Eweight", "conv%2Ebias", "fc2%2Eweight", "fc2%2Ebias")} | {
            f"t:{key}" for key in ("scale", "shift", "mean", "var")
        }
    whole = Retrain(recipe(None, **options), digits).run(pruned)
    assert bits(Retrain(recipe(tmp_path / "c", **options), digits).run(pruned)) == bits(whole)


@pytest.mark.parametrize("kept", [(), ("notes.txt",)])
def test_what_a_killed_run_left_goes_with_the_checkpoint(tmp_path: Path, kept: tuple[str, ...]) -> None:
    store = Store(tmp_path / "c", {})
    store.write({"step": 1})
    for name in (f".{FILE}.4711.tmp", *kept):
        (tmp_path / "c" / name).write_bytes(b"half")
    store.remove()
    assert (tmp_path / "c").exists() == bool(kept)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == list(kept)
    store.remove()
