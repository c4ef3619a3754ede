"""LSTM, GRU and RNN. The common forms run in torch's own kernels, the others step by step (`cells.py`).

ONNX keeps the gates of an LSTM in the order input, output, forget, cell, and those of a GRU in the order update, reset,
hidden; torch wants input, forget, cell, output, and reset, update, hidden. Rows are put in order in the forward pass,
so that parameters stay in ONNX's layout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops import cells
from onnxprune.torch.ops.common import unflattened
from onnxprune.torch.registry import op

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def _directions(node: Node) -> int:
    return 2 if node.only("direction", ("forward", "reverse", "bidirectional"), "forward") == "bidirectional" else 1


def _ordered(rows: Tensor, kind: str) -> Tensor:
    """Rows of one direction [gates · hidden, ...] in torch's order of gates."""
    order = _ORDER[kind]
    if len(order) == 1:
        return rows
    gates = rows.chunk(len(order))
    return torch.cat([gates[at] for at in order])


def _torch_parameters(w: Tensor, r: Tensor, b: Tensor | None, kind: str) -> list[Tensor]:
    """Per direction: input weights, recurrent weights, and both biases."""
    found = []
    for at in range(w.shape[0]):
        found += [_ordered(w[at], kind), _ordered(r[at], kind)]
        if b is not None:
            found += [_ordered(half, kind) for half in b[at].chunk(2)]
    return found


def _plain(node: Node, kind: str, x: Tensor, lengths: Tensor | None) -> bool:
    """Whether torch's kernel computes the same: default activations, no clip, whole sequences."""
    names = [one.capitalize() for one in node.attributes.get("activations", [])]
    if names and names != _DEFAULTS[kind] * _directions(node):
        return bool(kind == "RNN" and names == ["Relu"] * _directions(node))
    if "clip" in node.attributes or node.integer("input_forget", 0):
        return False
    if kind == "GRU" and not node.integer("linear_before_reset", 0):
        return False
    if node.attributes.get("activation_alpha") or node.attributes.get("activation_beta"):
        return False
    return x.shape[0] > 0 and (lengths is None or bool((lengths == x.shape[0]).all()))


def _run(
    node: Node, kind: str, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, lengths: Tensor | None,
    states: list[Tensor | None], peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Y [T, dirs, N, H], Y_h [dirs, N, H] (and Y_c); with layout 1 the batch comes first."""
    batch_first = bool(node.integer("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        states = [None if one is None else one.transpose(0, 1) for one in states]
    directions, hidden = w.shape[0], r.shape[-1]
    starts = [x.new_zeros(directions, x.shape[1], hidden) if one is None else one for one in states]
    if node.state.batch_factor != 1:
        starts = [one if one.shape[1] == x.shape[1] else one.expand(-1, x.shape[1], -1) for one in starts]
    if peepholes is None and _plain(node, kind, x, lengths):
        y, last = _by_kernel(node, kind, x, _torch_parameters(w, r, b, kind), b is not None, starts, directions)
    else:
        y, last = cells.run(node, kind, x, w, r, b, lengths, starts, peepholes)
    if batch_first:
        return (y.permute(2, 0, 1, 3), *(one.transpose(0, 1) for one in last))
    return (y, *last)


def _by_kernel(
    node: Node, kind: str, x: Tensor, parameters: list[Tensor], biased: bool, starts: list[Tensor], directions: int
) -> tuple[Tensor, list[Tensor]]:
    backwards = node.text("direction", "forward") == "reverse"
    x = x.flip(0) if backwards else x
    starts = [one.contiguous() for one in starts]
    form: tuple[Any, ...] = (parameters, biased, 1, 0.0, False, directions == 2, False)
    if kind == "LSTM":
        y, *last = torch.lstm(x, starts, *form)
    elif kind == "GRU":
        y, *last = torch.gru(x, starts[0], *form)
    else:
        names = [one.capitalize() for one in node.attributes.get("activations", [])]
        y, *last = (torch.rnn_relu if names[:1] == ["Relu"] else torch.rnn_tanh)(x, starts[0], *form)
    y = y.flip(0) if backwards else y
    return unflattened(y, -1, (directions, -1)).transpose(1, 2), list(last)


@op("LSTM")
def lstm(
    node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None,
    h: Tensor | None = None, c: Tensor | None = None, p: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`x` [T, N, I], w [dirs, 4H, I], r [dirs, 4H, H], b [dirs, 8H] → Y [T, dirs, N, H], Y_h and Y_c [dirs, N, H]."""
    return _run(node, "LSTM", x, w, r, b, lengths, [h, c], p)


@op("GRU")
def gru(
    node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`x` [T, N, I], w [dirs, 3H, I], r [dirs, 3H, H], b [dirs, 6H] → Y [T, dirs, N, H], Y_h [dirs, N, H]."""
    return _run(node, "GRU", x, w, r, b, lengths, [h])


@op("RNN")
def rnn(
    node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`x` [T, N, I], w [dirs, H, I], r [dirs, H, H], b [dirs, 2H] → Y [T, dirs, N, H], Y_h [dirs, N, H]."""
    return _run(node, "RNN", x, w, r, b, lengths, [h])
