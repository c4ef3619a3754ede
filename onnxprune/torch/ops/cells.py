"""Recurrent networks step by step, for what torch's kernels do not do: other activations, clipping, peepholes,
sequences of different lengths, and a GRU whose reset gate comes before the product (ONNX operator docs).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.node import Node

Activation = Callable[[Tensor], Tensor]
_DEFAULTS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
_ALPHA = {"leakyrelu": 0.01, "thresholdedrelu": 1.0, "hardsigmoid": 0.2, "elu": 1.0, "affine": 1.0, "scaledtanh": 1.0}
_BETA = {"hardsigmoid": 0.5, "affine": 0.0, "scaledtanh": 1.0}


def _activation(node: Node, name: str, alpha: float, beta: float) -> Activation:
    functions: dict[str, Activation] = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": F.relu,
        "softsign": F.softsign,
        "softplus": F.softplus,
        "leakyrelu": lambda x: F.leaky_relu(x, alpha),
        "thresholdedrelu": lambda x: torch.where(x > alpha, x, torch.zeros_like(x)),
        "hardsigmoid": lambda x: torch.clamp(alpha * x + beta, 0, 1),
        "elu": lambda x: F.elu(x, alpha),
        "affine": lambda x: alpha * x + beta,
        "scaledtanh": lambda x: alpha * torch.tanh(beta * x),
    }
    if name not in functions:
        raise node.refuse(f"the activation {name!r} is unknown")
    return functions[name]


def _activations(node: Node, kind: str, directions: int) -> list[list[Activation]]:
    """The activations of each direction; alphas and betas are listed only for those that take them."""
    names = [one.lower() for one in node.attributes.get("activations", _DEFAULTS[kind] * directions)]
    alphas = iter(node.attributes.get("activation_alpha", []))
    betas = iter(node.attributes.get("activation_beta", []))
    found = [
        _activation(
            node,
            name,
            next(alphas, _ALPHA[name]) if name in _ALPHA else 0.0,
            next(betas, _BETA[name]) if name in _BETA else 0.0,
        )
        for name in names
    ]
    each = len(found) // directions
    return [found[at * each : (at + 1) * each] for at in range(directions)]


def _clipped(node: Node, x: Tensor) -> Tensor:
    bound = node.attributes.get("clip")
    return x if bound is None else torch.clamp(x, -bound, bound)


def _lstm(
    node: Node, at: Tensor, r: Tensor, rb: Tensor | None, states: list[Tensor], f: list[Activation], p: Tensor | None
) -> list[Tensor]:
    h, c = states
    i, o, g, n = (at + F.linear(h, r, rb)).chunk(4, -1)
    pi, po, pf = (None, None, None) if p is None else p.chunk(3)
    if pi is not None and pf is not None:
        i, g = i + pi * c, g + pf * c
    i = f[0](_clipped(node, i))
    g = 1 - i if node.integer("input_forget", 0) else f[0](_clipped(node, g))
    c = g * c + i * f[1](_clipped(node, n))
    o = f[0](_clipped(node, o if po is None else o + po * c))
    return [o * f[2](c), c]


def _gru(
    node: Node, at: Tensor, r: Tensor, rb: Tensor | None, states: list[Tensor], f: list[Activation], _: Tensor | None
) -> list[Tensor]:
    (h,) = states
    hidden = h.shape[-1]
    b = r.new_zeros(r.shape[0]) if rb is None else rb
    gates = at[..., : 2 * hidden] + F.linear(h, r[: 2 * hidden], b[: 2 * hidden])
    z, reset = (f[0](_clipped(node, one)) for one in gates.chunk(2, -1))
    if node.integer("linear_before_reset", 0):
        candidate = at[..., 2 * hidden :] + reset * F.linear(h, r[2 * hidden :], b[2 * hidden :])
    else:
        candidate = at[..., 2 * hidden :] + F.linear(reset * h, r[2 * hidden :], b[2 * hidden :])
    return [(1 - z) * f[1](_clipped(node, candidate)) + z * h]


def _rnn(
    node: Node, at: Tensor, r: Tensor, rb: Tensor | None, states: list[Tensor], f: list[Activation], _: Tensor | None
) -> list[Tensor]:
    return [f[0](_clipped(node, at + F.linear(states[0], r, rb)))]


_CELLS = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


def run(
    node: Node, kind: str, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, lengths: Tensor | None,
    starts: list[Tensor], peepholes: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """`x` [T, N, I] → Y [T, dirs, N, H] and the last states [dirs, N, H]; shapes of the parameters as in ONNX."""
    directions = w.shape[0]
    functions = _activations(node, kind, directions)
    direction = node.text("direction", "forward")
    ys, lasts = [], []
    for at in range(directions):
        wb, rb = (None, None) if b is None else b[at].chunk(2)
        backwards = direction == "reverse" or at == 1
        projected = F.linear(x, w[at], wb)
        p = None if peepholes is None else peepholes[at]
        states = [one[at] for one in starts]
        rows: list[Tensor] = []
        for turn in range(x.shape[0]):
            step = x.shape[0] - 1 - turn if backwards else turn
            new = _CELLS[kind](node, projected[step], r[at], rb, states, functions[at], p)
            out = new[0]
            if lengths is not None:
                runs = (step < lengths)[:, None]
                out = torch.where(runs, out, torch.zeros_like(out))
                new = [torch.where(runs, one, old) for one, old in zip(new, states, strict=True)]
            states = new
            rows.append(out)
        stacked = torch.stack(rows[::-1] if backwards else rows) if rows else x.new_zeros(0, *starts[0].shape[1:])
        ys.append(stacked)
        lasts.append(states)
    return torch.stack(ys, 1), [torch.stack(column) for column in zip(*lasts, strict=True)]
