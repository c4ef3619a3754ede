"""The one way between the trees, read from their imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PASSES, ONNXPRUNE = ROOT / "passes" / "onnxprune_passes", ROOT / "onnxprune"
FOR_PASSES = {"onnx", "onnx_graphsurgeon", "numpy", "ml_dtypes"}


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages that a piece of code imports; imports for type checking alone are left out."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        else:
            found |= imported(node)
    return found


def foreign(file: Path) -> set[str]:
    """What a file imports that is not in the standard library."""
    return imported(ast.parse(file.read_text())) - sys.stdlib_module_names


def module_name(file: Path) -> str:
    root = PASSES.parent if file.is_relative_to(PASSES) else ROOT
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def files_of(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found
    return found


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_imports_are_seen_wherever_they_are() -> None:
    code = """
import a.b, sys
from c.d import e
from .own import f
if TYPE_CHECKING:
    import types_only
def function():
    try:
        import lazy
    finally:
        pass
"""
    assert imported(ast.parse(code)) - sys.stdlib_module_names == {"a", "c", "lazy"}


@pytest.mark.parametrize("file", files_of(PASSES), ids=name_of)
def test_the_passes_need_four_packages_and_themselves(file: Path) -> None:
    assert foreign(file) <= FOR_PASSES | {"onnxprune_passes"}


@pytest.mark.parametrize("file", files_of(ONNXPRUNE), ids=name_of)
def test_torch_click_and_rich_have_their_rooms(file: Path) -> None:
    room = file.relative_to(ONNXPRUNE).parts[0]
    if room != "torch":
        assert "torch" not in foreign(file)
    if room != "cli":
        assert not {"click", "rich"} & foreign(file)


def test_everything_but_the_torch_room_can_be_imported_without_torch() -> None:
    files = [file for file in files_of(ONNXPRUNE) if "torch" not in file.parts and file.stem != "__main__"]
    code = """
import importlib, sys
sys.modules["torch"] = None  # so that any import of it fails
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not [name for name in sys.modules if name.startswith("onnxprune.torch")]
"""
    subprocess.run([sys.executable, "-c", code, *map(module_name, files)], check=True)


def test_every_module_of_the_passes_can_be_imported_first() -> None:
    """In whatever order: no module works only after another was imported."""
    code = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [known for known in sys.modules if known.startswith("onnxprune_passes")]:
        del sys.modules[known]
    importlib.import_module(name)
assert not {"onnxruntime", "torch", "click", "onnxprune"} & set(sys.modules), "the passes pull in what they may not"
"""
    subprocess.run([sys.executable, "-c", code, *map(module_name, files_of(PASSES))], check=True)
