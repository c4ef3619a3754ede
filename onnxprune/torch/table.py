"""Rows of tensors as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.torch.assign import TensorRow

_HEAD = ("tensor", "is", "trained", "roles", "shape", "type", "note")


def as_text(rows: Sequence[TensorRow]) -> str:
    """One line a tensor in columns as wide as they need; constants without a key are counted at the end."""
    cells = [_HEAD] + [
        (
            row.key,
            row.kind,
            "yes" if row.trained else "no",
            ", ".join(row.roles) or "-",
            "x".join(map(str, row.shape)) or "scalar",
            row.dtype,
            row.note,
        )
        for row in rows
        if row.key
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    nameless = sum(not row.key for row in rows)
    return "\n".join([*lines, *([f"and {nameless} constants without a name"] if nameless else [])])
