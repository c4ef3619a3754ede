"""What each stored tensor becomes in the module: a parameter, a buffer, or Python numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnxprune_passes.arrays import NDArray
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.fixed import fixed_transform
from onnxprune_passes.model import Model
from onnxprune_passes.selection import matches
from onnxprune_passes.weights import Weight, find_weights

from onnxprune.torch.draft import Constant, Draft
from onnxprune.torch.dtypes import is_float
from onnxprune.torch.host import LIMIT
from onnxprune.torch.roles import STATISTICS, find_roles

PARAMETER, LATENT, STATISTIC, BUFFER, HOST = "parameter", "latent", "statistics", "buffer", "host"
_HOST_TYPES = ("int64", "int32", "bool", "float32", "float64")


@dataclass(frozen=True)
class TensorRow:
    """What a stored tensor of the model is in the module.

    Attributes:
        key: its key in `Model.initializers`; "" for a constant that has none (a sparse tensor, say).
        kind: `parameter`; `latent` (a parameter in real numbers behind quantised integers); `statistics` (running mean
            and variance: buffers that are written back); `buffer`; `host` (Python numbers).
        roles: the operator inputs it reaches, such as `Conv weight`.
        shape, dtype: as stored; the dtype by numpy's name.
        trained: whether it requires a gradient.
        note: why it is what it is, where that is not plain.
    """

    key: str
    kind: str
    roles: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    trained: bool
    note: str = ""


@dataclass(frozen=True, eq=False)
class Assignment:
    """A constant's slot in the draft, what it becomes, and for a latent one the weight that it stands for."""

    slot: int
    constant: Constant
    row: TensorRow
    weight: Weight | None = None


def assign(
    draft: Draft, model: Model, masked: frozenset[str], trainable: Sequence[str], frozen: Sequence[str]
) -> tuple[Assignment, ...]:
    """Decide for every constant of a live draft.

    Args:
        draft: the main graph, already without what nobody reads.
        model: where the tensors are.
        masked: keys with a mask; they are trained whatever their role.
        trainable, frozen: globs over keys that override the roles; `frozen` wins.

    Raises:
        SelectionError: a glob matches no tensor, or `trainable` names one that is no floating point tensor.
    """
    _require_matches(draft, model, (*trainable, *frozen))
    decide = _Decision(draft, model, masked, tuple(trainable), tuple(frozen))
    return tuple(decide.of(slot, constant) for slot, constant in draft.constants.items())


def _require_matches(draft: Draft, model: Model, globs: Sequence[str]) -> None:
    keys = {*model.initializers, *(one.key for one in draft.constants.values() if one.key is not None)}
    for glob in globs:
        if not any(matches(key, glob) for key in keys):
            raise SelectionError(
                f"{glob!r} matches none of the {len(keys)} tensors of the model; parameters_table() lists them"
            )


class _Decision:
    def __init__(
        self, draft: Draft, model: Model, masked: frozenset[str], trainable: tuple[str, ...], frozen: tuple[str, ...]
    ) -> None:
        self._model, self._masked, self._trainable, self._frozen = model, masked, trainable, frozen
        self._roles = find_roles(draft, model)
        self._weights = {weight.key: weight for weight in find_weights(model)}
        self._dequantised = _only_dequantised(draft)

    def of(self, slot: int, constant: Constant) -> Assignment:
        array = constant.load(self._model)
        roles = self._roles.get(slot, ())
        stored = constant.key if constant.key is not None and constant.key in self._model.initializers else None
        kind, trained, note, weight = BUFFER, False, "", None
        if any(role.endswith(STATISTICS) for role in roles):
            kind = STATISTIC if stored is not None and is_float(array) else BUFFER
        elif stored is not None and is_float(array):
            kind, trained, note = self._float(stored, array, roles)
        elif stored is not None and (weight := self._latent(slot, stored)) is not None:
            kind, trained, note = LATENT, True, f"real numbers behind {array.dtype}"
            if any(matches(stored, glob) for glob in self._frozen):
                trained, note = False, "frozen by request"
        self._refuse_request(stored, kind, array)
        if kind == BUFFER and array.dtype.name in _HOST_TYPES and array.size <= LIMIT:
            kind = HOST
        row = TensorRow(constant.key or "", kind, roles, tuple(array.shape), array.dtype.name, trained, note)
        return Assignment(slot, constant, row, weight if kind == LATENT else None)

    def _float(self, key: str, array: NDArray, roles: tuple[str, ...]) -> tuple[str, bool, str]:
        """Kind, whether it is trained, and why, of a floating point tensor."""
        if any(matches(key, glob) for glob in self._frozen):
            return PARAMETER, False, "frozen by request"
        if any(matches(key, glob) for glob in self._trainable):
            return PARAMETER, True, "" if roles else "trained by request"
        if roles:
            fixed = fixed_transform(self._model, self._weights[key]) if key in self._weights else None
            if fixed is not None and key not in self._masked:
                return PARAMETER, False, f"looks like {fixed}, not learned; trainable={key!r} trains it"
            return PARAMETER, True, ""
        if key in self._masked:
            return PARAMETER, True, "it has a mask"
        return BUFFER, False, "no weight role" if array.size > 1 else ""

    def _latent(self, slot: int, key: str) -> Weight | None:
        weight = self._weights.get(key)
        if weight is None or not weight.quantised or slot not in self._dequantised:
            return None
        return weight

    def _refuse_request(self, key: str | None, kind: str, array: NDArray) -> None:
        for glob in self._trainable:
            if key is not None and glob == key and kind not in (PARAMETER, LATENT):
                raise SelectionError(
                    f"tensor {key!r} cannot be trained: it is {kind} of type {array.dtype}, not a floating point weight"
                )


def _only_dequantised(draft: Draft) -> set[int]:
    """The constants of the main graph that DequantizeLinear nodes alone read, as their first input."""
    readers: dict[int, set[bool]] = {}

    def visit(one: Draft, root_of: dict[int, int]) -> None:
        for slot in one.outputs:
            readers.setdefault(root_of.get(slot, -1), set()).add(False)
        for step in one.steps:
            for index, slot in enumerate(step.inputs):
                fits = step.node.op_type == "DequantizeLinear" and index == 0
                readers.setdefault(root_of.get(slot, -1), set()).add(fits)
            for body in step.bodies.values():
                visit(body, {slot: root_of[outer] for outer, slot in body.captures.items() if outer in root_of})

    visit(draft, {slot: slot for slot in draft.constants})
    return {slot for slot, fits in readers.items() if fits == {True}}


def latent_values(weight: Weight, stored: NDArray) -> NDArray:
    """The real numbers (stored - zero point) · scale of a quantised weight, float32 of its shape."""
    steps = stored.astype(np.int64) - np.asarray(weight.zero_point).astype(np.int64)
    return (steps * np.asarray(weight.scale).astype(np.float32)).astype(np.float32)
