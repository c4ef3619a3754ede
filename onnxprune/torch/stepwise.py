"""Every node on onnxruntime's own values, for models that amplify rounding.

A deep or quantised model can turn a difference of one unit in the last place into a large one. Then the outputs of two
correct runtimes differ, and so do those of one runtime at two levels of optimisation. What can still be compared is
every node on its own: the module's plan is run, and each value that onnxruntime knows is compared and then replaced by
onnxruntime's, so that no difference is carried on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from onnxprune.torch.dtypes import array_from_tensor, tensor_from_array
from onnxprune.torch.host import Host
from onnxprune.torch.plan import Body, Plan, Step
from onnxprune.verify import Reference, compare_references

if TYPE_CHECKING:
    from onnxprune.torch.module import OnnxModule


def comparable_values(module: OnnxModule) -> tuple[str, ...]:
    """The values of the main graph that the module computes, in no particular order."""
    own = {id(step) for step in module.plan.steps}
    return tuple(key for key, (step, _) in module.values.items() if id(step) in own)


def differences(
    module: OnnxModule, inputs: Sequence[torch.Tensor], expected: Mapping[str, NDArray[Any]], precision: str
) -> tuple[str, ...]:
    """What differs, one line a value, when every node runs on onnxruntime's values; empty when all is well.

    Args:
        module: in eval mode.
        inputs: its inputs.
        expected: name of a value → what onnxruntime computed.
        precision: as for `onnxprune.verify.Comparison.failures`.
    """
    plan, state, slots = module.prepared(inputs)
    known = {step.outputs[index]: key for key, (step, index) in module.values.items() if key in expected}
    problems: list[str] = []
    with torch.no_grad():
        for step in plan.steps:
            result = step.execute([slots[slot] for slot in step.inputs])
            values = result if type(result) is tuple else (result,)
            for slot, value in zip(step.outputs, values, strict=False):
                slots[slot] = value
                if slot in known and isinstance(value, (torch.Tensor, Host)):
                    array = expected[known[slot]]
                    problems += _problems(f"{step.node}", value, array, precision, _is_bounded(plan, slot))
                    if isinstance(value, torch.Tensor):
                        slots[slot] = tensor_from_array(np.array(array), known[slot]).to(state.device, value.dtype)
    return tuple(problems)


_BOUNDED = frozenset(("Sigmoid", "Tanh", "Softmax", "HardSigmoid", "Erf"))
"""Functions into [-1, 1]: onnxruntime's approximate ones are exact to 1e-7 of that range, not of a value near 0."""
_KEEP_RANGE = frozenset(("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "ReduceMean", "Slice"))


def _is_bounded(plan: Plan, slot: int, around: tuple[Plan, Step, Body] | None = None) -> bool:
    """Whether a slot is made by such a function, possibly moved, averaged or handed through the branches of an If;
    `around` is the graph around a body, the node that holds it, and the body.
    """
    for step in plan.steps:
        if slot in step.outputs:
            if step.node.op_type in _KEEP_RANGE:
                return _is_bounded(plan, step.inputs[0], around)
            if step.node.op_type != "If":
                return step.node.op_type in _BOUNDED
            at = step.outputs.index(slot)
            bodies = step.node.bodies.values()
            return all(_is_bounded(body.plan, body.plan.outputs[at], (plan, step, body)) for body in bodies)
    if around is None or slot not in plan.inputs:
        return False
    outer, holder, body = around
    position = plan.inputs.index(slot) - body.n_inputs
    return position >= 0 and _is_bounded(outer, holder.inputs[body.captured[position]])


def _problems(
    where: str, found: torch.Tensor | Host, expected: NDArray[Any], precision: str, bounded: bool
) -> list[str]:
    array = array_from_tensor(found.as_tensor(torch.device("cpu")) if isinstance(found, Host) else found)
    if array.shape == expected.shape and expected.dtype.kind in "iu" and array.dtype.kind == "f":
        array = array.astype(expected.dtype)  # the steps of a QuantizeLinear that passes a gradient
    if bounded and array.dtype == expected.dtype and precision == "float32":
        array, expected = array.astype(np.float64) + 1, expected.astype(np.float64) + 1
    pair = [Reference(name, False, 1, ({where: one},), ()) for name, one in (("ort", expected), ("torch", array))]
    return list(compare_references(*pair).failures(_of(precision, expected)))


def _of(precision: str, expected: NDArray[Any]) -> str:
    """Floats between quantised steps are held to float32: only the steps themselves may be off by one."""
    return "float32" if precision in ("int8", "uint8") and expected.dtype == np.float32 else precision
