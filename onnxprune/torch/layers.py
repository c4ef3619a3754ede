"""Which weights stand behind the values of a module, and behind its other parameters.

A value's layer is found by walking backwards from the step that makes it to the nearest steps that read a weight: from
a Relu over the Add of a bias to the MatMul, from a residual sum to the last weight of both branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxprune.torch.assign import LATENT, PARAMETER, TensorRow
from onnxprune.torch.escape import key_from_name
from onnxprune.torch.host import Host
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.plan import Plan, Step

_WEIGHT_ROLES = (" weight", "Einsum operand")
_CONVOLUTIONS = ("Conv ", "ConvTranspose ", "FusedConv ", "DeformConv ")

Slot = tuple[int, int]
"""A slot of one of the plans: the plan's id and the slot's number."""


def is_weight(row: TensorRow) -> bool:
    """Whether a tensor is the weight of a Conv, Gemm, MatMul, Einsum or recurrent network, and a parameter."""
    return row.kind in (PARAMETER, LATENT) and any(role.endswith(_WEIGHT_ROLES) for role in row.roles)


def is_convolution(row: TensorRow) -> bool:
    """Whether a tensor is the weight or bias of a convolution."""
    return any(role.startswith(_CONVOLUTIONS) for role in row.roles)


@dataclass(frozen=True, eq=False)
class _Made:
    """A step and the plan that it is in."""

    step: Step
    plan: Plan


class Layers:
    """The weights of a module by the values that they make.

    Made once for a module: it reads the plan, not the parameters.
    """

    def __init__(self, module: OnnxModule) -> None:
        self._rows = {row.key: row for row in module.rows if row.key}
        self._made: dict[Slot, _Made] = {}
        self._outside: dict[Slot, Slot] = {}
        self._tensors: dict[Slot, str] = {}
        self._plan_of: dict[int, Plan] = {}
        bound = [key_from_name(one.name) for one in module.bound if one.is_parameter]
        slots = module.plan.inputs[len(module.plan.inputs) - len(module.bound) :]
        own = [slot for slot, one in zip(slots, module.bound, strict=True) if one.is_parameter]
        self._tensors.update({(id(module.plan), slot): key for slot, key in zip(own, bound, strict=True)})
        self._bound = {(id(module.plan), slot) for slot in slots}
        self._hosts: dict[Slot, Host] = {}
        self._read(module.plan)

    def behind(self, step: Step) -> tuple[str, ...]:
        """The keys of the nearest weights behind the outputs of a step, itself included; none for an input."""
        found: dict[str, None] = {}
        waiting = [_Made(step, self._plan_of[id(step)])]
        seen: set[int] = set()
        while waiting:
            made = waiting.pop()
            if id(made.step) in seen:
                continue
            seen.add(id(made.step))
            own = [key for key in self._constants(made) if is_weight(self._rows[key])]
            if own:
                found.update(dict.fromkeys(own))
            else:
                waiting.extend(self._sources(made))
        return tuple(found)

    def readers(self, key: str) -> tuple[Step, ...]:
        """The steps that depend on an input and read a tensor, over steps that only combine constants too."""
        return tuple(made.step for made in self._all() if made.step.node.varies and key in set(self._constants(made)))

    def number(self, step: Step, index: int) -> float | None:
        """The input `index` of a step where the file stores it as a small number; None where it is computed."""
        slot = id(self._plan_of[id(step)]), step.inputs[index]
        while slot in self._outside:
            slot = self._outside[slot]
        return float(self._hosts[slot].item) if slot in self._hosts else None

    def bias_behind(self, step: Step) -> Step | None:
        """The Add of a constant that alone reads the output of a step; None where something else does."""
        plan = self._plan_of[id(step)]
        readers = [one for one in plan.steps if step.outputs[0] in one.inputs]
        if len(readers) != 1 or readers[0].node.op_type != "Add" or step.outputs[0] in plan.outputs:
            return None
        others = [slot for slot in readers[0].inputs if slot != step.outputs[0]]
        return readers[0] if others and not any(self._varies((id(plan), slot)) for slot in others) else None

    def _varies(self, slot: Slot) -> bool:
        """Whether a value depends on an input of the model; the formal inputs of bodies do."""
        while slot in self._outside:
            slot = self._outside[slot]
        below = self._made.get(slot)
        return slot not in self._bound and slot not in self._hosts and (below is None or below.step.node.varies)

    def _all(self) -> Iterator[_Made]:
        seen: set[int] = set()
        for made in self._made.values():
            if id(made.step) not in seen:
                seen.add(id(made.step))
                yield made

    def _read(self, plan: Plan) -> None:
        self._hosts.update({(id(plan), slot): one for slot, one in enumerate(plan.template) if isinstance(one, Host)})
        for step in plan.steps:
            self._plan_of[id(step)] = plan
            for slot in step.outputs:
                self._made[id(plan), slot] = _Made(step, plan)
            for body in step.node.bodies.values():
                for slot, position in zip(body.plan.inputs[body.n_inputs :], body.captured, strict=True):
                    self._outside[id(body.plan), slot] = (id(plan), step.inputs[position])
                self._read(body.plan)

    def _constants(self, made: _Made) -> Iterator[str]:
        """The keys of the parameters that a step reads, over steps that combine constants."""
        waiting = [(id(made.plan), slot) for slot in made.step.inputs]
        while waiting:
            slot = waiting.pop()
            while slot in self._outside:
                slot = self._outside[slot]
            if slot in self._tensors:
                yield self._tensors[slot]
            elif (below := self._made.get(slot)) is not None and not below.step.node.varies:
                waiting.extend((id(below.plan), one) for one in below.step.inputs)

    def _sources(self, made: _Made) -> Iterator[_Made]:
        """The steps that make what a step reads, those inside its bodies included."""
        places = [(id(made.plan), slot) for slot in made.step.inputs]
        for body in made.step.node.bodies.values():
            places.extend((id(body.plan), slot) for slot in body.plan.outputs)
        for slot in places:
            while slot in self._outside:
                slot = self._outside[slot]
            if (below := self._made.get(slot)) is not None and below.step.node.varies:
                yield below
