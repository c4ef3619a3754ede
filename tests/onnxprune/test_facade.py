from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import onnxprune
import onnxprune.passes


def test_the_facade_exports_what_it_imports() -> None:
    source = ast.parse(Path(onnxprune.passes.__file__).read_text())
    imported = {
        alias.asname or alias.name
        for node in source.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imported == set(onnxprune.passes.__all__)
    assert list(onnxprune.passes.__all__) == sorted(onnxprune.passes.__all__, key=_as_ruff_sorts)


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_importing_the_package_and_the_facade_needs_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys, onnxprune, onnxprune.passes, onnxprune.cli.main; "
        "print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_importing_the_package_takes_less_than_half_a_second() -> None:
    code = "import time; t = time.perf_counter(); import onnxprune; print(time.perf_counter() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(runs) < 0.5
