"""The options of `onnxprune sensitivity` from what a command line gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from onnxprune_passes.errors import SelectionError

from .records import SensitivityOptions


def options_from(model: str, densities: str | None, given: Mapping[str, Any]) -> SensitivityOptions:
    """Checked options; what is None or empty in `given` (by field) takes its default.

    Raises:
        SelectionError: a value of the wrong kind or out of range, naming the option.
    """
    values = {name.replace("_", "-"): value for name, value in given.items() if value not in (None, ())}
    if densities is not None:
        values["densities"] = [_density(text) for text in densities.split(",")]
    try:
        return msgspec.convert({**values, "model": model}, SensitivityOptions)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`").split("[")[0]
        plain = what[:1].lower() + what[1:].replace(" | null", "").replace("`", "")
        raise SelectionError(f"--{name}: {plain}") from error


def _density(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= 1:
        raise SelectionError(
            f"--densities: {text.strip()!r} is no density; give numbers 0 < density <= 1, such as 1,0.5,0.1"
        )
    return value
