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
_SIZE = (7.0, 4.5)


def check_plot(path: str | Path, option: str = "--plot") -> None:
    """Find out before the work whether a figure can be drawn to `path`, which `option` of a command names.

    Raises:
        SelectionError: the name ends in neither .png nor .svg, or matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise SelectionError(f"{option} {path}: a figure is a {' or '.join(FORMATS)} file; choose such a name")
    if find_spec("matplotlib") is None:
        raise SelectionError(f"{option} needs matplotlib: install onnxprune[plot]")


@contextmanager
def figure(path: str | Path, title: str) -> Iterator[Axes]:
    """Axes to draw into; the file is there, whole, when the block ends well. The same drawing gives the same bytes.

    Raises:
        SelectionError: see `check_plot`.
        DataError: the file cannot be written.
    """
    with figures(path, title) as (axes,):
        axes.grid(visible=True, alpha=0.3)
        yield axes


@contextmanager
def figures(
    path: str | Path, title: str, heights: tuple[float, ...] = (1.0,), size: tuple[float, float] = _SIZE
) -> Iterator[tuple[Axes, ...]]:
    """The same with several axes, one under the other; `heights` are their shares, `size` is in inches at 150 dpi."""
    check_plot(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path = Path(path)
    with rc_context({"svg.hashsalt": "onnxprune", "svg.fonttype": "path"}):
        drawing = Figure(figsize=size, dpi=150, layout="constrained")
        grid = drawing.add_gridspec(len(heights), 1, height_ratios=heights)
        parts = tuple(drawing.add_subplot(grid[row, 0]) for row in range(len(heights)))
        parts[0].set_title(title)
        yield parts
        temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        stamp = {"Date": None} if path.suffix.lower() == ".svg" else {}
        try:
            drawing.savefig(temporary, metadata=stamp)
            temporary.replace(path)
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}; choose another file") from error
        finally:
            temporary.unlink(missing_ok=True)
