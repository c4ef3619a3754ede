"""Sequences (Python lists of tensors) and optionals (None when absent)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxprune.torch.dtypes import torch_from_onnx
from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import as_tensor, axis_of, number
from onnxprune.torch.registry import ALL, op


@op("SequenceConstruct", since=11)
def sequence_construct(_: Node, *parts: Tensor) -> list[Tensor]:
    """A sequence of the inputs."""
    return list(parts)


@op("SequenceEmpty", since=11)
def sequence_empty(node: Node) -> list[Tensor]:
    """A sequence of nothing."""
    torch_from_onnx(node.integer("dtype", 1), str(node))
    return []


@op("SequenceInsert", since=11, host=(2,))
def sequence_insert(_: Node, sequence: list[Tensor], one: Tensor, place: Host | None = None) -> list[Tensor]:
    """The sequence with one more tensor, at `place` or at its end."""
    at = len(sequence) if place is None else int(number(place))
    at = at + len(sequence) if at < 0 else at
    return [*sequence[:at], one, *sequence[at:]]


@op("SequenceErase", since=11, host=(1,))
def sequence_erase(_: Node, sequence: list[Tensor], place: Host | None = None) -> list[Tensor]:
    """The sequence without the tensor at `place`, or without its last one."""
    at = len(sequence) - 1 if place is None else int(number(place)) % len(sequence)
    return [*sequence[:at], *sequence[at + 1 :]]


@op("SequenceAt", since=11, host=(1,))
def sequence_at(_: Node, sequence: list[Tensor], place: Host) -> Tensor:
    """The tensor at `place`."""
    return sequence[int(number(place))]


@op("SequenceLength", since=11)
def sequence_length(_: Node, sequence: list[Tensor]) -> Host:
    """How many tensors there are, on the host."""
    return Host((len(sequence),), (), torch.int64)


@op("ConcatFromSequence", since=11)
def concat_from_sequence(node: Node, sequence: list[Tensor]) -> Tensor:
    """The tensors side by side along `axis`, or along a new one."""
    axis = node.integer("axis", 0)
    return torch.stack(sequence, axis) if node.integer("new_axis", 0) else torch.cat(sequence, axis)


@op("SplitToSequence", since=11, host=(1,))
def split_to_sequence(node: Node, x: Tensor, sizes: Host | None = None) -> list[Tensor]:
    """`x` cut along `axis` into parts of the given sizes, of one size, or of 1 (whose axis goes with keepdims = 0)."""
    axis = axis_of(node, 0, x.ndim)
    if sizes is None:
        parts = torch.split(x, 1, axis)
        return list(parts) if node.integer("keepdims", 1) else [part.squeeze(axis) for part in parts]
    return list(torch.split(x, sizes.item if sizes.shape == () else list(sizes.values), axis))


@op("SequenceMap", since=17, keep=ALL)
def sequence_map(node: Node, *values: Any) -> tuple[list[Any], ...]:
    """The body run on each entry of the first sequence, with the other inputs whole, or entry by entry if sequences."""
    body = node.bodies["body"]
    formal = values[: node.n_formal]
    rows = [
        body.run(node.state, [one[at] if isinstance(one, list) else one for one in formal], values)
        for at in range(len(formal[0]))
    ]
    return tuple([as_tensor(node, row[index]) for row in rows] for index in range(node.n_outputs))


@op("Optional", since=15, keep=ALL)
def optional(_: Node, value: Any = None) -> Any:
    """The value, or an absent one."""
    return value


@op("OptionalHasElement", since=15, keep=ALL)
def optional_has_element(_: Node, value: Any = None) -> Host:
    """Whether there is a value, on the host."""
    return Host((value is not None,), (), torch.bool)


@op("OptionalGetElement", since=15, keep=ALL)
def optional_get_element(node: Node, value: Any = None) -> Any:
    """The value. Raises ModelError when it is absent."""
    if value is None:
        raise node.refuse("the optional value is absent")
    return value
