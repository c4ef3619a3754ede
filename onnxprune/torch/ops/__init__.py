"""The operators, one file a family. Importing this registers them.

A function takes the node and its inputs as tensors (absent ones None), leaves them as they are, and gives a tensor, or
a tuple in the order of the node's outputs. In the docstrings `x [N, C]` is a tensor `x` of shape [N, C].
"""

from __future__ import annotations

from onnxprune.torch.ops import (
    activations,
    arithmetic,
    attention,
    control,
    conv,
    create,
    gather,
    integers,
    layout,
    linear,
    logic,
    losses,
    microsoft,
    norm,
    order,
    pad,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    scatter,
    sequence,
    signal,
    space,
    unary,
    vision,
)

__all__ = [
    "activations",
    "arithmetic",
    "attention",
    "control",
    "conv",
    "create",
    "gather",
    "integers",
    "layout",
    "linear",
    "logic",
    "losses",
    "microsoft",
    "norm",
    "order",
    "pad",
    "pool",
    "quantize",
    "recurrent",
    "reduce",
    "resize",
    "scatter",
    "sequence",
    "signal",
    "space",
    "unary",
    "vision",
]
