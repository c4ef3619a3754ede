"""`GatherLiveInputs`: features of a value that no weight reads are left out by one Gather, where that pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from ..arrays import Array, Masked, NDArray
from ..encode import encode_model, file_nbytes
from ..encode.plan import Encoding
from ..masks import BoolArray, Masks
from ..model import Model
from ..neurons.slices import ZeroSlices, cut, cut_bits
from ..pipeline import Change, Skip, State
from .draft import Draft
from .known import Known
from .near_inputs import near_inputs
from .readers import Reader, groups_of, saves_bytes, saves_time, weight_readers

_WORTH_IT = 64
"""Bytes that a Gather must gain: it takes time in every run."""
_NOT_SMALLER = "to leave them out would not make the file smaller"


@dataclass(frozen=True)
class GatherLiveInputs:
    """Where weights are zero for features (pixels, channels) of a value, read the others alone, through a Gather.

    The weights lose their zero columns, with their masks; a Gather with a constant index takes the live features from
    the value. What makes it, and who else reads it, stay as they are: this is for features that something keeps where
    they are made, graph inputs first of all; others go with `RemoveDeadNeurons`, which is to run before. Exact for
    finite values, up to the order in which sums are rounded. Done only where it makes the file smaller, by 64 bytes at
    least, with the weights encoded as they will be (but for the form that leaves dead columns out of what is stored
    alone, see `encode_model`), and, within the graph, where it is likely to take no longer. The main graph only.

    Left alone: weights that are computed or quantised, or that others read too; convolutions in groups.

    Attributes:
        encoding: how the model will be stored, as for `encode_model`.
        keep_inputs, inline: likewise.
    """

    encoding: Encoding = "auto"
    keep_inputs: bool = False
    inline: bool = False

    @property
    def name(self) -> str:
        """The pass's name in logs, reports and recipes."""
        return "gather-live-inputs"

    def __call__(self, state: State) -> State:
        """The state with such a Gather wherever it pays; the same object when it does nowhere and nothing is new.

        Raises:
            EncodeError: the encoding is unknown.
        """
        if state.model.skeleton.training_info:
            return state.noted(Skip(self.name, "the graph", "it holds training graphs, which would no longer fit"))
        current, done, refused = state, list[str](), dict[tuple[str, int], Skip]()
        zeros = ZeroSlices()
        while True:
            found = _next(current.model, set(refused), zeros)
            if found is None:
                break
            reason = found.refusal()
            if not reason:
                after = found.gathered(current)
                gain = self._nbytes(current.model) - self._nbytes(after.model)
                if gain >= _WORTH_IT:
                    done.append(f"{found} for {', '.join(found.keys)}, which takes {gain:,} bytes less")
                    current = after
                    continue
                reason = _NOT_SMALLER
            refused[found.place] = Skip(self.name, found.value, f"{found} are dead, but {reason}")
        if done:
            current = current.noted(Change(self.name, f"left out {'; '.join(done)}"))
        return current.noted(*refused.values(), *self._shared(current.model, zeros))

    def _shared(self, model: Model, zeros: ZeroSlices) -> list[Skip]:
        """What is said of weights with zero columns that others read too."""
        draft, skips = Draft(model), list[Skip]()
        for value in near_inputs(draft):
            own = {reader.weight for readers in groups_of(draft, value) for reader in readers}
            for reader in weight_readers(draft, value):
                if reader.weight not in own:
                    found = _Features(draft, value, [reader], zeros)
                    if not found.live.all():
                        reason = f"{found} are dead, but '{reader.weight}' is read by other nodes too"
                        skips.append(Skip(self.name, value, reason))
        return skips

    def _nbytes(self, model: Model) -> int:
        """What `model` will take on disk."""
        encoded = encode_model(model, self.encoding, keep_inputs=self.keep_inputs, inline=self.inline, live=False)
        return file_nbytes(encoded.model)


