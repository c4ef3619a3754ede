"""`GatherLiveInputs`: features of a graph input that no weight reads are left out by one Gather, where that pays."""

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
from ..neurons.slices import cut, cut_bits, zero_slices
from ..pipeline import Change, Skip, State
from .draft import Draft
from .near_inputs import Reader, groups_of, near_inputs, weight_readers

_WORTH_IT = 64
"""Bytes that a Gather must gain: it takes time in every run."""


@dataclass(frozen=True)
class GatherLiveInputs:
    """Where weights are zero for features (pixels, channels) of a graph input, read the others alone, through a Gather.

    The weights lose their zero columns, with their masks; a Gather with a constant index takes the live features from
    the graph input, or from what is made of it by moving, normalising or joining alone. The graph's inputs stay as they
    are. Exact for finite inputs, up to the order in which sums are rounded. Done only where it makes the file smaller,
    by 64 bytes at least, with the weights encoded as they will be. The main graph only.

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
        while True:
            found = self._next(current.model, set(refused))
            if found is None:
                break
            after = found.gathered(current)
            gain = self._nbytes(current.model) - self._nbytes(after.model) if found.may_pay() else -1
            if gain >= _WORTH_IT:
                done.append(f"{found} for {', '.join(found.keys)}, which takes {gain:,} bytes less")
                current = after
            else:
                reason = f"{found} are dead, but to leave them out would not make the file smaller"
                refused[found.place] = Skip(self.name, found.value, reason)
        if done:
            current = current.noted(Change(self.name, f"left out {'; '.join(done)}"))
        return current.noted(*refused.values(), *self._shared(current.model))

    def _next(self, model: Model, refused: set[tuple[str, int]]) -> _Features | None:
        """The next value with dead features that was not looked at yet."""
        draft = Draft(model)
        for value in near_inputs(draft):
            for readers in groups_of(draft, value):
                if (value, readers[0].axis) not in refused:
                    found = _Features(draft, value, readers)
                    if not found.live.all():
                        return found
        return None

    def _shared(self, model: Model) -> list[Skip]:
        """What is said of weights with zero columns that others read too."""
        draft, skips = Draft(model), list[Skip]()
        for value in near_inputs(draft):
            own = {reader.weight for readers in groups_of(draft, value) for reader in readers}
            for reader in weight_readers(draft, value):
                if reader.weight not in own:
                    found = _Features(draft, value, [reader])
                    if not found.live.all():
                        reason = f"{found} are dead, but '{reader.weight}' is read by other nodes too"
                        skips.append(Skip(self.name, value, reason))
        return skips

    def _nbytes(self, model: Model) -> int:
        """What `model` will take on disk."""
        encoded = encode_model(model, self.encoding, keep_inputs=self.keep_inputs, inline=self.inline)
        return file_nbytes(encoded.model)


class _Features:
    """The features of `value` that `readers` read.

    Attributes:
        value, place: the value, and with it the axis.
        live: True for a feature that a weight of a reader is not zero for; one at least.
        keys: of the weights.
    """

    def __init__(self, draft: Draft, value: str, readers: Sequence[Reader]) -> None:
        self.value, self.place = value, (value, readers[0].axis)
        self._draft, self._readers = draft, readers
        self._axes = {reader.weight: reader.in_axis for reader in readers}
        self._sources = {key: draft.before.initializers.source(key) for key in self._axes}
        self.keys = tuple(self._axes)
        self.live: BoolArray = ~np.logical_and.reduce(
            [zero_slices(source)[self._axes[key]] for key, source in self._sources.items()]
        )
        if not self.live.any():
            self.live[:1] = True

    def __str__(self) -> str:
        dead = self.live.size - int(self.live.sum())
        return f"{dead:,} of {self.live.size:,} features of '{self.value}'"

    def may_pay(self) -> bool:
        """False where the index alone takes more bytes than the dead columns do when they are stored densely."""
        columns = sum(source.size * source.dtype.itemsize for source in self._sources.values()) // self.live.size
        live = int(self.live.sum())
        return (self.live.size - live) * columns > 4 * live

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
