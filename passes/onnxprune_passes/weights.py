"""Which tensors are weights: the main operands of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN, wherever
they lie.

A weight is followed from the node that uses it back to the stored tensor through Identity, Cast, Transpose, Reshape,
Squeeze, Unsqueeze and DequantizeLinear, out of If/Loop/Scan bodies, and from the formal inputs of a model-local
function to its calls. Biases, normalisation vectors and other constants are not weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from .arrays import NDArray
from .model import Model
from .scopes import Scope, scopes
from .storage import keys

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_EMBEDDING = "embedding"


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


@dataclass(frozen=True)
class _Role:
    """What an operator input is: axes in the operand's own frame (negative counts from the end)."""

    kind: str
    out_axis: int | None
    in_axis: int | None
    blocks_of: str = ""
    zero_point_input: int | None = None
    scale_input: int | None = None


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
            blocks = source.shape[0] * _GATES[role.blocks_of] if role.blocks_of and len(source.shape) == 3 else 1
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
            kind = role.kind if known.kind == _EMBEDDING else known.kind
            found[reached.key] = replace(known, uses=(*known.uses, weight_use), kind=kind)
    return tuple(weight for weight in found.values() if embeddings or weight.kind != _EMBEDDING)


def _is_weight_like(shape: tuple[int, ...], dtype: np.dtype[Any], reached: _Found) -> bool:
    floating = dtype.kind == "f" or dtype.name == "bfloat16"
    return bool(shape) and (floating or (reached.zero_point is not None and dtype.itemsize == 1))


def roles_of(node: onnx.NodeProto) -> dict[int, _Role]:
    """The inputs of a standard operator that take weights."""
    flags = {attribute.name: attribute.i for attribute in node.attribute if attribute.type == onnx.AttributeProto.INT}
    op_type = node.op_type
    if op_type in ("Conv", "FusedConv"):
        return {1: _Role("conv", 0, 1)}
    if op_type == "ConvTranspose":
        return {1: _Role("conv", 1, 0)}
    if op_type == "ConvInteger":
        return {1: _Role("conv", 0, 1, zero_point_input=3)}
    if op_type == "QLinearConv":
        return {3: _Role("conv", 0, 1, zero_point_input=5, scale_input=4)}
    if op_type in ("Gemm", "FusedGemm", "MatMul", "FusedMatMul"):
        left, right = (-1, -2) if flags.get("transA") else (-2, -1), (-2, -1) if flags.get("transB") else (-1, -2)
        return {0: _Role("fc", *left), 1: _Role("fc", *right)}
    if op_type == "MatMulInteger":
        return {0: _Role("fc", -2, -1, zero_point_input=2), 1: _Role("fc", -1, -2, zero_point_input=3)}
    if op_type == "QLinearMatMul":
        return {0: _Role("fc", -2, -1, "", 2, 1), 3: _Role("fc", -1, -2, "", 5, 4)}
    if op_type in _GATES:
        return {1: _Role("rnn", 1, 2, op_type), 2: _Role("rnn", 1, 2, op_type)}
    if op_type == "Gather" and not flags.get("axis"):
        return {0: _Role(_EMBEDDING, -1, None)}
    return {}


class _Walk:
    """Pairs every weight-taking node input with the stored tensor behind it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._functions = {(f.domain, f.name): f for f in model.skeleton.functions}
        self._scopes = tuple(scopes(model.skeleton))
        self._by_prefix = {scope.prefix: scope for scope in self._scopes}
        self._formal_roles: dict[tuple[str, str], dict[int, list[tuple[_Role, WeightUse]]]] = {}

    def uses(self) -> Iterator[tuple[tuple[_Role, WeightUse], _Found]]:
        for scope in self._scopes:
            for node in scope.nodes:
                for index, use in self._taken(node):
                    reached = self._reach(scope, node.input[index], node, use[0])
                    if reached is not None:
                        yield (use[0], _in_stored_axes(use, reached)), reached

    def _taken(self, node: onnx.NodeProto) -> Iterator[tuple[int, tuple[_Role, WeightUse]]]:
        """The inputs of `node` that take weights, its own or those of the function it calls."""
        if (node.domain, node.op_type) in self._functions:
            for index, uses in self._roles_of_formals((node.domain, node.op_type)).items():
                yield from ((index, use) for use in uses if index < len(node.input) and node.input[index])
        elif node.domain in ("", "ai.onnx", "com.microsoft"):
            for index, role in roles_of(node).items():
                if index < len(node.input) and node.input[index]:
                    name = node.name or keys.first_output(node)
                    yield index, (role, WeightUse(name, node.op_type, index, role.out_axis, role.in_axis))

    def _roles_of_formals(self, name: tuple[str, str]) -> dict[int, list[tuple[_Role, WeightUse]]]:
        """Which formal inputs of a function its body uses as weights (directly), with their uses."""
        if name not in self._formal_roles:
            roles: dict[int, list[tuple[_Role, WeightUse]]] = {}
            self._formal_roles[name] = roles
            function = self._functions[name]
            for node in function.node:
                for index, use in self._taken(node):
                    if node.input[index] in function.input:
                        roles.setdefault(list(function.input).index(node.input[index]), []).append(use)
        return self._formal_roles[name]

    def _reach(self, scope: Scope, name: str, user: onnx.NodeProto, role: _Role) -> _Found | None:
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
            if scope.outer is None:
                return None
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
    """`values` (a scalar, or one a coordinate of the operand's `axis`) shaped to broadcast against the stored
    tensor.
    """
    if values.size == 1:
        return values.reshape((1,) * rank)
    stored = axes[axis] if axis is not None and -len(axes) <= axis < len(axes) else None
    if stored is None or values.ndim != 1:
        return None
    return values.reshape([-1 if index == stored else 1 for index in range(rank)])


def _moved(node: onnx.NodeProto, axes: tuple[int | None, ...], argument: NDArray | None) -> tuple[int | None, ...]:
    """Where the stored axes lie behind the output of a node that moves axes; `argument` is its constant second
    input.
    """
    attributes = {
        attribute.name: list(attribute.ints)
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.INTS
    }
    if node.op_type in ("Identity", "Cast"):
        return axes
    if node.op_type == "Transpose":
        return tuple(axes[axis] for axis in attributes.get("perm", range(len(axes))[::-1]))
    named = attributes.get("axes", None if argument is None else argument.reshape(-1).tolist())
    if named is None or node.op_type == "Reshape":
        return (None,) * (0 if argument is None else argument.size)
    if node.op_type == "Squeeze":
        gone = {axis % len(axes) for axis in named}
        return tuple(stored for axis, stored in enumerate(axes) if axis not in gone)
    rank = len(axes) + len(named)
    new = {axis % rank for axis in named}
    rest = iter(axes)
    return tuple(None if axis in new else next(rest) for axis in range(rank))


def _in_stored_axes(use: tuple[_Role, WeightUse], reached: _Found) -> WeightUse:
    """The use with its axes counted in the stored tensor."""
    axes = reached.axes

    def stored(axis: int | None) -> int | None:
        return axes[axis] if axis is not None and -len(axes) <= axis < len(axes) else None

    return replace(use[1], out_axis=stored(use[1].out_axis), in_axis=stored(use[1].in_axis))
