"""What a module is put together from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from onnxprune_passes.masks import Masks

from onnxprune.torch.assign import TensorRow
from onnxprune.torch.node import RunState
from onnxprune.torch.plan import Plan, Step


@dataclass(frozen=True)
class InputSpec:
    """An input of the module.

    Attributes:
        name: its name.
        dims: its dims, an int or None where the file leaves the size open; None when it has no known rank.
        element: its ONNX element type, 0 when it is no tensor.
    """

    name: str
    dims: tuple[int | None, ...] | None
    element: int = 0


@dataclass(frozen=True)
class Check:
    """A comparison with onnxruntime, optimisations off.

    Attributes:
        max_error: the largest difference over the largest value of its output.
        amplified: the outputs differ by more than is allowed, but no node does on onnxruntime's own values: the model
            makes differences in rounding large.
    """

    max_error: float
    amplified: bool


@dataclass(frozen=True, eq=False)
class Bound:
    """A constant of the plan: the registered name of its tensor; for a latent one those of scale and zero point.

    `dtype` is the element type of the file where the module holds another: that of a latent one's integers, or the
    narrow floating point type of a parameter that is held in float32.
    """

    name: str
    is_parameter: bool
    scale: str = ""
    zero: str = ""
    dtype: torch.dtype | None = None


@dataclass(eq=False)
class Parts:
    """What `module_from_model` puts together for an `OnnxModule`."""

    plan: Plan
    state: RunState
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    bound: tuple[Bound, ...]
    rows: tuple[TensorRow, ...]
    values: Mapping[str, tuple[Step, int]]
    masks: Masks
