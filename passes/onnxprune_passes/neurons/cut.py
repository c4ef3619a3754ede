"""Take the decided neurons out: tensors lose slices, nodes that name sizes are rewritten, value_infos follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from ..arrays import Array, Masked, NDArray
from ..masks import Masks
from ..model import Model
from ..storage.keys import first_output
from .bodies import graphs
from .classes import Ids
from .decide import Decision
from .graph import Node
from .rewire import BEHIND, INITIALIZERS_ALONE, New, rewire
from .slices import BoolArray, cut, cut_bits
from .trace import Trace

if TYPE_CHECKING:
    from .rule import Rules


class Cut:
    """One removal under way: what rules' `rewrite` functions ask and order."""

    def __init__(self, trace: Trace, decision: Decision) -> None:
        self.trace = trace
        self.graph = trace.graph
        self._decision = decision
        self._kept: dict[str, dict[int, BoolArray]] = {}
        self._inputs: dict[tuple[str, int], NDArray] = {}
        self._attributes: dict[int, dict[str, float | Sequence[int] | None]] = {}
        self._dropped: set[tuple[int, int]] = set()
        self._types: dict[int, str] = {}
        self._behind: list[New] = []

    # what rewrites ask

    def keep(self, value: str) -> dict[int, BoolArray]:
        """For each axis of `value` that gets shorter: True where a slice stays."""
        if value not in self._kept:
            const, flow = self.trace.constant(value), self.trace.flows.get(value)
            if const is not None:
                kept = self.kept_of_tensor(const.key)
                self._kept[value] = {
                    axis: const.spread(kept[own], axis) for axis, own in enumerate(const.axes) if own in kept
                }
            else:
                self._kept[value] = {} if flow is None else self.keep_of(flow.ids)
        return self._kept[value]

    def exact(self, value: str) -> NDArray | None:
        """The values of `value` when it is a small constant."""
        return self.trace.exact(value)

    def rank(self, value: str) -> int:
        """The number of axes of a value that carries neurons."""
        return self.trace.flow(value).rank

    def size(self, value: str, axis: int) -> int:
        """The size of an axis of `value` after the removal; of one that carries neurons, or is known."""
        keep = self.keep(value).get(axis)
        if keep is not None:
            return int(keep.sum())
        dim = (self.trace.dims(value) or ())[axis]
        return dim if isinstance(dim, int) else self.trace.flow(value).ids.shape[axis]

    # what rewrites order

    def set_input(self, node: Node, index: int, values: NDArray) -> None:
        """Let input `index` of `node` be this constant; other readers of the old one keep theirs."""
        old = self.exact(node.input(index))
        if old is None or not np.array_equal(old, values):
            dtype = self.graph.dtype(node.input(index)) or values.dtype
            self._inputs[first_output(node.proto), index] = np.asarray(values, dtype)

    def set_attribute(self, node: Node, name: str, value: float | Sequence[int]) -> None:
        """Give `node` an attribute, or another value of one."""
        self._attributes.setdefault(node.index, {})[name] = value

    def drop_attribute(self, node: Node, name: str) -> None:
        """Take an attribute from `node`, if it has it."""
        self._attributes.setdefault(node.index, {})[name] = None

    def drop_input(self, node: Node, index: int) -> None:
        """Leave an optional input of `node` out."""
        self._dropped.add((node.index, index))

    def divide(self, node: Node, op_type: str, divisor: NDArray) -> None:
        """Let `node` be an `op_type`, its first output divided by a constant."""
        self._types[node.index] = op_type
        self._behind.append(New(first_output(node.proto), BEHIND, divisor, "count", "Div"))

    # doing it

    def run(self, rules: Rules, masks: Masks) -> tuple[Model, Masks]:
        """The model and the masks after the removal, constants not folded yet."""
        self._freeze()
        for node in self.graph.nodes:
            rule = rules.get((node.domain, node.op_type))
            if (
                rule is not None
                and rule.rewrite is not None
                and any(map(self.keep, (*node.proto.input, *node.proto.output)))
            ):
                rule.rewrite(self, node)
        sources, masks = self._tensors(masks)
        new = list(self._behind)
        for (output, index), values in self._inputs.items():
            name = self._own_tensor(output, index)
            if name is None:
                new.append(New(output, index, values, "sizes"))
            else:
                sources[name] = Array(values)
        model = self.graph.model.with_initializers(sources)
        return rewire(self._patched(model), new), masks

    def _freeze(self) -> None:
        """Let readers of what was computed from the size of an axis that gets shorter have the value it had."""
        for name, sizes in self.trace.frozen.items():
            if not any(self._decision.gone(self.trace.dim_axes[size]).any() for size in sizes):
                continue
            for node, index in self.graph.readers.get(name, ()):
                if not set(node.proto.output) <= set(self.trace.frozen):
                    self._inputs[first_output(node.proto), index] = self.trace.flow(name).values

    def kept_of_tensor(self, key: str) -> dict[int, BoolArray]:
        """For each axis of the tensor `key` that gets shorter: True where a slice stays."""
        keeps: dict[int, BoolArray] = {}
        for (other, axis), ids in self.trace.bases.items():
            if other == key:
                gone = self._decision.gone(ids)
                if gone.any():
                    keeps[axis] = ~gone
        return keeps

    def _tensors(self, masks: Masks) -> tuple[dict[str, Array | Masked], Masks]:
        sources: dict[str, Array | Masked] = {}
        for key in dict.fromkeys(key for key, _ in self.trace.bases):
            keeps = self.kept_of_tensor(key)
            if not keeps:
                continue
            before = self.graph.model.initializers.source(key)
            after = cut(before, keeps)
            sources[key] = after
            if key in masks:
                same = isinstance(before, Masked) and isinstance(after, Masked) and before.bits is masks.bits(key)
                bits = (
                    after.bits if same and isinstance(after, Masked) else cut_bits(masks.bits(key), before.shape, keeps)
                )
                masks = masks.with_bits({key: (bits, after.shape)})
        return sources, masks

    def keep_of(self, ids: Ids) -> dict[int, BoolArray]:
        """For each axis of an array of ids that gets shorter: True where a slice stays."""
        gone = self._decision.gone(ids)
        keeps: dict[int, BoolArray] = {}
        for axis in range(ids.ndim):
            along: BoolArray = np.asarray(gone.all(axis=tuple(one for one in range(ids.ndim) if one != axis)))
            if ids.shape[axis] > 1 and along.any():
                keeps[axis] = ~along
        return keeps

    def _own_tensor(self, output: str, index: int) -> str | None:
        """The tensor at that input when no one else reads it, so that it can be changed in place."""
        name = next(
            node.proto.input[index] if index < len(node.proto.input) else ""
            for node in self.graph.nodes
            if output in node.proto.output
        )
        interface = set(self.graph.outputs)
        if self.graph.model.skeleton.ir_version >= INITIALIZERS_ALONE:
            interface.update(value.name for value in self.graph.model.graph.input)
        alone = name in self.graph.model.initializers and len(self.graph.readers.get(name, ())) == 1
        return name if alone and name not in interface else None

    def _patched(self, model: Model) -> Model:
        """`model` with the ordered attributes, and value_infos that tell the new sizes."""
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(model.skeleton)
        for index, attributes in self._attributes.items():
            node = self.graph.nodes[index].placed.of(skeleton)
            kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
            given = [helper.make_attribute(name, value) for name, value in attributes.items() if value is not None]
            del node.attribute[:]
            node.attribute.extend([*kept, *given])
        for index, op_type in self._types.items():
            self.graph.nodes[index].placed.of(skeleton).op_type = op_type
        for index, place in self._dropped:
            names = self.graph.nodes[index].placed.of(skeleton).input
            names[place] = ""
            while names and not names[-1]:
                names.pop()
        for prefix, graph in graphs(skeleton.graph):
            for value in (*graph.value_info, *(graph.output if prefix else ())):
                for axis, keep in self.keep(prefix + value.name).items():
                    dims = value.type.tensor_type.shape.dim
                    if axis < len(dims):
                        dims[axis].dim_value = int(keep.sum())
        return model.with_skeleton(skeleton)
