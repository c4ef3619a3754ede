"""Fourier transforms."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import number
from onnxprune.torch.registry import op


@op("DFT", since=17, host=(1, 2))
def dft(node: Node, x: Tensor, length: Host | None = None, axis: Host | None = None) -> Tensor:
    """`x` [..., K, ..., 1 or 2] (real, or real and imaginary parts) → its transform along an axis, [..., 2].

    `onesided` keeps the first length / 2 + 1 entries; the inverse of such a half is real, [..., 1].
    """
    at = node.integer("axis", 1) if node.opset < 20 else -2 if axis is None else int(number(axis))
    at %= x.ndim
    size = None if length is None else int(number(length))
    half, inverse = bool(node.integer("onesided", 0)), bool(node.integer("inverse", 0))
    signal = torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x[..., 0]
    if inverse and half:
        real: Tensor = torch.fft.irfft(signal, n=size, dim=at)
        return real.unsqueeze(-1)
    if inverse:
        return torch.view_as_real(torch.fft.ifft(signal, n=size, dim=at))
    found = torch.fft.fft(signal, n=size, dim=at)
    if half:
        found = found.narrow(at, 0, found.shape[at] // 2 + 1)
    return torch.view_as_real(found.resolve_conj())


@op("STFT", since=17, host=(1, 3))
def stft(node: Node, x: Tensor, step: Host, window: Tensor | None = None, length: Host | None = None) -> Tensor:
    """`x` [B, L] or [B, L, 1 or 2] → [B, frames, bins, 2]: the transform of each windowed frame, `step` apart."""
    signal = x if x.ndim == 2 else torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x[..., 0]
    size = signal.shape[1] if window is None else window.shape[0]
    size = size if length is None else int(number(length))
    frames = signal.unfold(1, size, int(number(step)))
    if window is not None:
        frames = frames * window
    found = torch.fft.fft(frames, dim=-1)
    if node.integer("onesided", 1):
        found = found[..., : size // 2 + 1]
    return torch.view_as_real(found.resolve_conj())
