"""Channels that stay where they are made, and the weights that can do without some of them.

A hidden unit whose state is a graph output must be computed, but the next layer need not read it: the columns of that
layer's weight go, and one Gather (`GatherLiveInputs`) takes the channels that are left. Each value has a choice of its
own, since what makes its channels loses none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .fold.draft import Draft
from .fold.known import Dims, Known
from .fold.near_inputs import near_inputs
from .fold.readers import Reader, groups_of, saves_bytes, saves_time
from .model import Model
from .neurons.classes import Ids
from .neurons.coupled import CoupledGroup, Coupling
from .neurons.slices import ZeroSlices
from .neurons.strength import Floats, Norm, Reduce, strengths_along

BoolArray = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Columns:
    """What weights read along one axis of a value of the main graph.

    Attributes:
        value, dims: its name, and its shape as far as it is known.
        readers: the nodes that read it along that axis; no others read their weights.
        size: how long the axis is.
        places: where along it its channels stay where they are made, ascending: int64 [n].
        pinned_by: what keeps the first of them.
    """

    value: str
    dims: Dims | None
    readers: tuple[Reader, ...]
    size: int
    places: Places
    pinned_by: str

    @property
    def axes(self) -> dict[str, int]:
        """The keys of the weights, each with the axis that is summed over."""
        return {reader.weight: reader.in_axis for reader in self.readers}

    def strengths(self, model: Model, norm: Norm, reduce: Reduce) -> Floats:
        """The norm of what the weights have at each place: float64 [n]."""
        sources = [(model.initializers.source(key), axis) for key, axis in self.axes.items()]
        return strengths_along(sources, norm, reduce)[self.places]

    def read(self, gone: int) -> str:
        """How many channels are read when `gone` are not, and what keeps them."""
        some = f"{self.size - gone} of {self.size}" if gone else f"all {self.size}"
        return f"reads {some} channels of '{self.value}' ({self.pinned_by})"

    def can_do_without(self, model: Model, count: int) -> bool:
        """True where it takes fewer bytes, and likely no more time, to read `count` channels less."""
        counts = count, self.size - count
        return saves_bytes(model, self.readers, *counts) and saves_time(model, self.dims, self.readers, *counts)


def find_columns(found: Coupling, staying: Sequence[CoupledGroup], keys: Collection[str]) -> list[Columns]:
    """The columns of the weights `keys` that read channels of the groups `staying`, in the order of the graph.

    Not those that read graph inputs, or what is made of them without weights: that is given, not made.
    """
    model = found.trace.graph.model
    draft, known = Draft(model), Known(model)
    near = set(near_inputs(draft))
    reasons = {one: str(group.pinned_by) for group in staying for one in group.channels.tolist()}
    every: list[Columns] = []
    for value in (name for name in draft.main.made if name not in near):
        for readers in groups_of(draft, value):
            ids = _ids_along(found, value, readers[0].axis)
            if ids is None or not {reader.weight for reader in readers} <= set(keys):
                continue
            why = [reasons.get(int(found.label[one])) if one >= 0 else None for one in ids]
            places = np.flatnonzero([one is not None for one in why])
            if places.size:
                dims = known.dims(draft.main, value)
                every.append(Columns(value, dims, tuple(readers), ids.size, places, str(why[places[0]])))
    return every


def _ids_along(found: Coupling, value: str, axis: int) -> Ids | None:
    """The ids of the channels of `value`: int64 [n]; None where it has none along `axis`, or along another one too."""
    flow = found.trace.flows.get(value)
    if flow is None or flow.axes != (axis % flow.rank,):
        return None
    return flow.ids.reshape(-1)


def keeps_without_columns(
    model: Model, chosen: Sequence[tuple[Columns, Places]], zeros: ZeroSlices
) -> dict[str, BoolArray]:
    """Masks that prune weights at the chosen places along their axes; none for weights that are zero there."""
    keeps: dict[str, BoolArray] = {}
    for columns, places in chosen:
        for key, axis in columns.axes.items():
            source = model.initializers.source(key)
            if not zeros.of(source)[axis][places].all():
                keep = keeps.setdefault(key, np.ones(source.shape, np.bool_))
                np.moveaxis(keep, axis, 0)[places] = False
    return keeps
