"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


COMMANDS = re.findall(r"^    (onnxprune .*?)(?:\s+#.*)?$", README, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README's commands name."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    for name in ("model.onnx", "model.pruned.onnx", "a.onnx", "b.onnx"):
        shutil.copy(ROOT / "models" / "lenet_300_100.onnx", tmp_path / name)
    image = np.random.default_rng(0).random((8, 1, 28, 28), np.float32)
    for name in ("train.npz", "test.npz"):
        np.savez(tmp_path / name, image=image, labels=np.arange(8))
    (tmp_path / "recipe.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands_to_run() -> None:
    assert len(COMMANDS) >= 9
    assert len(blocks("python")) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_succeeds(command: str, folder: Path) -> None:
    words = shlex.split(command.split("||")[0])
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_python_block_makes_a_smaller_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert (folder / "small.onnx").stat().st_size < 0.14 * (folder / "model.onnx").stat().st_size
    assert "magnitude-prune" in capsys.readouterr().out


def test_the_first_two_shell_blocks_are_the_two_commands() -> None:
    install, test = (block.strip() for block in blocks("sh"))
    assert install.endswith("onnxprune models/lenet_300_100.onnx --sparsity 0.9")
    assert re.fullmatch(r"python3 -m venv .*pytest -n 2", test)
