"""Specs, rows and pictures for the tests of samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.runtime import TensorSpec

SpecOf = Callable[..., TensorSpec]


@pytest.fixture
def spec_of() -> SpecOf:
    """`spec_of(name, shape, dtype=float32)`."""

    def spec(name: str, shape: tuple[int | str | None, ...], dtype: Any = np.float32) -> TensorSpec:
        return TensorSpec(name, "tensor", np.dtype(dtype), shape)

    return spec


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    """`picture(height, width, seed=0)`: random RGB bytes."""

    def made(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return made


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`own_module(code)` writes `own_data.py` into the current folder, from which commands import it."""

    def write(code: str) -> None:
        (tmp_path / "own_data.py").write_text("import numpy as np\n" + code)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(__import__("sys").modules, "own_data", raising=False)

    return write
