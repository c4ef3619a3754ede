"""One figure in one file, without a display."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune_passes.errors import DataError, SelectionError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")


def check_plot(path: str | Path) -> None:
    """Find out before the work whether a figure can be drawn to `path`.

    Raises:
        SelectionError: the name ends in neither .png nor .svg, or matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise SelectionError(f"--plot {path}: a figure is a {' or '.join(FORMATS)} file; choose such a name")
    if find_spec("matplotlib") is None:
        raise SelectionError("--plot needs matplotlib: install onnxprune[plot], or leave --plot out")


@contextmanager
def figure(path: str | Path, title: str) -> Iterator[Axes]:
    """Axes to draw into; the file is there, whole, when the block ends well. The same drawing gives the same bytes.

    Raises:
        SelectionError: see `check_plot`.
        DataError: the file cannot be written.
    """
    check_plot(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path = Path(path)
    with rc_context({"svg.hashsalt": "onnxprune", "svg.fonttype": "path"}):
        drawing = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
        axes = drawing.add_subplot()
        axes.set_title(title)
        axes.grid(visible=True, alpha=0.3)
        yield axes
        temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        stamp = {"Date": None} if path.suffix.lower() == ".svg" else {}
        try:
            drawing.savefig(temporary, metadata=stamp)
            temporary.replace(path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}; choose another --plot") from error
        finally:
            temporary.unlink(missing_ok=True)
