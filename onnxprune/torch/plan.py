"""A graph ready to run: steps over numbered slots.

Slot 0 holds None and stands for an absent input. Constants that are Hosts wait in the template; parameters, buffers
and the graph's inputs are put into their slots when a run starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from onnxprune.torch.host import Host, host_from_tensor
from onnxprune.torch.node import Node, RunState
from onnxprune.torch.registry import OpFunction

Value = Any
"""A tensor, a Host, a list (a sequence) or None (an absent value)."""

ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError)
"""What torch and Python raise inside an operator; the place is noted on them as they pass."""


@dataclass(eq=False)
class Step:
    """One node to run: what it reads and writes, slots that are free afterwards, and the dropout on its outputs.

    `dropout` maps an output's index to the probability with which an entry is zeroed while training.
    """

    node: Node
    run: OpFunction
    on_host: OpFunction | None
    host: frozenset[int]
    keep: frozenset[int]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...] = ()
    dropout: dict[int, float] | None = None

    def execute(self, values: list[Value]) -> Value:
        """Run the node on the values of its inputs; gives one value, or a tuple of them."""
        if self.on_host is not None:
            for value in values:
                if type(value) is not Host and value is not None:
                    break
            else:
                result = self.on_host(self.node, *values)
                if result is not NotImplemented:
                    return result
        for index, value in enumerate(values):
            if type(value) is Host:
                if index not in self.host and index not in self.keep:
                    values[index] = value.as_tensor(self.node.state.device)
            elif index in self.host and value is not None:
                values[index] = host_from_tensor(value)
        return self.run(self.node, *values)


@dataclass(eq=False)
class Plan:
    """A graph as steps; `inputs` are the slots of the values handed to `run`, `outputs` those of what it gives."""

    template: list[Value]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]

    def run(self, state: RunState, values: Sequence[Value]) -> list[Value]:
        """The outputs for `values`, which are in the order of `inputs`.

        Raises:
            ModelError: a node has a form that its operator does not support.
            RuntimeError and others: as torch raises them, with a note that names the node.
        """
        slots = self.template.copy()
        for slot, value in zip(self.inputs, values, strict=True):
            slots[slot] = value
        for step in self.steps:
            try:
                result = step.execute([slots[slot] for slot in step.inputs])
            except ERRORS as error:
                error.add_note(f"in {step.node}")
                raise
            if step.dropout is not None and state.training:
                result = dropped(result, step.dropout)
            if type(result) is tuple:
                for slot, value in zip(step.outputs, result, strict=False):
                    slots[slot] = value
            else:
                slots[step.outputs[0]] = result
            for slot in step.frees:
                slots[slot] = None
        return [slots[slot] for slot in self.outputs]

    def below(self) -> list[Plan]:
        """This plan and those of all bodies below it."""
        bodies = [body.plan for step in self.steps for body in step.node.bodies.values()]
        return [self, *(one for plan in bodies for one in plan.below())]


@dataclass(eq=False)
class Body:
    """A plan inside a node: `captured[i]` is where the plan's i-th input after its formal ones stands among the values
    that the node is handed.
    """

    plan: Plan
    captured: tuple[int, ...] = ()
    n_inputs: int = field(default=0)

    def run(self, state: RunState, formal: Sequence[Value], handed: Sequence[Value]) -> list[Value]:
        """The body's outputs; `handed` is all that the node was given."""
        return self.plan.run(state, [*formal, *(handed[position] for position in self.captured)])


def dropped(result: Value, probabilities: dict[int, float]) -> Value:
    """`result` with dropout on the outputs named by their indices; tensors only."""
    values = list(result) if type(result) is tuple else [result]
    for index, probability in probabilities.items():
        if index < len(values) and isinstance(values[index], torch.Tensor):
            values[index] = torch.nn.functional.dropout(values[index], probability, training=True)
    return tuple(values) if type(result) is tuple else values[0]
