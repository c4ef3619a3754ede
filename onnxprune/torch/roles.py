"""Which stored tensors are trained: those that reach a weight role.

A role is an input of an operator that learned values stand at: the weight or bias of a Conv, Gemm, MatMul or recurrent
network, the scale or bias of a normalisation, the slope of a PRelu, the table of a Gather, and a constant vector that
is added to or multiplied with what is computed. From there a tensor is looked for backwards through operators that
move, cast or combine constants, out of bodies, and through QuantizeLinear/DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.arrays import NDArray as AnyArray
from onnxprune_passes.model import Model

from onnxprune.torch.draft import Draft, DraftStep
from onnxprune.torch.dtypes import is_float
from onnxprune.torch.lower import varying

STATISTICS = "statistics"
_WEIGHT_BIAS = {1: "weight", 2: "bias"}
_MATMUL = {0: "weight", 1: "weight"}
_GEMM = {0: "weight", 1: "weight", 2: "bias"}
_NORM = {1: "scale", 2: "bias"}
_RECURRENT = {1: "weight", 2: "recurrent weight", 3: "bias"}
_ROLES: dict[str, dict[int, str]] = {
    "Conv": _WEIGHT_BIAS,
    "ConvTranspose": _WEIGHT_BIAS,
    "FusedConv": _WEIGHT_BIAS,
    "DeformConv": {1: "weight", 3: "bias"},
    "Gemm": _GEMM,
    "FusedGemm": _GEMM,
    "MatMul": _MATMUL,
    "FusedMatMul": _MATMUL,
    "TransposeMatMul": _MATMUL,
    "Einsum": dict.fromkeys(range(8), "operand"),
    "LSTM": {**_RECURRENT, 7: "peepholes"},
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    "BatchNormalization": {**_NORM, 3: STATISTICS, 4: STATISTICS},
    "InstanceNormalization": _NORM,
    "LayerNormalization": _NORM,
    "GroupNormalization": _NORM,
    "GroupNorm": _NORM,
    "RMSNormalization": _NORM,
    "SimplifiedLayerNormalization": _NORM,
    "SkipLayerNormalization": {2: "scale", 3: "bias", 4: "bias"},
    "SkipSimplifiedLayerNormalization": {2: "scale", 3: "bias"},
    "EmbedLayerNormalization": {2: "table", 3: "table", 4: "table", 5: "scale", 6: "bias"},
    "PRelu": {1: "slope"},
    "Gather": {0: "table"},
    "Attention": _WEIGHT_BIAS,
    "MultiHeadAttention": {3: "bias"},
    "BiasGelu": {1: "bias"},
    "FastGelu": {1: "bias"},
    "BiasSplitGelu": {1: "bias"},
    "BiasAdd": {1: "bias"},
    "Add": {0: "operand", 1: "operand"},
    "Mul": {0: "operand", 1: "operand"},
}
_MOVES = frozenset(
    {
        *("Identity", "Cast", "CastLike", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Expand"),
        *("Tile", "Pad", "Split", "QuantizeLinear", "DequantizeLinear", "Sqrt", "Exp", "Tanh", "Sigmoid", "Softplus"),
        *("Abs", "Neg"),
    }
)
_COMBINES = frozenset(("Mul", "Div", "Add", "Sub", "Concat", "Where"))
_FREELY = frozenset(("operand", "table"))
"""Roles at which constants stand that nobody learned: they need a second look."""


def find_roles(draft: Draft, model: Model) -> dict[int, tuple[str, ...]]:
    """Slot of a constant of the main graph → the roles it reaches (`Conv weight`, …), in the order of the nodes."""
    return _Walk(draft, model).run()


class _Walk:
    def __init__(self, draft: Draft, model: Model) -> None:
        self._model = model
        self._root = draft
        self._found: dict[int, dict[str, None]] = {}
        self._producers = {
            id(one): {slot: step for step in one.steps for slot in step.outputs} for one in draft.drafts()
        }
        self._outer = {id(one): {slot: outer for outer, slot in one.captures.items()} for one in draft.drafts()}
        self._varies: dict[int, set[int]] = {}

    def run(self) -> dict[int, tuple[str, ...]]:
        self._visit(self._root, None)
        return {slot: tuple(roles) for slot, roles in self._found.items()}

    def _visit(self, draft: Draft, outside: set[int] | None) -> None:
        varies = self._varies[id(draft)] = varying(draft, outside)
        for step in draft.steps:
            for index, role in _roles_of(step).items():
                if index < len(step.inputs) and step.inputs[index] not in varies:
                    self._reach(draft, step, index, role)
            for body in step.bodies.values():
                self._visit(body, varies)

    def _reach(self, draft: Draft, step: DraftStep, index: int, role: str) -> None:
        if role == "operand" and self._varies[id(draft)].isdisjoint(step.inputs):
            return  # constants combined with each other: the node that reads the result says what they are
        for slot, moved in self._stored(draft, step.inputs[index]):
            if role in _FREELY and not self._looks_learned(slot, role):
                continue
            if role == STATISTICS and moved:
                continue
            self._found.setdefault(slot, {})[f"{step.node.op_type} {role}"] = None

    def _stored(self, draft: Draft, slot: int, moved: bool = False) -> Iterator[tuple[int, bool]]:
        """The constants of the main graph behind a slot, and whether something stands between."""
        if draft.parent is None and slot in draft.constants:
            yield slot, moved
        elif slot in self._outer[id(draft)] and draft.parent is not None:
            yield from self._stored(draft.parent, self._outer[id(draft)][slot], moved)
        elif (step := self._producers[id(draft)].get(slot)) is not None and not step.node.domain:
            if step.node.op_type in _MOVES or step.node.op_type == "Gather":
                yield from self._stored(draft, step.inputs[0], True)
            elif step.node.op_type in _COMBINES:
                for one in step.inputs:
                    yield from ((found, True) for found, _ in self._stored(draft, one) if not self._is_mask(found))

    def _array(self, slot: int) -> NDArray[np.generic]:
        return self._root.constants[slot].load(self._model)

    def _is_mask(self, slot: int) -> bool:
        """Whether a constant in an expression of constants is a scalar, or zeros and ones."""
        array = self._array(slot)
        return array.size <= 1 or not is_float(array) or bool(np.isin(_sample(array), (0, 1)).all())

    def _looks_learned(self, slot: int, role: str) -> bool:
        """Whether a constant at a free role holds more than a scalar, a mask of two values, or whole numbers."""
        array = self._array(slot)
        if array.size <= 1 or not is_float(array):
            return False
        if sum(size > 1 for size in array.shape) <= 1 and role == "operand":
            return bool(np.isfinite(array.astype(np.float64)).all())
        sample = _sample(array)
        if not np.isfinite(sample).all():
            return False
        return len(np.unique(sample[:4096])) > 2 and not bool((sample == np.round(sample)).all())


def _sample(array: AnyArray) -> NDArray[np.float64]:
    """At most 65,536 entries, evenly spread."""
    flat = array.reshape(-1)
    return np.asarray(flat[:: max(1, flat.size >> 16)]).astype(np.float64)


def _roles_of(step: DraftStep) -> dict[int, str]:
    if step.node.domain not in ("", "com.microsoft"):
        return {}
    if step.node.op_type == "Attention" and not step.node.domain:
        return {}
    return _ROLES.get(step.node.op_type, {})
