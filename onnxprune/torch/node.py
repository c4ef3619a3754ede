"""What an operator's function is given besides its inputs: attributes, the node's place, how the module runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from onnxprune_passes.errors import ModelError

if TYPE_CHECKING:
    from onnxprune.torch.plan import Body


@dataclass(eq=False)
class RunState:
    """What holds for one run of a module; shared by all of its nodes.

    Attributes:
        device: where tensors are made.
        training: whether the module is in training mode.
        batch_norm: `frozen` (statistics of the file) or `train` (those of the batch, while training).
        momentum: the share of a batch in the statistics while they train; None takes each node's own.
        group: the processes over whose batches statistics are computed; None for those of this process alone.
        batch_factor: the batch that runs over the batch the file declares; 1 unless that one is static and differs.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    training: bool = False
    batch_norm: str = "frozen"
    momentum: float | None = None
    group: Any = None
    batch_factor: int = 1


@dataclass(eq=False)
class Node:
    """One node of the graph, its attributes decoded.

    Attributes:
        domain, op_type, name: as in the file; `name` is the first output where the node has none.
        opset: the version of its domain that counts here.
        attributes: name → Python number, str, list, or tensor.
        n_outputs: how many outputs the node lists, absent ones in front of present ones counted.
        wanted: whether each of them is read.
        state: how the module runs.
        bodies: name of a graph attribute → what runs it.
        n_formal: how many of the values handed over are inputs of the node; values that bodies capture follow.
        varies: whether its value depends on an input of the model.
        fixed: the inputs that are constants.
        fake: a QuantizeLinear whose steps stay floating point, so that a gradient passes.
    """

    domain: str
    op_type: str
    name: str
    opset: int
    attributes: Mapping[str, Any]
    n_outputs: int
    state: RunState
    wanted: tuple[bool, ...] = ()
    bodies: dict[str, Body] = field(default_factory=dict)
    n_formal: int = 0
    varies: bool = True
    fixed: frozenset[int] = frozenset()
    fake: bool = False

    def __str__(self) -> str:
        prefix = f"{self.domain}::" if self.domain else ""
        return f"{prefix}{self.op_type} node {self.name!r}"

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value: int = self.attributes.get(name, default)
        return value

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        value: float = self.attributes.get(name, default)
        return value

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value: str = self.attributes.get(name, default)
        return value

    def ints(self, name: str) -> list[Any] | None:
        """A list of integers; None when the attribute is absent."""
        return self.attributes.get(name)

    def wants(self, index: int) -> bool:
        """Whether output `index` is read."""
        return index < len(self.wanted) and self.wanted[index]

    def refuse(self, what: str) -> ModelError:
        """The error for a form of the operator that is not supported; the caller raises it."""
        return ModelError(f"{self} (opset {self.opset}): {what}; give an implementation with register_op")

    def only(self, name: str, allowed: Sequence[Any], default: Any) -> Any:
        """An attribute that must be one of `allowed`. Raises ModelError when it is not."""
        value = self.attributes.get(name, default)
        if value not in allowed:
            raise self.refuse(f"{name} = {value!r} is not supported, only {', '.join(map(repr, allowed))}")
        return value
