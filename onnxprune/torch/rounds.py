"""Pruning in rounds with `Retrain` between them: what `onnxprune MODEL --retrain` does before it shrinks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from onnxprune_passes.pipeline import State

from onnxprune.recipe import PruneOptions
from onnxprune.rounds import Rounds, RoundStore, Trained, Trainer, prune_in_rounds
from onnxprune.rounds.plan import targets_of
from onnxprune.rounds.run import entries_of
from onnxprune.rounds.schedule import epochs_from
from onnxprune.sensitivity.journal import fingerprint
from onnxprune.torch.retrain import Retrain, samples_for
from onnxprune.torch.train.answers import Answers
from onnxprune.train_recipe import FREE_IN_A_RESUME, TrainRecipe
from onnxprune.train_report import Watch

_ONLY_HOW = ("output", "json", "quiet", "overwrite", "save-masks", "check", "encode", "inline", "shrink", "fold")
"""Options of a run that change nothing about its rounds."""


@dataclass(eq=False)
class RoundsPrune:
    """State → State: all rounds of resolved options. `rounds` tells of them afterwards.

    Raises (when called):
        MaxDropError: no round is within `max_drop`.
        DataError: the samples do not fit, or the folder of rounds holds those of another run.
        Stopped: `watch.stop` said so; the same call goes on from there.
        What pruning and training raise.
    """

    options: PruneOptions
    watch: Watch = field(default_factory=Watch)
    rounds: Rounds | None = None

    def __call__(self, state: State) -> State:
        """The state after the round that is taken."""
        recipe = self.options.training
        assert recipe is not None  # resolved options have one
        folder = Path(recipe.checkpoint or f"{self.options.output}.rounds")
        if recipe.restart:
            RoundStore.forget(folder)
        store = RoundStore(folder, _identity(self.options, recipe))
        trainer = self._trainer(recipe, store)
        targets = targets_of(self.options, entries_of(state))
        after, self.rounds = prune_in_rounds(state, targets, trainer, store, self.options.max_drop)
        return after

    def finish(self) -> None:
        """Remove what the rounds left on disk, unless a folder was given for it."""
        recipe = self.options.training
        if recipe is not None and recipe.checkpoint is None:
            RoundStore.forget(Path(f"{self.options.output}.rounds"))

    def _trainer(self, recipe: TrainRecipe, store: RoundStore) -> Trainer:
        training, validation = samples_for(recipe, self.options.model)
        epochs = epochs_from(self.options.rounds_epochs, self.options.rounds or 1, recipe.epochs)
        answers = Answers()

        def of_round(number: int) -> Retrain:
            own = msgspec.structs.replace(
                recipe, checkpoint=str(store.checkpoint(number)), restart=False, epochs=epochs[number - 1]
            )
            return Retrain(own, training, validation, self.watch, answers)

        def train(state: State, number: int) -> Trained:
            done = of_round(number).run(state)
            first, kept = done.training.epochs[0], done.training.at(done.training.kept)
            return Trained(done.state, first.metric, kept.metric, len(done.training.epochs) - 1)

        return Trainer(train, of_round(1).measured)


def _identity(options: PruneOptions, recipe: TrainRecipe) -> str:
    """What the rounds belong to: the model's bytes, and every option that has a say in them."""
    said = msgspec.to_builtins(options)
    kept = {name: value for name, value in said.items() if name not in (*_ONLY_HOW, "model", "training", "data")}
    training = {name: value for name, value in msgspec.to_builtins(recipe).items() if name not in FREE_IN_A_RESUME}
    return fingerprint({"model": options.model}, repr((sorted(kept.items()), sorted(training.items()))))
