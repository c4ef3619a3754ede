"""Resize and Upsample: each axis on its own, as a weighted sum of a few of its entries (ONNX Resize, operator docs)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.registry import op

_COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class Rule:
    """How one axis is resampled; `roi` is the part of it that is shown, in shares of its length."""

    size: int
    out: int
    scale: float
    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude: bool
    antialias: bool
    roi: tuple[float, float]
    extrapolation: float


def _places(rule: Rule) -> NDArray[np.float64]:
    """Where each output entry lies on the input axis."""
    at = np.arange(rule.out, dtype=np.float64)
    if rule.coordinates == "align_corners":
        length = rule.scale * rule.size  # not rounded down, as the size of the output is
        return np.zeros(rule.out) if rule.out == 1 else at * (rule.size - 1) / (length - 1)
    if rule.coordinates == "asymmetric":
        return at / rule.scale
    if rule.coordinates == "tf_crop_and_resize":
        start, end = rule.roi
        if rule.out == 1:
            return np.full(1, 0.5 * (start + end) * (rule.size - 1))
        return start * (rule.size - 1) + at * (end - start) * (rule.size - 1) / (rule.out - 1)
    if rule.coordinates == "tf_half_pixel_for_nn":
        return (at + 0.5) / rule.scale
    if rule.coordinates == "pytorch_half_pixel" and rule.out == 1:
        return np.full(1, -0.5)
    if rule.coordinates == "half_pixel_symmetric":
        adjustment = rule.out / (rule.scale * rule.size)
        centre = rule.size / 2
        return centre * (1 - adjustment) + (at + 0.5) / rule.scale - 0.5
    return (at + 0.5) / rule.scale - 0.5


def _kernel(distance: NDArray[np.float64], mode: str, cubic: float) -> NDArray[np.float64]:
    """The weight of an entry at a distance: a triangle, or Keys' cubic (IEEE ASSP 29(6), 1981, eq. 15)."""
    far: NDArray[np.float64] = np.abs(distance)
    if mode == "linear":
        return np.maximum(1 - far, 0.0)
    near = ((cubic + 2) * far - (cubic + 3)) * far**2 + 1
    wide = ((cubic * far - 5 * cubic) * far + 8 * cubic) * far - 4 * cubic
    return np.asarray(np.where(far <= 1, near, np.where(far < 2, wide, 0.0)))


@lru_cache(maxsize=256)
def taps(rule: Rule) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """For each output entry: the input entries it is made of [out, T], their weights, and whether it lies outside."""
    places = _places(rule)
    outside = (places < 0) | (places > rule.size - 1) if rule.coordinates == "tf_crop_and_resize" else places != places
    if rule.mode == "nearest":
        functions: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
            "round_prefer_floor": lambda one: np.ceil(one - 0.5),
            "round_prefer_ceil": lambda one: np.floor(one + 0.5),
            "floor": np.floor,
            "ceil": np.ceil,
        }
        index = functions[rule.nearest](places).astype(np.int64)[:, None]
        return np.clip(index, 0, rule.size - 1), np.ones(index.shape), outside
    stretch = max(1 / rule.scale, 1.0) if rule.antialias else 1.0
    reach = stretch * (1 if rule.mode == "linear" else 2)
    first = np.floor(places - reach).astype(np.int64)
    index = first[:, None] + np.arange(2 * math.ceil(reach) + 2)
    weights = _kernel((index - places[:, None]) / stretch, rule.mode, rule.cubic)
    if rule.exclude:
        weights = np.where((index < 0) | (index >= rule.size), 0, weights)
    if rule.exclude or rule.antialias or rule.mode == "linear":
        weights = weights / weights.sum(1, keepdims=True)
    used = np.flatnonzero((weights != 0).any(0))
    low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
    return np.clip(index, 0, rule.size - 1)[:, low:high], weights[:, low:high], outside


def resampled(x: Tensor, axis: int, rule: Rule) -> tuple[Tensor, Tensor]:
    """`x` along one axis, and which of its entries lie outside of the region that is shown (bool [out])."""
    index, weights, outside = taps(rule)
    at = torch.from_numpy(index.copy()).to(x.device)
    gone = torch.from_numpy(outside.copy()).to(x.device)
    if index.shape[1] == 1 and rule.mode == "nearest":
        return x.index_select(axis, at[:, 0]), gone
    wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
    factors = torch.from_numpy(weights).to(x.device, wide.dtype)
    total: Tensor | None = None
    for tap in range(index.shape[1]):
        part = wide.index_select(axis, at[:, tap]) * factors[:, tap].reshape([-1] + [1] * (x.ndim - axis - 1))
        total = part if total is None else total + part
    return (x if total is None else total), gone


