"""Tensors made from shapes, numbers and chance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from onnxprune.torch.dtypes import torch_from_onnx
from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import number
from onnxprune.torch.registry import op


def _dtype(node: Node, default: torch.dtype, name: str = "dtype") -> torch.dtype:
    element = node.attributes.get(name)
    return default if element is None else torch_from_onnx(element, str(node))


@op("ConstantOfShape", since=9, host=(0,))
def constant_of_shape(node: Node, dims: Host) -> Tensor:
    """A tensor of the given dims, every entry `value`."""
    value = node.attributes.get("value")
    dtype = torch.float32 if value is None else value.dtype
    fill = 0 if value is None else value.reshape(-1)[0].item()
    return torch.full(list(dims.values), fill, dtype=dtype, device=node.state.device)


@op("Range", since=11, host=(0, 1, 2))
def range_(node: Node, start: Host, limit: Host, delta: Host) -> Tensor:
    """Numbers from `start` on, `delta` apart, before `limit`."""
    first, step = start.item, delta.item
    if start.dtype.is_floating_point:
        count = int(max(math.ceil((limit.item - first) / step), 0))
        steps = torch.arange(count, dtype=start.dtype, device=node.state.device)
        return steps * float(step) + float(first)
    if type(step) is int and ((step > 0 and limit.item <= first) or (step < 0 and limit.item >= first)):
        return torch.empty(0, dtype=start.dtype, device=node.state.device)
    return torch.arange(first, limit.item, step, dtype=start.dtype, device=node.state.device)


@op("EyeLike", since=9)
def eye_like(node: Node, x: Tensor) -> Tensor:
    """`x` [M, N] → ones on the diagonal `k`, zeros elsewhere."""
    dtype = _dtype(node, x.dtype)
    ones = torch.ones(x.shape, dtype=torch.float64, device=x.device)
    k = node.integer("k", 0)
    return (ones.triu(k) - ones.triu(k + 1)).to(dtype)


def _generator(node: Node) -> torch.Generator | None:
    """A generator for the attribute `seed`; torch's own (torch.manual_seed) without it."""
    seed = node.attributes.get("seed")
    if seed is None:
        return None
    return torch.Generator(node.state.device).manual_seed(int(torch.tensor(seed).view(torch.int32)))


def _random(node: Node, shape: Any, dtype: torch.dtype, normal: bool) -> Tensor:
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    draw = torch.randn if normal else torch.rand
    drawn: Tensor = draw(list(shape), dtype=wide, device=node.state.device, generator=_generator(node))
    if normal:
        return (drawn * node.real("scale", 1.0) + node.real("mean", 0.0)).to(dtype)
    low, high = node.real("low", 0.0), node.real("high", 1.0)
    return (drawn * (high - low) + low).to(dtype)


@op("RandomNormal")
def random_normal(node: Node) -> Tensor:
    """Normal numbers of the attribute `shape`."""
    return _random(node, node.ints("shape"), _dtype(node, torch.float32), normal=True)


@op("RandomUniform")
def random_uniform(node: Node) -> Tensor:
    """Uniform numbers of the attribute `shape`."""
    return _random(node, node.ints("shape"), _dtype(node, torch.float32), normal=False)


@op("RandomNormalLike")
def random_normal_like(node: Node, x: Tensor) -> Tensor:
    """Normal numbers of the shape of x."""
    return _random(node, x.shape, _dtype(node, x.dtype), normal=True)


@op("RandomUniformLike")
def random_uniform_like(node: Node, x: Tensor) -> Tensor:
    """Uniform numbers of the shape of x."""
    return _random(node, x.shape, _dtype(node, x.dtype), normal=False)


@op("Bernoulli", since=15)
def bernoulli(node: Node, x: Tensor) -> Tensor:
    """1 with the probability x, else 0."""
    return torch.bernoulli(x, generator=_generator(node)).to(_dtype(node, x.dtype))


@op("Multinomial")
def multinomial(node: Node, x: Tensor) -> Tensor:
    """`x` [N, classes], unnormalised log-probabilities → classes drawn [N, sample_size]."""
    count = node.integer("sample_size", 1)
    drawn = torch.multinomial(torch.softmax(x, -1), count, replacement=True, generator=_generator(node))
    return drawn.to(_dtype(node, torch.int32))


def _window(node: Node, size: Host, weights: tuple[float, ...]) -> Tensor:
    """The sum of weights[j] · cos(2 pi j n / N), N one less for a symmetric window."""
    count = int(number(size))
    span = count if node.integer("periodic", 1) else count - 1
    angle = torch.arange(count, dtype=torch.float64, device=node.state.device) * (2 * math.pi / max(span, 1))
    total = torch.zeros_like(angle)
    for times, weight in enumerate(weights):
        total = total + weight * torch.cos(times * angle)
    return total.to(_dtype(node, torch.float32, "output_datatype"))


@op("HannWindow", since=17, host=(0,))
def hann_window(node: Node, size: Host) -> Tensor:
    """1/2 - 1/2 cos; a vector of `size` entries."""
    return _window(node, size, (0.5, -0.5))


@op("HammingWindow", since=17, host=(0,))
def hamming_window(node: Node, size: Host) -> Tensor:
    """25/46 - 21/46 cos; a vector of `size` entries."""
    return _window(node, size, (25 / 46, -21 / 46))


@op("BlackmanWindow", since=17, host=(0,))
def blackman_window(node: Node, size: Host) -> Tensor:
    """0.42 - 0.5 cos + 0.08 cos of the double; a vector of `size` entries."""
    return _window(node, size, (0.42, -0.5, 0.08))


@op("MelWeightMatrix", since=17, host=(0, 1, 2, 3, 4))
def mel_weight_matrix(node: Node, bins: Host, length: Host, frequency: Host, lower: Host, upper: Host) -> Tensor:
    """Triangles on the mel scale (HTK's formula, 2595 log10(1 + f / 700)); [length / 2 + 1, bins]."""
    count, spectrum = int(number(bins)), int(number(length)) // 2 + 1
    low, high = (2595 * math.log10(1 + number(edge) / 700) for edge in (lower, upper))
    step = (high - low) / (count + 2)
    edges = [
        math.floor((int(number(length)) + 1) * 700 * (10 ** ((low + step * at) / 2595) - 1) / number(frequency))
        for at in range(count + 2)
    ]
    matrix = torch.zeros(spectrum, count, dtype=torch.float64)
    for at in range(count):
        left, centre, right = edges[at : at + 3]
        if centre == left:
            matrix[centre, at] = 1
        for row in range(left, centre + 1):
            if centre != left:
                matrix[row, at] = (row - left) / (centre - left)
        for row in range(centre, right):
            matrix[row, at] = (right - row) / (right - centre)
    return matrix.to(_dtype(node, torch.float32, "output_datatype")).to(node.state.device)
