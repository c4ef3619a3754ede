"""Values for single layers: "GLOB=V" as `--layer` and `--channel-layer` take it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxprune_passes.errors import SelectionError


@dataclass(frozen=True)
class LayerValue:
    """A `--layer` or `--channel-layer` option: the glob and the value, in the unit of the mode in force."""

    glob: str
    value: float


def split_layer(entry: str, option: str = "--layer") -> LayerValue:
    """The glob and value of "GLOB=V" given to `option`, split at the last "=". Raises SelectionError."""
    glob, equals, text = entry.rpartition("=")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not equals or not glob or not math.isfinite(value):
        raise SelectionError(f"{option} {entry!r} is not GLOB=V with a number V, such as 'fc1.*=0.9'")
    return LayerValue(glob, value)
