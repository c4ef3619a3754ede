"""Operators on Hosts: arithmetic, and moving entries about. Importing this registers them."""

from __future__ import annotations

from onnxprune.torch.host_ops import arithmetic, moves

__all__ = ["arithmetic", "moves"]
