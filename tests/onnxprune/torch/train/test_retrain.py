"""`Retrain`: what moves, what does not, and that every option is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, State
from onnxprune_passes.storage import save
from onnxprune_passes.values import ShareValues

from onnxprune.runtime import input_specs
from onnxprune.samples import Samples, read_samples
from onnxprune.torch.retrain import Retrain, Retrained
from onnxprune.train_recipe import TrainRecipe
from onnxprune.train_report import Epoch, Watch

Array = npt.NDArray[Any]


def recipe(**options: Any) -> TrainRecipe:
    base = {"data": "digits", "epochs": 2, "lr": 0.05, "batch_size": 32, "validation": 0.2, "keep": "last"}
    return TrainRecipe(**{**base, **options})


def train(state: State, samples: Samples, **options: Any) -> Retrained:
    return Retrain(recipe(**options), samples).run(state)


def values(model: Model) -> dict[str, bytes]:
    return {key: model.initializers[key].tobytes() for key in model.initializers}


def zeros(state: State) -> Mapping[str, Array]:
    """The pruned entries by key."""
    return {key: ~state.masks[key] for key in state.masks}


# What moves and what does not


@pytest.mark.parametrize(
    "options",
    [{"momentum": 0.9, "weight_decay": 0.01}, {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1}],
    ids=["sgd", "adamw"],
)
def test_kept_values_move_and_pruned_ones_stay_zero(pruned: State, digits: Samples, options: dict[str, Any]) -> None:
    found = train(pruned, digits, epochs=15, **options)
    before, after = found.training.epochs[0], found.training.epochs[-1]
    assert before.metric is not None
    assert after.metric is not None
    assert after.metric > before.metric + 0.3
    assert found.state.masks is pruned.masks
    graphs = found.state.model.graph, pruned.model.graph
    for name in ("node", "input", "output", "value_info"):
        assert getattr(graphs[0], name) == getattr(graphs[1], name)
    for key, pruned_entries in zeros(pruned).items():
        array = found.state.model.initializers[key]
        assert array[pruned_entries].tobytes() == bytes(4 * pruned_entries.sum())  # +0.0, every bit
        assert (array[~pruned_entries] != pruned.model.initializers[key][~pruned_entries]).mean() > 0.9
    assert values(pruned.model)["mean"] == values(found.state.model)["mean"]


def test_zeros_of_a_file_are_held_without_masks(pruned: State, digits: Samples) -> None:
    unmasked = State(pruned.model)
    found = train(unmasked, digits)
    assert found.state.masks is unmasked.masks
    for key, pruned_entries in zeros(pruned).items():
        assert not found.state.model.initializers[key][pruned_entries].any()
    assert found.training.pruned == sum(int(entries.sum()) for entries in zeros(pruned).values())


def test_masks_of_the_state_are_held_beside_the_zeros(pruned: State, digits: Samples) -> None:
    from onnxprune_passes.masks import apply_masks

    keep = np.ones((10, 16), np.bool_)
    keep[:, 3] = False
    masks = Masks({"fc2.weight": keep})
    state = State(apply_masks(pruned.model, masks), masks)
    found = train(state, digits)
    array = found.state.model.initializers["fc2.weight"]
    assert not array[~pruned.masks["fc2.weight"]].any()
    assert not array[:, 3].any()


def test_the_log_says_what_was_done(pruned: State, digits: Samples) -> None:
    *before, entry = train(pruned, digits).state.log
    assert tuple(before) == pruned.log
    assert isinstance(entry, Change)
    assert entry.by == "retrain"
    assert "accuracy" in entry.summary


def test_nothing_better_gives_the_same_object(pruned: State, digits: Samples) -> None:
    found = train(pruned, digits, lr=1e-30, keep="best", epochs=1)
    assert found.state is pruned
    assert found.training.kept == 0
    assert "no epoch measured better" in found.training.notes[-1]


def test_the_input_is_untouched(pruned: State, digits: Samples) -> None:
    before = values(pruned.model)
    train(pruned, digits)
    assert values(pruned.model) == before


def test_the_same_bits_at_every_run_and_callers_numbers_are_left_alone(pruned: State, digits: Samples) -> None:
    import torch

    torch.manual_seed(7)
    state = torch.get_rng_state()
    options = {"dropout": ("a=0.3",), "batch_norm": "train"}
    first, second = (values(train(pruned, digits, **options).state.model) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()


# Every option is read


_TRIED: dict[str, dict[str, Any]] = {
    "lr": {"lr": 0.06},
    "original_lr": {"lr": None, "original_lr": 0.3},
    "default lr": {"lr": None},
    "momentum": {"momentum": 0.5},
    "nesterov": {"nesterov": True},
    "optimizer": {"optimizer": "adamw"},
    "weight_decay": {"weight_decay": 0.1},
    "cosine": {"schedule": "cosine"},
    "step": {"schedule": "step", "milestones": (1.0,)},
    "gamma": {"schedule": "step", "milestones": (1.0,), "gamma": 0.5},
    "rewind": {"schedule": "rewind", "original_epochs": 10.0},
    "original_schedule": {
        "schedule": "rewind",
        "original_epochs": 10.0,
        "original_schedule": "constant",
        "warmup": 9.5,
    },
    "original_epochs": {"schedule": "rewind", "original_epochs": 20.0},
    "warmup": {"warmup": 1.0},
    "epochs": {"epochs": 1},
    "batch_size": {"batch_size": 48},
    "l1": {"l1": 0.01},
    "l2": {"l2": 0.01},
    "hoyer": {"hoyer": 0.01},
    "clip_norm": {"clip_norm": 0.1},
    "dropout": {"dropout": ("a=0.5",)},
    "dropout rate": {"dropout": ("a=0.2",)},
    "train_only fc": {"train_only": "fc"},
    "train_only conv": {"train_only": "conv"},
    "train_only alternate": {"train_only": "alternate"},
    "batch_norm train": {"batch_norm": "train"},
    "batch_norm recalibrate": {"batch_norm": "recalibrate"},
    "freeze": {"freeze": ("fc1.*",)},
    "amp": {"amp": "bf16"},
    "amp fp16": {"amp": "fp16"},
    "ema": {"ema": 0.9},
    "seed": {"seed": 1},
    "validation": {"validation": 0.3},
    "loss mse": {"loss": "user_losses:half"},
    "label_smoothing": {"label_smoothing": 0.1},
    "output_name": {"output_name": "h"},
}


@pytest.fixture(scope="module")
def results() -> dict[str, tuple[bytes, ...]]:
    """What the runs so far gave, by the option that was tried."""
    return {}


@pytest.mark.parametrize("name", ["nothing", *_TRIED])
def test_each_option_changes_what_comes_out(
    pruned: State,
    digits: Samples,
    name: str,
    results: dict[str, tuple[bytes, ...]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "user_losses.py").write_text(
        "from torch.nn.functional import cross_entropy\n"
        "def half(output, labels, teacher):\n    return cross_entropy(output, labels) / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = tuple(values(train(pruned, digits, **_TRIED.get(name, {})).state.model).values())
    same = [other for other, known in results.items() if known == found]
    assert not same, f"{name} gives the bits of {same}"
    results[name] = found


def test_train_only_leaves_the_others_alone(pruned: State, digits: Samples) -> None:
    before = values(pruned.model)
    after = values(train(pruned, digits, train_only="conv", weight_decay=0.1).state.model)
    assert {key for key in before if before[key] != after[key]} == {"conv.weight", "conv.bias", "scale", "shift"}
    one, two = (values(train(pruned, digits, train_only="alternate", epochs=n).state.model) for n in (1, 2))
    assert {key for key in before if before[key] != one[key]} == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert {key for key in one if one[key] != two[key]} == {"conv.weight", "conv.bias", "scale", "shift"}


def test_a_masked_tensor_may_be_frozen(pruned: State, digits: Samples) -> None:
    before, after = values(pruned.model), values(train(pruned, digits, freeze=("fc1.*",)).state.model)
    assert before["fc1.weight"] == after["fc1.weight"]
    assert before["fc2.weight"] != after["fc2.weight"]


def test_train_takes_up_what_looks_fixed(make: Any, digits: Samples) -> None:
    from onnxprune_passes.storage import from_proto, to_proto

    grid = np.arange(64)[:, None] * np.arange(16)
    basis = np.cos(2 * np.pi * grid / 64).astype(np.float32)
    weights = {"basis": basis, "w": np.random.default_rng(0).standard_normal((16, 10)).astype(np.float32)}
    body = "f = Flatten(x) s = MatMul(f, basis) y = MatMul(s, w)"
    state = State(from_proto(to_proto(make(body, "float[N, 1, 8, 8] x", "float[N, 10] y", weights))))
    before = values(state.model)
    assert values(train(state, digits, lr=1e-4).state.model)["basis"] == before["basis"]
    assert values(train(state, digits, lr=1e-4, train=("basis",)).state.model)["basis"] != before["basis"]


def test_the_best_epoch_is_kept_and_patience_ends_a_training(pruned: State, digits: Samples) -> None:
    seen: list[Epoch] = []
    options = recipe(keep=None, epochs=40, lr=0.2, patience=2)
    found = Retrain(options, digits, watch=Watch(epoch=seen.append)).run(pruned).training
    assert found.stopped_early
    assert found.epochs == tuple(seen)
    assert len(seen) < 41
    best = max(one.metric or 0 for one in seen)
    assert found.at(found.kept).metric == best
    assert found.kept == seen[-1].epoch - 2


def test_metric_and_validation_data(pruned: State, digits: Samples) -> None:
    found = Retrain(recipe(epochs=1, metric="top5"), digits, validation=digits).run(pruned).training
    assert found.metric == "top5"
    assert len(found.epochs) == 2
    unmeasured = Retrain(recipe(epochs=1, validation=0.0), digits).run(pruned).training
    assert unmeasured.metric is None
    assert unmeasured.epochs[-1].validation_loss is None


def test_a_teacher_is_learned_from(small: Model, pruned: State, digits: Samples, tmp_path: Path) -> None:
    dense = train(State(small), digits, epochs=15).state.model
    path = str(save(dense, tmp_path / "dense.onnx"))
    runs: dict[str, dict[str, Any]] = {
        "torch": {"teacher_in": "torch"},
        "onnxruntime": {},
        "temperature": {"temperature": 1.0},
        "weight": {"distill_weight": 0.2},
        "hard": {"distill_weight": 0.2, "label_smoothing": 0.3},
    }
    found = {name: train(pruned, digits, teacher=path, **one) for name, one in runs.items()}
    assert found["torch"].training.notes[0].startswith("loss distill")
    bits = {name: tuple(values(one.state.model).values()) for name, one in found.items()}
    assert len(set(bits.values())) >= len(runs) - 1  # torch and onnxruntime may round alike
    assert bits["temperature"] != bits["onnxruntime"] != bits["weight"] != bits["hard"]
    accuracy = train(pruned, digits, teacher=path, distill_weight=1.0, epochs=15).training.epochs[-1].metric
    assert accuracy is not None
    assert accuracy > 0.5


@pytest.mark.parametrize(("tail", "loss"), [("Softmax", "ce"), ("LogSoftmax", "ce"), ("Sigmoid", "bce")])
def test_the_loss_is_taken_before_a_last_activation(make: Any, digits: Samples, tail: str, loss: str) -> None:
    from onnxprune.torch.train.objective import hard_loss_name

    weights = {"w": np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32) / 8}
    body = f"f = Flatten(x) s = MatMul(f, w) y = {tail}(s)"
    model = make(body, "float[N, 1, 8, 8] x", "float[N, 10] y", weights)
    assert hard_loss_name("values", tail) == loss
    found = train(State(model), digits, loss="ce")
    assert found.training.notes[0] == f"loss ce at 's', before the {tail} of 'y'"
    plain = make("f = Flatten(x) s = MatMul(f, w)", "float[N, 1, 8, 8] x", "float[N, 10] s", weights)
    same = train(State(plain), digits, loss="ce")
    assert values(same.state.model) == values(found.state.model)


def test_a_diverging_training_is_an_error(pruned: State, digits: Samples) -> None:
    with pytest.raises(DataError, match=r"the loss is (nan|inf) in epoch 1, step"):
        train(pruned, digits, lr=1e30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "distill"}, "needs --teacher"),
        ({"loss": "huber"}, "is unknown"),
        ({"original_lr": 0.1}, "exclude each other"),
        ({"schedule": "rewind"}, "needs --original-epochs"),
        ({"schedule": "step"}, "needs --milestones"),
        ({"optimizer": "adamw", "momentum": 0.5}, "--momentum has no meaning without --optimizer sgd"),
        ({"validation": 0.0, "keep": "best"}, "--keep has no meaning"),
        ({"gamma": 0.5}, "--gamma has no meaning"),
        ({"dropout": ("a",)}, "is not GLOB=RATE"),
        ({"freeze": ("*",)}, "no tensor to train"),
        ({"freeze": ("nothing*",)}, "matches none"),
        ({"output_name": "nothing"}, "is no value"),
        ({"device": "cuda"}, "no CUDA device"),
        ({"lr": float("inf")}, "finite"),
    ],
)
def test_options_that_cannot_be_are_refused(
    pruned: State, digits: Samples, options: dict[str, Any], message: str
) -> None:
    import torch

    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(SelectionError, match=message):
        train(pruned, digits, **options)


# Models whose file fixes the batch


FIXED = "f = Reshape(x, to) h = Gemm<transB = 1>(f, w, b) y = Relu(h)"


def fixed_weights(batch: int) -> dict[str, Array]:
    weights = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32) / 8
    return {"w": weights, "b": np.zeros(10, np.float32), "to": np.array([batch, 64])}


@pytest.mark.parametrize(("asked", "steps"), [(32, 6), (30, 7), (2, 48)])
def test_a_fixed_batch_is_trained_in_multiples(
    make: Any, digits_file: Path, tmp_path: Path, asked: int, steps: int
) -> None:
    model = make(FIXED, "float[4, 1, 8, 8] x", "float[4, 10] y", fixed_weights(4))
    samples = read_samples(str(digits_file), input_specs(save(model, tmp_path / "fixed.onnx")))
    found = train(State(model), samples, epochs=1, batch_size=asked)
    assert found.training.epochs[-1].steps == steps
    assert any("instead of" in note for note in found.training.notes) == (asked != 32)
    open_model = make(FIXED, "float[N, 1, 8, 8] x", "float[N, 10] y", fixed_weights(-1))
    if asked == 32:  # 192 samples are whole batches of 4: the same steps
        same = train(State(open_model), samples, epochs=1, batch_size=asked)
        for key in ("w", "b"):
            np.testing.assert_allclose(
                found.state.model.initializers[key], same.state.model.initializers[key], rtol=0, atol=1e-6
            )


def test_validation_of_a_fixed_batch_counts_every_sample_once(make: Any, digits_file: Path, tmp_path: Path) -> None:
    models = {
        size: make(FIXED, f"float[{size}, 1, 8, 8] x", f"float[{size}, 10] y", fixed_weights(batch))
        for size, batch in ((7, 7), ("N", -1))
    }
    found = []
    for size, model in models.items():
        samples = read_samples(str(digits_file), input_specs(save(model, tmp_path / f"{size}.onnx")))
        found.append(train(State(model), samples, epochs=1).training.epochs[0])
    assert found[0].metric == found[1].metric
    assert found[0].validation_loss == pytest.approx(found[1].validation_loss, rel=1e-6)


def test_a_model_that_runs_no_other_batch_is_given_its_own_several_times(
    make: Any, digits_file: Path, tmp_path: Path
) -> None:
    body = "m = ReduceMean(x, zero) c = Sub(x, m) f = Flatten(c) h = Gemm<transB = 1>(f, w, b) y = Relu(h)"
    weights = {**fixed_weights(4), "zero": np.array([0])}
    del weights["to"]
    model = make(body, "float[4, 1, 8, 8] x", "float[4, 10] y", weights)
    samples = read_samples(str(digits_file), input_specs(save(model, tmp_path / "fixed.onnx")))
    found = train(State(model), samples, epochs=6, batch_size=16)
    assert found.module.batch_problem is not None
    assert found.training.epochs[-1].steps == 6 * 12
    before, after = found.training.epochs[0].metric, found.training.epochs[-1].metric
    assert before is not None
    assert after is not None
    assert after > before + 0.3


def test_too_few_samples_are_an_error(make: Any, digits_file: Path, tmp_path: Path) -> None:
    model = make(FIXED, "float[200, 1, 8, 8] x", "float[200, 10] y", fixed_weights(200))
    samples = read_samples(str(digits_file), input_specs(save(model, tmp_path / "fixed.onnx")))
    with pytest.raises(DataError, match="192 training samples do not fill one batch of 200"):
        train(State(model), samples)


class OneLabelless:
    """Samples without labels."""

    note = "unlabelled"

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, rows: npt.NDArray[np.int64]) -> tuple[dict[str, Array], Array | None]:
        return self._samples.batch(rows)[0], None


def test_without_labels_a_teacher_is_enough_and_the_loss_is_measured(
    small: Model, pruned: State, digits: Samples, tmp_path: Path
) -> None:
    unlabelled = OneLabelless(digits)
    with pytest.raises(DataError, match="no labels: add them, or give a --teacher"):
        train(pruned, unlabelled)
    path = str(save(small, tmp_path / "dense.onnx"))
    with pytest.raises(SelectionError, match="needs labels"):
        train(pruned, unlabelled, teacher=path, metric="accuracy")
    found = train(pruned, unlabelled, teacher=path, keep="best", epochs=4).training
    losses = [one.validation_loss for one in found.epochs if one.validation_loss is not None]
    assert found.metric is None
    assert found.at(found.kept).validation_loss == min(losses) < losses[0]


def test_tensorboard_is_told(pruned: State, digits: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    told: list[tuple[str, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, _: float, step: int) -> None:
            told.append((name, step))

        def flush(self) -> None: ...

        def close(self) -> None:
            told.append(("closed", 0))

    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]  # a stand-in for the real module
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    train(pruned, digits, tensorboard=str(tmp_path), epochs=1)
    assert told.count(("epoch/metric", 1)) == 1
    assert [step for name, step in told if name == "step/loss"] == [1, 2, 3, 4, 5, 6]
    assert told[-1] == ("closed", 0)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SelectionError, match="needs the package tensorboard"):
        train(pruned, digits, tensorboard=str(tmp_path))


def test_channels_last_lies_so_in_memory_and_trains_the_same(pruned: State, digits: Samples) -> None:
    plain, last = (train(pruned, digits, epochs=1, channels_last=one) for one in (False, True))
    kernels = [
        next(one for one in found.module.parameters() if one.ndim == 4).is_contiguous(memory_format=layout)
        for found, layout in ((plain, torch.contiguous_format), (last, torch.channels_last))
    ]
    assert kernels == [True, True]
    weight = last.state.model.initializers["fc1.weight"]
    assert np.allclose(weight, plain.state.model.initializers["fc1.weight"], atol=1e-4)


def test_tied_values_train_and_stay_shared(pruned: State, digits: Samples) -> None:
    shared = ShareValues(2)(pruned)
    before = shared.model.initializers["fc1.weight"]
    found = train(shared, digits, tie_values=True, epochs=15)
    after = found.state.model.initializers["fc1.weight"]
    assert len(np.unique(after)) == len(np.unique(before)) == 4
    for value in np.unique(before):
        assert len(np.unique(after[before == value])) == 1
    assert (after != before)[before != 0].all()
    losses = [one.validation_loss for one in (found.training.epochs[0], found.training.epochs[-1])]
    assert losses[1] < losses[0]  # type: ignore[operator]
    assert "entries share" in " ".join(found.training.notes)
    free = train(shared, digits, epochs=1).state.model.initializers["fc1.weight"]
    assert len(np.unique(free)) > 4
    with pytest.raises(SelectionError, match="--tie-values: no tensor's entries share values"):
        train(pruned, digits, tie_values=True)
