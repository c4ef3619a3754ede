"""If, Loop and Scan: their bodies run as plans, with the values they capture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import as_tensor, number
from onnxprune.torch.registry import ALL, op


def _stacked(node: Node, rows: list[Any], axis: int = 0) -> Tensor:
    if not rows:
        return torch.empty(0, device=node.state.device)
    return torch.stack([as_tensor(node, row) for row in rows], axis)


@op("If", keep=ALL)
def if_(node: Node, *values: Any) -> tuple[Any, ...]:
    """The outputs of then_branch where the condition holds, else those of else_branch."""
    name = "then_branch" if bool(number(values[0])) else "else_branch"
    return tuple(node.bodies[name].run(node.state, (), values))


@op("Loop", keep=ALL)
def loop(node: Node, *values: Any) -> tuple[Any, ...]:
    """The body run at most `values[0]` times, while the condition holds: carried values, then those of all runs."""
    body = node.bodies["body"]
    most, condition = number(values[0]), values[1]
    carried = list(values[2 : node.n_formal])
    goes_on = True if condition is None else bool(number(condition))
    columns: list[list[Any]] = [[] for _ in range(node.n_outputs - len(carried))]
    turn = 0
    while goes_on and (most is None or turn < most):
        flag = Host((True,), (), torch.bool)
        found = body.run(node.state, [Host((turn,), (), torch.int64), flag, *carried], values)
        goes_on = bool(number(found[0]))
        carried = found[1 : 1 + len(carried)]
        for column, value in zip(columns, found[1 + len(carried) :], strict=False):
            column.append(value)
        turn += 1
    return (*carried, *(_stacked(node, column) for column in columns))


@op("Scan", since=9)
def scan(node: Node, *values: Any) -> tuple[Any, ...]:
    """The body run along an axis of each scanned input, forwards or backwards."""
    count = node.integer("num_scan_inputs", 1)
    return _scan(node, values[: node.n_formal - count], values[node.n_formal - count : node.n_formal], values, 0)


@op("Scan", since=8)
def scan_batched(node: Node, lengths: Tensor | None, *values: Any) -> tuple[Any, ...]:
    """Scan of opset 8: every input has a batch axis first, and its rows are scanned on their own."""
    if lengths is not None:
        raise node.refuse("sequence_lens is not supported")
    count, formal = node.integer("num_scan_inputs", 1), values[: node.n_formal - 1]
    handed = (lengths, *values)
    rows = []
    for at in range(formal[0].shape[0]):
        row = [one[at] for one in formal]
        rows.append(_scan(node, row[: len(row) - count], row[len(row) - count :], handed, 0))
    return tuple(_stacked(node, [row[index] for row in rows]) for index in range(node.n_outputs))


def _scan(node: Node, carried: Any, scanned: Any, handed: Any, default: int) -> tuple[Any, ...]:
    body = node.bodies["body"]
    axes = node.ints("scan_input_axes") or [default] * len(scanned)
    backwards = node.ints("scan_input_directions") or node.ints("directions") or [0] * len(scanned)
    carried = list(carried)
    columns: list[list[Any]] = [[] for _ in range(node.n_outputs - len(carried))]
    length = scanned[0].shape[axes[0]]
    for turn in range(length):
        rows = [
            one.select(axis, length - 1 - turn if back else turn)
            for one, axis, back in zip(scanned, axes, backwards, strict=True)
        ]
        found = [as_tensor(node, value) for value in body.run(node.state, [*carried, *rows], handed)]
        carried = found[: len(carried)]
        for column, value in zip(columns, found[len(carried) :], strict=True):
            column.append(value)
    out_axes = node.ints("scan_output_axes") or [0] * len(columns)
    turned = node.ints("scan_output_directions") or [0] * len(columns)
    stacked = [
        _stacked(node, column[::-1] if back else column, axis)
        for column, axis, back in zip(columns, out_axes, turned, strict=True)
    ]
    return (*carried, *stacked)
