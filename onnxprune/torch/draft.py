"""A graph on its way to a plan: what it reads is known by number, what is constant by key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.model import Model

from onnxprune.torch.node import Node
from onnxprune.torch.registry import Entry

ABSENT, UNREAD = 0, 1
"""The slot of absent inputs, and the one that outputs nobody reads are written to."""


@dataclass(eq=False)
class Constant:
    """A stored tensor: `key` in `Model.initializers`, or values of its own (a TensorProto or an array)."""

    key: str | None
    own: onnx.TensorProto | onnx.SparseTensorProto | NDArray[Any] | None = None

    def load(self, model: Model | None) -> NDArray[Any]:
        """The values; a read-only view where the file is mapped."""
        if self.key is not None and model is not None and self.key in model.initializers:
            return model.initializers[self.key]
        if isinstance(self.own, np.ndarray):
            return self.own
        if isinstance(self.own, onnx.SparseTensorProto):
            return dense_from_sparse(self.own)
        if self.own is None:
            raise ModelError(f"tensor {self.key!r} is not in the model any more: make the module from the model again")
        return np.asarray(numpy_helper.to_array(self.own))


@dataclass(eq=False)
class DraftStep:
    """A node with the slots it reads and writes; `bodies` are its graphs, `captured` the slots that they need."""

    node: Node
    entry: Entry
    inputs: list[int]
    outputs: list[int]
    bodies: dict[str, Draft] = field(default_factory=dict)

    def reads(self) -> Iterator[int]:
        """The slots it reads, for itself and for its bodies."""
        yield from self.inputs
        for body in self.bodies.values():
            yield from body.captures


@dataclass(eq=False)
class Draft:
    """One graph or body.

    Attributes:
        parent: the graph around it; None for the main graph and for the body of a schema function.
        steps: its nodes, functions unfolded.
        inputs, outputs: slots of its formal inputs and outputs.
        captures: slot of the parent → slot here.
        constants: slot → stored tensor (of the main graph only: bodies capture them).
    """

    parent: Draft | None = None
    steps: list[DraftStep] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    captures: dict[int, int] = field(default_factory=dict)
    constants: dict[int, Constant] = field(default_factory=dict)
    n_slots: int = 2
    _by_key: dict[str, int] = field(default_factory=dict)

    def new_slot(self) -> int:
        """A slot that nothing uses yet."""
        self.n_slots += 1
        return self.n_slots - 1

    def capture(self, outer: int) -> int:
        """The slot here of the parent's slot `outer`."""
        if outer == ABSENT:
            return ABSENT
        if outer not in self.captures:
            self.captures[outer] = self.new_slot()
        return self.captures[outer]

    def constant(self, constant: Constant) -> int:
        """The slot of a stored tensor; equal keys share one."""
        if self.parent is not None:
            return self.capture(self.parent.constant(constant))
        if constant.key is not None and constant.key in self._by_key:
            return self._by_key[constant.key]
        slot = self.new_slot()
        self.constants[slot] = constant
        if constant.key is not None:
            self._by_key[constant.key] = slot
        return slot

    def drafts(self) -> Iterator[Draft]:
        """This one and every body below it."""
        yield self
        for step in self.steps:
            for body in step.bodies.values():
                yield from body.drafts()


def dense_from_sparse(sparse: onnx.SparseTensorProto) -> NDArray[Any]:
    """The dense array of a sparse tensor, whose indices are linear [NNZ] or coordinates [NNZ, rank]."""
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 2:
        dense[tuple(indices.T)] = values
    else:
        dense.reshape(-1)[indices] = values
    return dense
