"""`--values shared:auto` with data: the fewest bits for each tensor that a budget allows, measured in onnxruntime."""

from .run import MAX_DROP, MAX_ERROR, Wanted, described, share_values

__all__ = ["MAX_DROP", "MAX_ERROR", "Wanted", "described", "share_values"]
