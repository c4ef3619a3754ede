"""What the tests of saving share."""

from __future__ import annotations

import re
from pathlib import Path

from builders import proto, ramp, stored
from onnx import helper
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, load

NAMING = re.compile(r"(?P<stem>.+)\.(?P<content>[0-9a-f]{8})\.data")


def two(start: int = 1) -> Model:
    """Two weights of 1,200 and 4,000 bytes and one of 40."""
    tensors = [
        stored("a", ramp(300, start=start)),
        stored("b", ramp(1000, start=start)),
        stored("c", ramp(10, start=start)),
    ]
    return from_proto(proto([helper.make_node("Sum", ["a", "b", "c"], ["y"])], tensors))


def listing(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def data_file(folder: Path) -> Path:
    (found,) = folder.glob("*.data")
    return found


def starts(path: Path) -> float:
    """The first value of every weight of a `two` model, which must all be the same."""
    firsts = {float(values.reshape(-1)[0]) for values in load(path).initializers.values()}
    assert len(firsts) == 1
    return firsts.pop()