def _targets(
    node: Node, x: Tensor, scales: Host | None, sizes: Host | None, axes: list[int]
) -> dict[int, tuple[int, float]]:
    """Axis → (output size, scale)."""
    if scales is not None and scales.values:
        return {
            axis: (math.floor(x.shape[axis] * scale), scale) for axis, scale in zip(axes, scales.values, strict=True)
        }
    if sizes is None:
        raise node.refuse("neither scales nor sizes are given")
    policy = node.only("keep_aspect_ratio_policy", ("stretch", "not_larger", "not_smaller"), "stretch")
    exact = {axis: size / x.shape[axis] for axis, size in zip(axes, sizes.values, strict=True)}
    if policy == "stretch":
        return {axis: (int(size), exact[axis]) for axis, size in zip(axes, sizes.values, strict=True)}
    scale = min(exact.values()) if policy == "not_larger" else max(exact.values())
    return {axis: (math.floor(scale * x.shape[axis] + 0.5), scale) for axis in axes}


@op("Resize", since=10, host=(1, 2, 3))
def resize(
    node: Node, x: Tensor, roi: Host | None = None, scales: Host | None = None, sizes: Host | None = None
) -> Tensor:
    """`x` with its axes resampled to `sizes`, or by `scales`; in opset 10 the second input holds the scales."""
    if node.opset < 11:
        roi, scales = None, roi
    axes = [axis % x.ndim for axis in node.ints("axes") or range(x.ndim)]
    default = "asymmetric" if node.opset < 11 else "half_pixel"
    coordinates = node.only("coordinate_transformation_mode", _COORDINATES, default)
    nearest = node.only("nearest_mode", _NEAREST, "floor" if node.opset < 11 else "round_prefer_floor")
    return _resized(node, x, _targets(node, x, scales, sizes, axes), coordinates, nearest, _region(roi, axes))


def _region(roi: Host | None, axes: Sequence[int]) -> dict[int, tuple[float, float]]:
    if roi is None or not roi.values:
        return {}
    return {axis: (roi.values[at], roi.values[at + len(axes)]) for at, axis in enumerate(axes)}


def _resized(
    node: Node,
    x: Tensor,
    targets: dict[int, tuple[int, float]],
    coordinates: str,
    nearest: str,
    region: dict[int, tuple[float, float]],
) -> Tensor:
    mode = node.only("mode", ("nearest", "linear", "cubic"), "nearest")
    y, hidden = x, []
    for axis, (out, scale) in targets.items():
        shown = region.get(axis, (0.0, 1.0))
        if out == x.shape[axis] and scale == 1.0 and (coordinates != "tf_crop_and_resize" or shown == (0.0, 1.0)):
            continue
        rule = Rule(
            x.shape[axis], out, scale, mode, coordinates, nearest, node.real("cubic_coeff_a", -0.75),
            bool(node.integer("exclude_outside", 0)), bool(node.integer("antialias", 0)), shown,
            node.real("extrapolation_value", 0.0),
        )  # fmt: skip
        y, outside = resampled(y, axis, rule)
        hidden.append((axis, outside))
    if coordinates == "tf_crop_and_resize":
        for axis, outside in hidden:
            shape = [-1 if one == axis else 1 for one in range(x.ndim)]
            y = torch.where(outside.reshape(shape), y.new_tensor(node.real("extrapolation_value", 0.0)), y)
    return y if y.dtype == x.dtype else y.round().to(x.dtype) if not x.is_floating_point() else y.to(x.dtype)


@op("Upsample", host=(1,))
def upsample(node: Node, x: Tensor, scales: Host | None = None) -> Tensor:
    """`x` enlarged by `scales`, which are an attribute before opset 9."""
    given = node.attributes["scales"] if scales is None else scales.values
    targets = {axis: (math.floor(x.shape[axis] * scale), scale) for axis, scale in enumerate(given)}
    return _resized(node, x, targets, "asymmetric", "floor", {})
