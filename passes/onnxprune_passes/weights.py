"""Which tensors are weights: the main operands of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN, wherever
they lie.

A weight is followed from the node that uses it back to the stored tensor through Identity, Cast, Transpose, Reshape,
Squeeze, Unsqueeze and DequantizeLinear, out of If/Loop/Scan bodies, and from the formal inputs of a model-local
function to each of its calls. Biases, normalisation vectors and other constants are not weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from .arrays import NDArray
from .model import Model
from .roles import EMBEDDING, Role, roles_of
from .scopes import Scope, function_scopes, graph_scopes
from .storage import keys


@dataclass(frozen=True)
class WeightUse:
    """One node input that reads a weight.

    Attributes:
        node: the node's name, or its first output when it has none.
        op_type: the operator.
        input_index: which input of the node.
        out_axis: the axis of the *stored* tensor that counts output neurons; None when it was lost on the way (a
            Reshape).
        in_axis: the axis of the stored tensor that is summed over; None likewise, or for an embedding.
    """

    node: str
    op_type: str
    input_index: int
    out_axis: int | None
    in_axis: int | None


@dataclass(frozen=True, eq=False)
class Weight:
    """A stored tensor that nodes use as a weight.

    Attributes:
        key: its key in `Model.initializers`.
        shape, dtype: as stored.
        kind: `conv`, `fc`, `rnn` or `embedding` (by its first use; a tied embedding is `fc`).
        uses: every node input that reads it.
        blocks: the number of equal contiguous parts that are layers of their own (the gate matrices of a recurrent
            weight), else 1.
        zero_point: for quantised weights, the integer(s) that mean 0, broadcastable to `shape`; None for float weights.
        scale: for quantised weights, the step size(s), broadcastable to `shape`; None for float weights.
    """

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: str
    uses: tuple[WeightUse, ...]
    blocks: int = 1
    zero_point: NDArray | None = None
    scale: NDArray | None = None

    @property
    def size(self) -> int:
        """The number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def quantised(self) -> bool:
        """True when the stored entries are integers behind a DequantizeLinear or an integer operator."""
        return self.zero_point is not None


@dataclass(frozen=True, eq=False)
class _Found:
    """A stored tensor reached from an operand: axes[i] is the stored axis behind operand axis i, None when lost."""

    key: str
    axes: tuple[int | None, ...]
    zero_point: NDArray | None = None
    scale: NDArray | None = None


def find_weights(model: Model, *, embeddings: bool = False) -> tuple[Weight, ...]:
    """The weights of `model` in file order of their first use, a shared one once.

    Args:
        embeddings: also the tables that Gather nodes look rows up in. A table that is a MatMul's weight too is
            always among them.
    """
    found: dict[str, Weight] = {}
    for use, reached in _Walk(model).uses():
        source = model.initializers.source(reached.key)
        if not _is_weight_like(source.shape, source.dtype, reached):
            continue
        role, weight_use = use
        known = found.get(reached.key)
        if known is None:
            blocks = _blocks(role, source.shape, reached.axes)
            found[reached.key] = Weight(
                reached.key,
                source.shape,
                source.dtype,
                role.kind,
                (weight_use,),
                blocks,
                reached.zero_point,
                reached.scale,
            )
        else:
            kind = role.kind if known.kind == EMBEDDING else known.kind
            found[reached.key] = replace(known, uses=(*known.uses, weight_use), kind=kind)
    return tuple(weight for weight in found.values() if embeddings or weight.kind != EMBEDDING)


def _is_weight_like(shape: tuple[int, ...], dtype: np.dtype[Any], reached: _Found) -> bool:
    floating = dtype.kind == "f" or dtype.name == "bfloat16"
    return bool(shape) and (floating or (reached.zero_point is not None and dtype.itemsize <= 2))


def _blocks(role: Role, shape: tuple[int, ...], axes: tuple[int | None, ...]) -> int:
    """The number of gate matrices that lie one after the other in a stored recurrent weight, else 1."""
    if role.gates and axes == (0, 1, 2):
        return role.gates * shape[0]
    return role.gates if role.gates and axes == (None, 0, 1) else 1


