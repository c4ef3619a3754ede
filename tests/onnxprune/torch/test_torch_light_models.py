"""The nine image networks that the onnx package carries; most of their weights are made by ConstantOfShape."""

from __future__ import annotations

from pathlib import Path

import onnx.backend.test
import pytest
from onnxprune_passes.storage import load

from onnxprune.torch import module_from_model

pytestmark = pytest.mark.slow

FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
FILES = sorted(FOLDER.glob("*.onnx"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_it_agrees_with_onnxruntime(path: Path) -> None:
    module = module_from_model(load(path))
    assert module.check is not None
    assert not module.check.amplified


def test_they_are_there() -> None:
    assert len(FILES) == 9
