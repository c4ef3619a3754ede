"""From a draft to a plan: what nobody reads goes, what is computed from constants of shape arithmetic is computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onnxprune.torch import registry
from onnxprune.torch.draft import ABSENT, UNREAD, Draft, DraftStep
from onnxprune.torch.dtypes import tensor_from_array
from onnxprune.torch.host import Host, host_from_tensor
from onnxprune.torch.plan import Body, Plan, Step

_MOVES = frozenset(
    ("Identity", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "MaxPool", "Gather")
)
"""Operators that leave quantised values what they are."""


def keep_live(draft: Draft) -> None:
    """Remove, in place, the steps and captured values that no output depends on, in bodies too."""
    needed = set(draft.outputs)
    live: list[DraftStep] = []
    for step in reversed(draft.steps):
        if not needed.isdisjoint(slot for slot in step.outputs if slot != UNREAD):
            for body in step.bodies.values():
                keep_live(body)
            live.append(step)
            needed.update(step.reads())
    draft.steps[:] = reversed(live)
    for outer, slot in list(draft.captures.items()):
        if slot not in needed:
            del draft.captures[outer]
    for slot in set(draft.constants) - needed:
        del draft.constants[slot]


def varying(draft: Draft, outside: Collection[int] | None = None) -> set[int]:
    """The slots whose values depend on an input; `outside` are those of the parent."""
    found = set(draft.inputs)
    if outside is not None:
        found.update(slot for outer, slot in draft.captures.items() if outer in outside)
    for step in draft.steps:
        if not found.isdisjoint(step.reads()):
            found.update(step.outputs)
    return found - {UNREAD}


def fold(draft: Draft, known: dict[int, Host]) -> None:
    """Compute, in place, the steps whose inputs are all in `known` and that run on Hosts; `known` grows."""
    left: list[DraftStep] = []
    for step in draft.steps:
        run = registry.host_function(step.node.domain, step.node.op_type)
        if run is None or step.bodies or not all(slot == ABSENT or slot in known for slot in step.inputs):
            left.append(step)
            continue
        result = run(step.node, *(known.get(slot) for slot in step.inputs))
        if result is NotImplemented:
            left.append(step)
            continue
        for slot, host in zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=False):
            known[slot] = Host(host.values, host.shape, host.dtype, host.as_tensor(step.node.state.device))
    draft.steps[:] = left


@dataclass(frozen=True)
class Around:
    """What a body knows of the graph around it: slots whose values depend on an input, and slots of stored tensors."""

    varies: frozenset[int]
    stored: frozenset[int]


def freeze(draft: Draft, known: dict[int, Host], around: Around | None = None) -> Plan:
    """The plan of a draft; the slots in `known` are filled, the other constants come in behind the inputs.

    The plan's inputs are the draft's own, then its captures or its constants, each in their order.
    """
    fold(draft, known)
    stored = {*known, *draft.constants}
    if around is not None:
        stored.update(slot for outer, slot in draft.captures.items() if outer in around.stored)
    inside = Around(frozenset(varying(draft, around.varies if around else None)), frozenset(stored))
    read = _read_slots(draft)
    _mark_fake(draft)
    steps = [_frozen(step, known, inside, read) for step in draft.steps]
    brought = draft.captures.values() if draft.parent is not None else draft.constants
    template: list[Host | None] = [None] * draft.n_slots
    for slot, host in known.items():
        template[slot] = host
    _free(steps, {*draft.outputs, *known})
    inputs = (*draft.inputs, *(slot for slot in brought if slot not in known))
    return Plan(list(template), inputs, tuple(draft.outputs), tuple(steps))


def plan_of_function(draft: Draft) -> Plan:
    """The plan of a function's body, all of whose constants are its own."""
    known: dict[int, Host] = {}
    for slot, constant in draft.constants.items():
        values = tensor_from_array(constant.load(None).copy(), "a constant of a function")
        known[slot] = host_from_tensor(values, keep=True)
    return freeze(draft, known)


def _frozen(step: DraftStep, known: Mapping[int, Host], inside: Around, read: set[int]) -> Step:
    node, entry = step.node, step.entry
    node.varies = not inside.varies.isdisjoint(step.reads())
    node.fixed = frozenset(index for index, slot in enumerate(step.inputs) if slot in inside.stored)
    node.wanted = tuple(slot in read for slot in step.outputs)
    inputs = list(step.inputs)
    for name, body in step.bodies.items():
        inner = {slot: known[outer] for outer, slot in body.captures.items() if outer in known}
        outer_of = {slot: outer for outer, slot in body.captures.items()}
        formal = len(body.inputs)
        plan = freeze(body, inner, inside)
        brought = [outer_of[slot] for slot in plan.inputs[formal:]]
        inputs.extend(outer for outer in dict.fromkeys(brought) if outer not in inputs[node.n_formal :])
        positions = {slot: node.n_formal + index for index, slot in enumerate(inputs[node.n_formal :])}
        node.bodies[name] = Body(plan, tuple(positions[outer] for outer in brought), formal)
    on_host = registry.host_function(node.domain, node.op_type) if not entry.own else None
    return Step(node, entry.run, on_host, entry.host, entry.keep, tuple(inputs), tuple(step.outputs))


def _read_slots(draft: Draft) -> set[int]:
    read = set(draft.outputs)
    for step in draft.steps:
        read.update(step.reads())
    return read


def _free(steps: list[Step], kept: set[int]) -> None:
    """Note on each step the slots that nothing behind it reads."""
    seen = {ABSENT, *kept}
    for step in reversed(steps):
        mentioned = {*step.inputs, *step.outputs}
        step.frees = tuple(sorted(mentioned - seen))
        seen |= mentioned - {UNREAD}


def _mark_fake(draft: Draft) -> None:
    """Let each QuantizeLinear whose steps end in DequantizeLinear alone keep them as floating point numbers."""
    readers: dict[int, list[tuple[DraftStep, int]]] = {}
    for step in draft.steps:
        for slot in step.reads():
            readers.setdefault(slot, []).append((step, step.inputs.index(slot) if slot in step.inputs else -1))

    def ends(slot: int) -> bool:
        found = readers.get(slot, [])
        if slot in draft.outputs or not found:
            return False
        for step, index in found:
            if step.node.op_type == "DequantizeLinear" and index == 0:
                continue
            if step.node.op_type not in _MOVES or index != 0 or step.node.domain or len(step.inputs) > 2:
                return False
            if not all(ends(output) for output in step.outputs if output in readers or output in draft.outputs):
                return False
        return True

    for step in draft.steps:
        if step.node.op_type == "QuantizeLinear":
            step.node.fake = ends(step.outputs[0])
