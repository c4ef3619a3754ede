"""Figures of models and results, drawn with matplotlib (`pip install onnxprune[plot]`): a PNG or SVG file each."""

from __future__ import annotations

from .sensitivity import plot_sensitivity
from .trade_off import plot_trade_off
from .weights import plot_histogram, plot_mask

__all__ = ["plot_histogram", "plot_mask", "plot_sensitivity", "plot_trade_off"]
