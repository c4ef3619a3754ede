"""How data is read, beside its name: what `--data-option KEY=VALUE` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from onnxprune_passes.errors import SelectionError

COLUMN = "column."
T = TypeVar("T")


@dataclass(frozen=True)
class DataOptions:
    """Options of image folders and data sets; None and empty ones were not given.

    Attributes:
        scale: pixels 0..255 are multiplied with it; 1/255 by default for inputs of floats, 1 for integers.
        mean: subtracted after that, one number or one a channel; 0 by default.
        std: divided by at last, one number or one a channel; 1 by default.
        size: height and width, where the model leaves them open.
        resize: the shorter side before the centre is cut out; by default the picture is made just large enough.
        fit: "crop" cuts the centre, "stretch" changes the picture's proportions instead.
        order: "rgb" or "bgr" channels.
        layout: "nchw" or "nhwc", where the input's shape leaves both possible.
        split: which split of a data set is read.
        count: how many samples are taken for a verification, spread evenly; 1024 by default.
        columns: input name (or `labels`) → column of a data set.
    """

    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    resize: int | None = None
    fit: Literal["crop", "stretch"] | None = None
    order: Literal["rgb", "bgr"] | None = None
    layout: Literal["nchw", "nhwc"] | None = None
    split: str | None = None
    count: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def given(self) -> tuple[str, ...]:
        """The options that were given, by name."""
        return tuple(name for name in self.__dataclass_fields__ if getattr(self, name) not in (None, (), {}))

    def require_only(self, what: str, read: Sequence[str]) -> None:
        """Raise SelectionError when an option was given that `what` does not read."""
        for name in self.given:
            if name not in read:
                shown = f"{COLUMN}…" if name == "columns" else name
                known = f"it reads {', '.join(read)}" if read else "it takes none"
                raise SelectionError(f"--data-option {shown} has no meaning for {what} ({known}): leave it out")


PIXELS = ("scale", "mean", "std", "size", "resize", "fit", "order", "layout")
"""The options of pictures."""


def data_options_from(entries: Sequence[str]) -> DataOptions:
    """The options of "KEY=VALUE" entries; lists are written `0.5,0.5,0.5`, sizes `224x224` or `224`.

    Raises:
        SelectionError: an unknown key, a key given twice, or a value that is none.
    """
    values: dict[str, Any] = {}
    columns: dict[str, str] = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not equals or not text:
            raise SelectionError(f"--data-option {entry!r} is not KEY=VALUE, such as mean=0.5")
        target, name = (columns, key.removeprefix(COLUMN)) if key.startswith(COLUMN) else (values, key)
        if name in target:
            raise SelectionError(f"--data-option {key} is given twice: give it once")
        target[name] = text if target is columns else _value(key, text)
    return DataOptions(**values, columns=columns)


def _value(key: str, text: str) -> Any:
    """The value of one option."""
    try:
        match key:
            case "scale":
                return float(text)
            case "mean" | "std":
                return _numbers(key, text)
            case "size":
                height, _, width = text.partition("x")
                return _positive(height), _positive(width or height)
            case "resize" | "count":
                return _positive(text)
            case "fit":
                return _one_of(text, ("crop", "stretch"))
            case "order":
                return _one_of(text, ("rgb", "bgr"))
            case "layout":
                return _one_of(text, ("nchw", "nhwc"))
            case "split":
                return text
    except ValueError as error:
        raise SelectionError(f"--data-option {key}={text}: {error}") from error
    known = (*(name for name in DataOptions.__dataclass_fields__ if name != "columns"), f"{COLUMN}INPUT")
    close = get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    raise SelectionError(f"--data-option {key} is unknown: {hint}")


def _numbers(key: str, text: str) -> tuple[float, ...]:
    numbers = tuple(float(part) for part in text.split(","))
    if key == "std" and not all(number > 0 for number in numbers):
        raise ValueError("expected numbers above 0")
    return numbers


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def _one_of(text: str, known: tuple[T, ...]) -> T:
    if text not in known:
        raise ValueError(f"expected {' or '.join(map(str, known))}")
    return known[known.index(text)]