def _next(model: Model, refused: set[tuple[str, int]], zeros: ZeroSlices) -> _Features | None:
    """The next value with dead features that was not looked at yet: those near graph inputs first."""
    draft = Draft(model)
    near = near_inputs(draft)
    within = [name for name in draft.main.made if draft.key(draft.main, name) is None]
    for value in dict.fromkeys((*near, *within)):
        for readers in groups_of(draft, value):
            if (value, readers[0].axis) not in refused:
                found = _Features(draft, value, readers, zeros, within=value not in near)
                if not found.live.all():
                    return found
    return None


class _Features:
    """The features of `value` that `readers` read.

    Attributes:
        value, place: the value, and with it the axis.
        live: True for a feature that a weight of a reader is not zero for; one at least.
        keys: of the weights.
    """

    def __init__(
        self, draft: Draft, value: str, readers: Sequence[Reader], zeros: ZeroSlices, *, within: bool = False
    ) -> None:
        self.value, self.place = value, (value, readers[0].axis)
        self._within = within
        self._draft, self._readers = draft, readers
        self._axes = {reader.weight: reader.in_axis for reader in readers}
        self._sources = {key: draft.before.initializers.source(key) for key in self._axes}
        self.keys = tuple(self._axes)
        self.live: BoolArray = ~np.logical_and.reduce(
            [zeros.of(source)[self._axes[key]] for key, source in self._sources.items()]
        )
        if not self.live.any():
            self.live[:1] = True

    def __str__(self) -> str:
        dead = self.live.size - int(self.live.sum())
        return f"{dead:,} of {self.live.size:,} features of '{self.value}'"

    def refusal(self) -> str:
        """Why a Gather cannot pay, as far as that is known before the model with it is encoded; '' when it may."""
        live = int(self.live.sum())
        dead = self.live.size - live
        if self._earlier() is not None:
            return ""
        model, main = self._draft.before, self._draft.main
        if not saves_bytes(model, self._readers, dead, live):
            return _NOT_SMALLER
        slow = self._within and not saves_time(model, Known(model).dims(main, self.value), self._readers, dead, live)
        return "a copy of the others would likely take longer" if slow else ""

    def gathered(self, before: State) -> State:
        """`before` with the weights cut, and a Gather for them. To be called once."""
        weights = {key: cut(source, {self._axes[key]: self.live}) for key, source in self._sources.items()}
        self._insert()
        model = self._draft.model().with_initializers(weights)
        return replace(before, model=model, masks=self._cut_masks(before.masks, weights))

    def _cut_masks(self, masks: Masks, weights: dict[str, Array | Masked]) -> Masks:
        for key, weight in weights.items():
            if key in masks:
                bits = cut_bits(masks.bits(key), self._sources[key].shape, {self._axes[key]: self.live})
                masks = masks.with_bits({key: (bits, weight.shape)})
        return masks

    def _insert(self) -> None:
        """Put a Gather before the readers, or give the one of an earlier run other positions."""
        draft, main, earlier = self._draft, self._draft.main, self._earlier()
        positions = np.flatnonzero(self.live) if earlier is None else earlier[1][self.live]
        index = draft.add_constant(main, f"{self.value}.live_positions", positions.astype(np.int32))
        if earlier is not None:
            old = earlier[0].input[1]
            draft.set_input(main, earlier[0], 1, index)
            draft.drop_unread(main, [old])
            return
        output, axis = draft.free_name(f"{self.value}.live"), self._readers[0].axis
        node = helper.make_node("Gather", [self.value, index], [output], f"{self.value}.gather", axis=axis)
        readers = {id(reader.node) for reader in self._readers}
        draft.insert(main, node, next(node for node in main.nodes if id(node) in readers))
        for reader in self._readers:
            draft.set_input(main, reader.node, reader.index, output)

    def _earlier(self) -> tuple[onnx.NodeProto, NDArray] | None:
        """The Gather of an earlier run that makes the value for these readers alone, and its positions."""
        draft, main = self._draft, self._draft.main
        node = main.made.get(self.value)
        if node is None or node.op_type != "Gather":
            return None
        axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
        positions = draft.constant(main, node.input[1])
        readers = {id(reader.node) for reader in self._readers}
        alone = all(id(read.node) in readers for read in main.readers(self.value))
        own = len(main.readers(node.input[1])) == 1 and axis == self._readers[0].axis
        return (node, positions) if positions is not None and positions.ndim == 1 and alone and own else None
