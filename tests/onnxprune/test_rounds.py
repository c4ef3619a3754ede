"""Pruning in rounds without torch: targets, the store, the choice of a round."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.pipeline import Change, State
from onnxprune_passes.storage import load
from onnxprune_passes.thresholds import Sparsity

from onnxprune.recipe import PruneOptions
from onnxprune.resolve import options_from, resolved
from onnxprune.rounds import (
    MaxDropError,
    Measure,
    RoundStore,
    Target,
    Trained,
    Trainer,
    prune_in_rounds,
    targets_from,
)
from onnxprune.rounds.plan import targets_of
from onnxprune.rounds.run import entries_of, kept_of
from onnxprune.rounds.schedule import epochs_from
from onnxprune.train_recipe import TrainRecipe


def test_constant_rounds_keep_the_same_share_each() -> None:
    targets = targets_from(0.9, 4, unit="sparsity")
    densities = [1.0, *(1 - target for target in targets)]
    shares = [after / before for before, after in pairwise(densities)]
    assert shares == pytest.approx([0.1**0.25] * 4)
    assert targets[-1] == 0.9


def test_constant_rounds_of_other_units_rise_by_equal_steps() -> None:
    assert targets_from(1.5, 3, unit="quality") == pytest.approx((0.5, 1.0, 1.5))


def test_cubic_rounds_prune_most_at_first() -> None:
    targets = targets_from(0.8, 4, "cubic", unit="sparsity")
    assert targets == pytest.approx([0.8 * (1 - (1 - k / 4) ** 3) for k in (1, 2, 3, 4)])
    steps = np.diff([0, *targets])
    assert all(np.diff(steps) < 0)


def test_targets_can_be_listed() -> None:
    assert targets_from(0.9, 3, "0.5,0.8,0.9", unit="sparsity") == (0.5, 0.8, 0.9)


@pytest.mark.parametrize("listed", ["0.5,0.9", "0.5,0.8,0.95", "0.8,0.5,0.9", "-0.1,0.5,0.9", "0.5,0.5,0.9"])
def test_a_list_that_does_not_fit_is_an_error(listed: str) -> None:
    with pytest.raises(SelectionError, match=r"3 rising ones up to the final sparsity, 0.9"):
        targets_from(0.9, 3, listed, unit="sparsity")


def test_an_unknown_schedule_is_an_error() -> None:
    with pytest.raises(SelectionError, match="give constant, cubic, or the targets"):
        targets_from(0.9, 3, "linear", unit="sparsity")


class FakeTraining:
    """Moves every kept weight up by 1 and measures what it is told to; counts its calls."""

    def __init__(self, metrics: dict[int, float], dense: float | None = 0.9, *, larger_is_better: bool = True) -> None:
        self.metrics, self.dense, self.better = metrics, dense, larger_is_better
        self.trained: list[int] = []
        self.measured = 0

    def train(self, state: State, number: int) -> Trained:
        self.trained.append(number)
        values = {key: state.model.initializers[key] for key in state.masks}
        moved = {key: np.where(value != 0, value + 1, 0).astype(value.dtype) for key, value in values.items()}
        after = State(state.model.with_initializers(moved), state.masks, state.log).noted(Change("train", f"{number}"))
        return Trained(after, 0.1, self.metrics.get(number), 2)

    def measure(self, _state: State) -> Measure | None:
        self.measured += 1
        return None if self.dense is None else Measure("accuracy", self.dense, self.better)

    @property
    def trainer(self) -> Trainer:
        return Trainer(self.train, self.measure)


def targets(*sparsities: float) -> tuple[Target, ...]:
    return tuple(Target(MagnitudePrune(Sparsity(one)), "sparsity", one) for one in sparsities)


@pytest.fixture
def state(net: Path) -> State:
    return State(load(net))


@pytest.fixture
def store(tmp_path: Path) -> Callable[[], RoundStore]:
    return lambda: RoundStore(tmp_path / "rounds", "this run")


def test_each_round_prunes_what_the_last_one_trained(state: State, store: Callable[[], RoundStore]) -> None:
    training = FakeTraining({1: 0.9, 2: 0.8})
    after, rounds = prune_in_rounds(state, targets(0.5, 0.75), training.trainer, store())
    assert [one.density for one in rounds.rounds] == pytest.approx([0.5, 0.25], abs=1e-3)
    assert [one.metric for one in rounds.rounds] == [0.9, 0.8]
    assert rounds.taken == 2
    first = state.model.initializers["fc1.weight"]
    last = after.model.initializers["fc1.weight"]
    assert np.array_equal(last[last != 0], (first + 1 + 1)[last != 0].astype(np.float32))
    assert [entry.by for entry in after.log] == ["magnitude-prune", "train", "magnitude-prune", "train"]


@pytest.mark.parametrize(("max_drop", "taken"), [(None, 4), (0.15, 4), (0.05, 2), (0.0, 1)])
def test_the_last_round_within_the_drop_is_taken(
    state: State, store: Callable[[], RoundStore], max_drop: float | None, taken: int
) -> None:
    training = FakeTraining({1: 0.9, 2: 0.86, 3: 0.7, 4: 0.75})
    sparsities = (0.2, 0.4, 0.6, 0.8)
    after, rounds = prune_in_rounds(state, targets(*sparsities), training.trainer, store(), max_drop)
    assert rounds.taken == taken
    kept = sum(np.count_nonzero(after.model.initializers[key]) for key in after.masks)
    total = sum(after.model.initializers[key].size for key in after.masks)
    assert kept / total == pytest.approx(1 - sparsities[taken - 1], abs=1e-3)


def test_a_smaller_metric_can_be_the_better_one(state: State, store: Callable[[], RoundStore]) -> None:
    training = FakeTraining({1: 0.1, 2: 0.3}, dense=0.2, larger_is_better=False)
    assert prune_in_rounds(state, targets(0.2, 0.4), training.trainer, store(), 0.05)[1].taken == 1


def test_no_round_within_the_drop_is_an_error_with_the_table(state: State, store: Callable[[], RoundStore]) -> None:
    training = FakeTraining({1: 0.8, 2: 0.5})
    with pytest.raises(MaxDropError, match=r"the nearest is round 1 with 0.8") as caught:
        prune_in_rounds(state, targets(0.5, 0.75), training.trainer, store(), 0.01)
    assert [one.metric for one in caught.value.rounds.rounds] == [0.8, 0.5]
    assert caught.value.rounds.taken is None


def test_a_drop_without_a_metric_is_an_error(state: State, store: Callable[[], RoundStore]) -> None:
    with pytest.raises(DataError, match="--max-drop needs a metric"):
        prune_in_rounds(state, targets(0.5), FakeTraining({}, dense=None).trainer, store(), 0.01)


def test_finished_rounds_are_not_done_again(state: State, store: Callable[[], RoundStore], tmp_path: Path) -> None:
    whole, rounds = prune_in_rounds(
        state, targets(0.5, 0.75, 0.9), FakeTraining({1: 0.9, 2: 0.8, 3: 0.7}).trainer, store()
    )
    other = RoundStore(tmp_path / "other", "this run")
    broken = FakeTraining({1: 0.9, 2: 0.8, 3: 0.7})

    def stops(now: State, number: int) -> Trained:
        if number == 3:
            raise KeyboardInterrupt
        return broken.train(now, number)

    with pytest.raises(KeyboardInterrupt):
        prune_in_rounds(state, targets(0.5, 0.75, 0.9), Trainer(stops, broken.measure), other)
    again = FakeTraining({3: 0.7})
    after, second = prune_in_rounds(
        state, targets(0.5, 0.75, 0.9), again.trainer, RoundStore(tmp_path / "other", "this run")
    )
    assert (again.trained, again.measured, second.resumed) == ([3], 0, 2)
    assert [one.metric for one in second.rounds] == [one.metric for one in rounds.rounds]
    assert after.log == whole.log
    for key in whole.masks:
        assert np.array_equal(after.model.initializers[key], whole.model.initializers[key])
        assert np.array_equal(after.masks[key], whole.masks[key])


def test_rounds_of_something_else_are_refused(state: State, store: Callable[[], RoundStore], tmp_path: Path) -> None:
    prune_in_rounds(state, targets(0.5), FakeTraining({1: 0.9}).trainer, store())
    with pytest.raises(DataError, match="rounds of another model or other options"):
        RoundStore(tmp_path / "rounds", "another run")
    (tmp_path / "rounds" / "01.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match=r"round 1 in .* cannot be read"):
        store().state(1)
    (tmp_path / "rounds" / "rounds.json").write_text("{")
    with pytest.raises(DataError, match="not a record of rounds"):
        store()


def test_only_a_folder_of_rounds_is_forgotten(tmp_path: Path, state: State, store: Callable[[], RoundStore]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "2026 thesis.txt").write_text("words")
    RoundStore.forget(mine)
    assert (mine / "2026 thesis.txt").exists()
    prune_in_rounds(state, targets(0.5), FakeTraining({1: 0.9}).trainer, store())
    RoundStore.forget(tmp_path / "rounds")
    assert not (tmp_path / "rounds").exists()


# Rounds that shrink


def test_rounds_that_shrink_keep_the_count_and_no_dead_neurons(state: State) -> None:
    entries = entries_of(state)
    plain, shrinking = (
        targets_of(given(**{"sparsity": 0.98, "rounds": 2, "rounds-shrink": shrinks}), entries)
        for shrinks in (False, True)
    )
    now = state
    for target, kept in zip(shrinking, (round(entries * 0.02**0.5), round(entries * 0.02)), strict=True):
        now = target.prune(now)
        assert kept_of(now) == kept
        assert RemoveDeadNeurons()(now).model is now.model
    assert entries_of(now) < entries
    assert all(now.masks[key].shape == now.model.initializers[key].shape for key in now.masks)
    assert kept_of(RemoveDeadNeurons()(plain[1].prune(plain[0].prune(state)))) < kept_of(now)


def test_channels_go_in_the_first_round_that_shrinks(state: State) -> None:
    entries = entries_of(state)
    options = given(**{"sparsity": 0.9, "rounds": 2, "rounds-shrink": True, "channels": 0.5, "round-to": 1})
    first, second = targets_of(options, entries)
    halved = first.prune(state)
    assert halved.model.initializers["fc1.weight"].shape[0] <= 48 < state.model.initializers["fc1.weight"].shape[0]
    assert 0.99 * entries * 0.1**0.5 < kept_of(halved) <= entries * 0.1**0.5 + 1
    after = second.prune(halved)
    assert 0.99 * entries * 0.1 < kept_of(after) <= entries * 0.1 + 1
    assert after.model.initializers["fc1.weight"].shape[0] > 24


def test_densities_count_what_the_model_came_with(state: State, store: Callable[[], RoundStore]) -> None:
    options = given(**{"sparsity": 0.98, "rounds": 2, "rounds-shrink": True})
    targets = targets_of(options, entries_of(state))
    _, rounds = prune_in_rounds(state, targets, FakeTraining({}).trainer, store())
    assert [one.density for one in rounds.rounds] == pytest.approx([0.02**0.5, 0.02], abs=1e-4)


def test_epochs_of_each_round() -> None:
    assert epochs_from("5,7", 2, 3) == (5, 7)
    assert epochs_from(None, 2, 3) == (3, 3)


# Options


def given(**values: object) -> PruneOptions:
    return options_from("m.onnx", {"data": "d.npz", "retrain": True, **values})


def test_layers_of_their_own_rise_with_the_rounds() -> None:
    found = targets_of(given(sparsity=0.75, rounds=2, layer=["fc1*=0.5"]))
    assert [one.value for one in found] == pytest.approx([0.5, 0.75])
    options = [getattr(one.prune, "options") for one in found]  # noqa: B009 - of a private class
    values = [float(one.layer[0].partition("=")[2]) for one in options]
    assert values == pytest.approx([1 - 0.5**0.5, 0.5])


def test_the_training_gets_the_data_and_the_seed_of_the_run() -> None:
    options = given(**{"seed": 5, "data-option": ["mean=0.5"], "training": {"epochs": 3}})
    assert options.training is not None
    assert options.training.data_option == ("mean=0.5",)
    assert resolved(PruneOptions(model="m", data="d", data_option=("mean=1",), retrain=True)).training == TrainRecipe(
        data="d", data_option=("mean=1",)
    )
    assert (options.training.data, options.training.seed, options.training.epochs) == ("d.npz", 5, 3)
    assert (options.rounds, options.rounds_schedule, options.sparsity) == (1, "constant", 0.5)


def test_a_recipe_and_the_command_line_share_a_training() -> None:
    recipe = {"retrain": True, "data": "d.npz", "training": {"epochs": 3, "lr": 0.5}}
    options = options_from("m.onnx", {"training": {"lr": 0.1}}, recipe)
    assert options.training is not None
    assert (options.training.epochs, options.training.lr) == (3, 0.1)
    assert resolved(options) == options


def test_distillation_learns_from_the_model_itself() -> None:
    options = given(training={"loss": "distill"})
    assert options.training is not None
    assert options.training.teacher == "m.onnx"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"retrain": None, "rounds": 2}, "--rounds belongs to --retrain"),
        ({"retrain": None, "rounds-schedule": "cubic"}, "--rounds-schedule belongs to --retrain"),
        ({"retrain": None, "max-drop": 0.1}, "--max-drop belongs to --retrain"),
        ({"retrain": None, "training": {"epochs": 2}}, "the options of a training belong to --retrain"),
        ({"data": None}, "--retrain needs --data"),
        ({"nm": "2:4", "rounds": 2}, "needs a target that can rise"),
        ({"channels": 0.5, "rounds": 2}, "needs a target that can rise"),
        ({"channels": 0.5, "sparsity": 0.5, "rounds": 2}, "--channels goes once"),
        ({"rounds": 2, "rounds-schedule": "best"}, "--rounds-schedule 'best' is unknown"),
        ({"rounds": 2, "sparsity": 0.9, "rounds-schedule": "0.5,0.8"}, "rising ones up to the final sparsity"),
        ({"retrain": None, "rounds-epochs": "2"}, "--rounds-epochs belongs to --retrain"),
        ({"retrain": None, "rounds-shrink": True}, "--rounds-shrink belongs to --retrain"),
        ({"rounds": 2, "rounds-epochs": "5"}, "not a number of epochs for each of 2 rounds"),
        ({"rounds": 2, "rounds-epochs": "5,0"}, "not a number of epochs for each of 2 rounds"),
        ({"rounds": 2, "rounds-epochs": "5,x"}, "not a number of epochs for each of 2 rounds"),
        ({"rounds-shrink": True, "quality": 0.5}, "--rounds-shrink counts entries over all layers"),
        ({"rounds-shrink": True, "scope": "layer"}, "--rounds-shrink counts entries over all layers"),
        ({"rounds-shrink": True, "layer": ["fc1*=0.5"]}, "--rounds-shrink counts entries over all layers"),
        ({"rounds-shrink": True, "shrink": False}, "--no-shrink wants those of the input"),
        ({"rounds-shrink": True, "save-masks": "m.npz"}, "--save-masks wants those of the input"),
        ({"recalibrate": True}, "--recalibrate has no meaning with --retrain"),
        ({"rounds": 0}, "--rounds: expected `int` >= 1"),
        ({"training": {"seed": 3}}, "seed stands beside training"),
        ({"training": ["epochs"]}, "training is not a mapping"),
        ({"training": {"epochs": 0}}, "--epochs: expected `int` >= 1"),
        ({"training": {"momentum": 0.5, "optimizer": "adamw"}}, "--momentum has no meaning"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(values: dict[str, object], said: str) -> None:
    both = {"data": "d.npz", "retrain": True, **values}
    with pytest.raises(SelectionError) as caught:
        options_from("m.onnx", {name: value for name, value in both.items() if value is not None})
    assert said.replace("`", "") in str(caught.value)