class _Walk:
    """Pairs every weight-taking node input with the stored tensor behind it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._functions = {(f.domain, f.name, f.overload): f for f in model.skeleton.functions}
        self._called: set[str] = set()
        self._seen: set[tuple[str, str, str, int]] = set()

    def uses(self) -> Iterator[tuple[tuple[Role, WeightUse], _Found]]:
        for scope in graph_scopes(self._model.graph):
            yield from self._uses_in(scope, ())
        for function in self._model.skeleton.functions:
            if keys.function_prefix(function) not in self._called:
                for scope in function_scopes(function):
                    yield from self._uses_in(scope, ())

    def _uses_in(self, scope: Scope, calls: tuple[str, ...]) -> Iterator[tuple[tuple[Role, WeightUse], _Found]]:
        """The uses in `scope` and in the functions that it calls; `calls` are the functions it is in."""
        for node in scope.nodes:
            function = self._functions.get((node.domain, node.op_type, node.overload))
            prefix = "" if function is None else keys.function_prefix(function)
            if function is not None and prefix not in calls:
                self._called.add(prefix)
                given = {
                    formal: (scope, name) for formal, name in zip(function.input, node.input, strict=False) if name
                }
                for inner in function_scopes(function, given):
                    yield from self._uses_in(inner, (*calls, prefix))
            elif function is None and node.domain in ("", "ai.onnx", "com.microsoft"):
                yield from self._uses_of(scope, node)

    def _uses_of(self, scope: Scope, node: onnx.NodeProto) -> Iterator[tuple[tuple[Role, WeightUse], _Found]]:
        name = node.name or keys.first_output(node)
        for index, role in roles_of(node).items():
            if index < len(node.input) and node.input[index]:
                reached = self._reach(scope, node.input[index], node, role)
                place = ("" if reached is None else reached.key, scope.prefix, keys.first_output(node), index)
                if reached is not None and place not in self._seen:  # one in a function is met again at every call
                    self._seen.add(place)
                    use = WeightUse(name, node.op_type, index, role.out_axis, role.in_axis)
                    yield (role, _in_stored_axes(use, reached)), reached

    def _reach(self, scope: Scope, name: str, user: onnx.NodeProto, role: Role) -> _Found | None:
        """The stored tensor behind the value `name`, or None when it is computed."""
        found = self._stored(scope, name)
        if found is None:
            return None
        if role.zero_point_input is not None:
            found = self._with_integers(scope, found, user, role.zero_point_input, role.scale_input, role.out_axis)
        return found

    def _stored(self, scope: Scope, name: str) -> _Found | None:
        while True:
            if name in scope.initializers:
                return self._tensor(scope.prefix + name)
            node = scope.producers.get(name)
            if node is not None:
                return self._through(scope, node)
            if name in scope.given:
                scope, name = scope.given[name]
            elif scope.outer is None:
                return None
            else:
                scope = scope.outer

    def _through(self, scope: Scope, node: onnx.NodeProto) -> _Found | None:
        if keys.is_constant(node):
            return self._tensor(scope.prefix + keys.first_output(node))
        if node.domain not in ("", "ai.onnx") or not node.input:
            return None
        below = (
            self._stored(scope, node.input[0]) if node.op_type in _MOVES or node.op_type == "DequantizeLinear" else None
        )
        if below is None:
            return None
        if node.op_type == "DequantizeLinear":
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            return self._with_integers(scope, below, node, 2, 1, axis)
        return replace(below, axes=_moved(node, below.axes, self._constant(scope, node, 1)))

    def _tensor(self, key: str) -> _Found | None:
        if key not in self._model.initializers:
            return None
        return _Found(key, tuple(range(len(self._model.initializers.source(key).shape))))

    def _constant(self, scope: Scope, node: onnx.NodeProto, index: int) -> NDArray | None:
        """The values of a stored input, None when absent or computed."""
        if index >= len(node.input) or not node.input[index]:
            return None
        found = self._stored(scope, node.input[index])
        return None if found is None else self._model.initializers[found.key]

    def _with_integers(
        self,
        scope: Scope,
        found: _Found,
        node: onnx.NodeProto,
        zero_input: int,
        scale_input: int | None,
        axis: int | None,
    ) -> _Found | None:
        """`found` with its zero point and scale, laid along `axis`; None when either is computed at run time."""
        source = self._model.initializers.source(found.key)
        zero = self._constant(scope, node, zero_input)
        if zero is None:
            if zero_input < len(node.input) and node.input[zero_input]:
                return None
            zero = np.zeros((), source.dtype)
        scale = np.ones((), np.float32) if scale_input is None else self._constant(scope, node, scale_input)
        if scale is None:
            return None
        rank = len(source.shape)
        zero_laid, scale_laid = (_along(values, rank, found.axes, axis) for values in (zero, scale))
        if zero_laid is None or scale_laid is None:
            return None
        return replace(found, zero_point=zero_laid, scale=scale_laid)


_MOVES = {"Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze"}


def _along(values: NDArray, rank: int, axes: tuple[int | None, ...], axis: int | None) -> NDArray | None:
    """`values` (one, or one a coordinate of the operand's `axis`) shaped to broadcast against the stored tensor."""
    if values.size == 1:
        return values.reshape((1,) * rank)
    stored = axes[axis] if axis is not None and -len(axes) <= axis < len(axes) else None
    if stored is None or values.ndim != 1:
        return None
    return values.reshape([-1 if index == stored else 1 for index in range(rank)])


def _moved(node: onnx.NodeProto, axes: tuple[int | None, ...], argument: NDArray | None) -> tuple[int | None, ...]:
    """The stored axes behind the output of a node that moves axes; `argument` is its constant second input."""
    attributes = {
        attribute.name: list(attribute.ints)
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.INTS
    }
    if node.op_type in ("Identity", "Cast"):
        return axes
    if node.op_type == "Transpose":
        order = attributes.get("perm", range(len(axes))[::-1])
        return tuple(axes[axis] if 0 <= axis < len(axes) else None for axis in order)
    named = attributes.get("axes", None if argument is None else argument.reshape(-1).tolist())
    if named is None or node.op_type == "Reshape":
        return (None,) * (0 if argument is None else argument.size)
    if node.op_type == "Squeeze":
        gone = {axis % max(len(axes), 1) for axis in named}
        return tuple(stored for axis, stored in enumerate(axes) if axis not in gone)
    rank = len(axes) + len(named)
    new = {axis % rank for axis in named}
    rest = iter(axes)
    return tuple(None if axis in new else next(rest, None) for axis in range(rank))


def _in_stored_axes(use: WeightUse, reached: _Found) -> WeightUse:
    """The use with its axes counted in the stored tensor."""
    axes = reached.axes

    def stored(axis: int | None) -> int | None:
        return axes[axis] if axis is not None and -len(axes) <= axis < len(axes) else None

    return replace(use, out_axis=stored(use.out_axis), in_axis=stored(use.in_axis))
