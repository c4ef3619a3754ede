"""Importing onnxprune does not import torch, and the adapter says what is missing when torch is."""

from __future__ import annotations

import subprocess
import sys

MODULES = ("onnxprune", "onnxprune.passes", "onnxprune.cli.main", "onnxprune.verify", "onnxprune.prune")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_onnxprune_does_not_import_torch() -> None:
    imports = "\n".join(f"import {name}" for name in MODULES)
    assert python(f"{imports}\nimport sys\nprint('torch' in sys.modules)") == "False"


def test_without_torch_the_adapter_names_the_extra() -> None:
    code = (
        "import sys\nsys.modules['torch'] = None\nimport onnxprune\n"
        "try:\n    import onnxprune.torch\nexcept ImportError as error:\n    print(error)"
    )
    assert python(code) == "onnxprune.torch needs PyTorch: install onnxprune[torch]"
