"""Figures of results, drawn with matplotlib (`pip install onnxprune[plot]`): a PNG or SVG file each."""

from __future__ import annotations

from .sensitivity import plot_sensitivity

__all__ = ["plot_sensitivity"]
