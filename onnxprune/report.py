"""The report of one run: typed, frozen, written as JSON by a published schema.

`docs/report.schema.json` is what `onnxprune schema` prints; a change that an old reader would stumble over raises
`SCHEMA_VERSION`. A number that does not exist is null, such as the error between two outputs that differ in NaN.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .recipe import Recipe
from .records import (
    Accuracy,
    Comparison,
    Decoded,
    File,
    Layer,
    Left,
    Note,
    Rounding,
    SharedValues,
    Tools,
    Totals,
)
from .rounds.records import Rounds

SCHEMA_VERSION: Literal[1] = 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of the main job did.

    Attributes:
        schema_version: of this format.
        status: done = the output is there; failed = a check failed, nothing was written; error = it could not be done.
        error: the one line of a run that is not done.
        verified: every check was run and passed.
        tools: versions.
        recipe: the options, all filled in; as a recipe file it replays the run.
        input, output: the two files.
        layers: one entry for each weight.
        totals: sums.
        rounds: with `retrain`: every round of pruning and training; null without.
        rounding: what `round_to: auto` measured; null when it was not asked for.
        shared_values: what `values: shared:auto` measured; null when it was not asked for, or there was no data.
        changes, skips: what the passes did and what they left alone.
        inputs_from: what the models were run on.
        comparisons, decoded: what was checked.
        accuracy: with labels only.
        accuracy_note: why it was not measured.
        warnings: what the user should know.
        seconds: wall time by step.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["done", "failed", "error"]
    error: str | None = None
    verified: bool = False
    tools: Tools
    recipe: Recipe
    input: File | None = None
    output: File | None = None
    layers: tuple[Layer, ...] = ()
    totals: Totals | None = None
    rounds: Rounds | None = None
    rounding: Rounding | None = None
    shared_values: SharedValues | None = None
    changes: tuple[Note, ...] = ()
    skips: tuple[Left, ...] = ()
    inputs_from: str | None = None
    comparisons: tuple[Comparison, ...] = ()
    decoded: tuple[Decoded, ...] = ()
    accuracy: Accuracy | None = None
    accuracy_note: str | None = None
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = {}


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `onnxprune verify` found.

    Attributes:
        schema_version: of this format.
        verified: the two models agree within tolerance.
        tools: versions.
        before, after: the two files.
        inputs_from: what they were run on.
        comparisons: one for each level of graph optimisation.
        problems: what is beyond tolerance.
        accuracy: with labels only.
        accuracy_note: why it was not measured.
        notes: what was left out of the comparison.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    verified: bool
    tools: Tools
    before: str
    after: str
    inputs_from: str
    comparisons: tuple[Comparison, ...]
    problems: tuple[str, ...]
    accuracy: Accuracy | None
    accuracy_note: str | None
    notes: tuple[str, ...]
