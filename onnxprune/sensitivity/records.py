"""What `onnxprune sensitivity` is asked for, and what it found."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ..records import Tools

DENSITIES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.06, 0.04, 0.02)
"""The densities measured when none are asked for."""

Density = Annotated[float, msgspec.Meta(gt=0, le=1)]
UnitKind = Literal["initializer", "group"]


class SensitivityOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The options of `onnxprune sensitivity`.

    Attributes:
        model: the model's path.
        data: where samples come from (see `onnxprune.samples.read_measured`).
        data_option: "KEY=VALUE" each: how `data` is read.
        metric: "accuracy", "top5", "mse" or "module:function".
        densities: the densities to measure, each 0 < density ≤ 1.
        groups: measure coupled groups of channels too.
        only, skip: globs over the keys of the weights; `skip` wins.
        max_drop: how much worse than the dense model a layer alone may make the metric, in the metric's own unit; the
            suggestions are for it.
        samples: how many samples to measure on, spread evenly; all when None.
        batch: samples a batch where the model's first axis is dynamic.
        output: name of the output that is measured; the first when None.
        jobs: processes; one per core when None.
        json: the file of the results; `MODEL.sensitivity.json` when None.
        plot: a PNG or SVG file to draw the curves to.
        overwrite: measure everything again, whatever an interrupted run left behind.
    """

    model: str
    data: str
    data_option: tuple[str, ...] = ()
    metric: str = "accuracy"
    densities: tuple[Density, ...] = DENSITIES
    groups: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    max_drop: Annotated[float, msgspec.Meta(ge=0)] = 0.01
    samples: Annotated[int, msgspec.Meta(ge=1)] | None = None
    batch: Annotated[int, msgspec.Meta(ge=1)] = 64
    output: str | None = None
    jobs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    json: str | None = None
    plot: str | None = None
    overwrite: bool = False


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The metric with one unit pruned and all others as they are.

    Attributes:
        wanted: the density that was asked for.
        density: the density it has: entries that are not zero ÷ entries (initializers), channels left ÷ channels
            (groups). Below `wanted` where more was zero already.
        metric: the metric, in its own unit.
        quality: the quality parameter that prunes so far: a magnitude between the largest that went and the smallest
            that stayed ÷ the standard deviation of all entries (Han et al. 2015, section 3); of a recurrent weight's
            gates the smallest; None for groups, and where nothing is pruned.
    """

    wanted: float
    density: float
    metric: float
    quality: float | None = None


class Suggestion(msgspec.Struct, frozen=True, kw_only=True):
    """How far one unit may be pruned alone: the last point, from dense on, whose metric is within `max_drop`."""

    density: float
    quality: float | None
    metric: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One unit's sensitivity.

    Attributes:
        name: the initializer's key, or the group's path ("conv1.weight out 64 -> bn1 -> conv2.weight in").
        kind: "initializer" or "group".
        size: its entries, or its channels.
        points: from the densest to the sparsest.
        suggestion: None when not even the densest point is within the drop.
    """

    name: str
    kind: UnitKind
    size: int
    points: tuple[Point, ...]
    suggestion: Suggestion | None


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `onnxprune sensitivity`.

    Attributes:
        options: those of the run.
        metric: the metric's name.
        larger_is_better: whether a larger value of it is a better one.
        dense: the metric of the model as it is.
        samples: how many samples it was measured on.
        note: what was read, and what stands for labels.
        curves: one for each unit, in the order of the graph.
        tools: versions.
        seconds: wall time of the measurements of this run; those that an interrupted run left behind took none.
    """

    options: SensitivityOptions
    metric: str
    larger_is_better: bool
    dense: float
    samples: int
    note: str
    curves: tuple[Curve, ...]
    tools: Tools
    seconds: float
