"""Regions of interest and boxes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import number
from onnxprune.torch.registry import op


def _corners(plane: Tensor, y: Tensor, x: Tensor) -> list[Tensor]:
    """The four weighted neighbours of plane [C, H, W] at the grid y [P] times x [Q]; each [C, P, Q]."""
    height, width = plane.shape[-2:]
    gone = ((y < -1) | (y > height))[:, None] | ((x < -1) | (x > width))[None, :]
    y, x = y.clamp(min=0), x.clamp(min=0)
    top, left = y.floor().long().clamp(max=height - 1), x.floor().long().clamp(max=width - 1)
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    y = torch.where(top >= height - 1, top.to(y.dtype), y)
    x = torch.where(left >= width - 1, left.to(x.dtype), x)
    down, across = (y - top)[:, None], (x - left)[None, :]
    weights = ((1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across)
    pairs = ((top, left), (top, right), (bottom, left), (bottom, right))
    return [
        torch.where(gone, torch.zeros_like(weight), weight) * plane[:, rows[:, None], columns[None, :]]
        for weight, (rows, columns) in zip(weights, pairs, strict=True)
    ]


def _bins(shown: Tensor, height: int, rows: int, width: int, columns: int) -> Tensor:
    """[C, height · rows, width · columns] → [C, height, rows, width, columns]."""
    return shown.reshape(-1, height, rows, width, columns)


@op("RoiAlign", since=10)
def roi_align(node: Node, x: Tensor, rois: Tensor, batches: Tensor) -> Tensor:
    """`x` [N, C, H, W], rois [R, 4] (x1, y1, x2, y2), batches [R] → [R, C, output_height, output_width]."""
    height, width = node.integer("output_height", 1), node.integer("output_width", 1)
    scale, sampling = node.real("spatial_scale", 1.0), node.integer("sampling_ratio", 0)
    mode = node.only("mode", ("avg", "max"), "avg")
    default = "half_pixel" if node.opset >= 16 else "output_half_pixel"
    half = node.text("coordinate_transformation_mode", default) == "half_pixel"
    found = []
    for roi, batch in zip(rois, batches, strict=True):
        x1, y1, x2, y2 = (roi * scale - (0.5 if half else 0.0)).unbind()
        tall, broad = y2 - y1, x2 - x1
        if not half:
            tall, broad = tall.clamp(min=1), broad.clamp(min=1)
        rows = sampling or math.ceil(float(tall) / height)
        columns = sampling or math.ceil(float(broad) / width)
        y = y1 + (torch.arange(height * rows, device=x.device, dtype=x.dtype) + 0.5) * (tall / (height * rows))
        across = torch.arange(width * columns, device=x.device, dtype=x.dtype) + 0.5
        corners = _corners(x[int(batch)], y, x1 + across * (broad / (width * columns)))
        if mode == "avg":
            total = corners[0] + corners[1] + corners[2] + corners[3]
            found.append(_bins(total, height, rows, width, columns).mean((2, 4)))
        else:
            largest = torch.stack(corners).amax(0)
            found.append(_bins(largest, height, rows, width, columns).amax((2, 4)))
    return torch.stack(found) if found else x.new_zeros(0, x.shape[1], height, width)


def _overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of a box [4] (y1, x1, y2, x2) with others [K, 4]."""
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + areas - shared)


@op("NonMaxSuppression", since=10, host=(2, 3, 4))
def non_max_suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    most: Host | None = None,
    overlap: Host | None = None,
    score: Host | None = None,
) -> Tensor:
    """`boxes` [B, K, 4], scores [B, classes, K] → (batch, class, box) of those that are kept; int64 [found, 3]."""
    limit = int(number(most) or 0)
    allowed, least = float(number(overlap) or 0), number(score)
    corners = _as_corners(boxes, bool(node.integer("center_point_box", 0)))
    found: list[list[int]] = []
    for batch in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            kept = _kept(corners[batch], scores[batch, kind], limit, allowed, least)
            found.extend([batch, kind, index] for index in kept)
    return torch.tensor(found, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _as_corners(boxes: Tensor, centred: bool) -> Tensor:
    """Boxes as (low y, low x, high y, high x), from (x, y, width, height) or from any two corners."""
    if centred:
        x, y, width, height = boxes.unbind(-1)
        return torch.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _kept(boxes: Tensor, scores: Tensor, limit: int, allowed: float, least: Any) -> list[int]:
    order: Tensor = torch.sort(scores, descending=True, stable=True).indices
    if least is not None:
        order = order[scores[order] > least]
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        best = int(order[0])
        kept.append(best)
        rest = order[1:]
        order = rest[_overlap(boxes[best], boxes[rest]) <= allowed]
    return kept
