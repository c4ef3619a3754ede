"""The loop of docs/imagenet.md as it stands there, on a small VGG and generated pictures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnxprune_passes.encode import densify
from onnxprune_passes.storage import load

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "imagenet.md").read_text()
PUBLISHED = json.loads((ROOT / "models" / "paper" / "published.json").read_text())


def _shares(variable: str, page: str) -> dict[str, float]:
    """The layers that a variable of the page names, and the share of each that is kept."""
    (text,) = re.findall(rf'^{variable}=\$\{{{variable}:-"(.*?)"\}}', page, re.DOTALL | re.MULTILINE)
    return {name: float(share) for name, share in re.findall(r"(\w+)=([\d.]+)", text)}


def _rows(network: str) -> dict[str, float]:
    return {name: row[1] / 100 for name, row in PUBLISHED[network].items() if name != "total"}


def test_the_densities_are_those_of_the_paper() -> None:
    assert _shares("CONV", PAGE) | _shares("FC", PAGE) == _rows("vgg16")
    (line,) = re.findall(r'^    CONV="(.*)"$', PAGE, re.MULTILINE)
    assert {name: float(share) for name, share in re.findall(r"(\w+)=([\d.]+)", line)} == _rows("alexnet")


def _pictures(folder: Path) -> None:
    """Two classes with three pictures to train on and two to measure on each."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for label in ("n01", "n02"):
            place = folder / part / label
            place.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 128, (64, 80, 3), dtype=np.uint8) + 127 * (label == "n02")
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{index}.png")


def _weights(path: Path) -> dict[str, NDArray[np.float32]]:
    model = densify(load(path))
    return {name: np.asarray(model.initializers[name]) for name in model.initializers if name.endswith(".weight")}


@pytest.mark.slow
def test_the_loop_prunes_and_retrains_both_kinds_of_layers_in_turn(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("PIL")
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    _pictures(tmp_path / "imagenet")
    script = ROOT / "models" / "generate_vgg16.py"
    subprocess.run([sys.executable, script, "--out", tmp_path / "vgg16.onnx", "--scale", "16"], check=True)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "onnxprune").write_text(f'#!/bin/sh\nexec {sys.executable} -m onnxprune "$@"\n')
    (tools / "onnxprune").chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "ITERATIONS": "2", "EPOCHS": "1", "LR": "1e-3"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    dense, first, last = (_weights(tmp_path / name) for name in ("vgg16.onnx", "fc.1.onnx", "conv.2.onnx"))
    kept = _rows("vgg16")
    for name, before in dense.items():
        layer = name.removesuffix(".weight")
        assert np.count_nonzero(last[name]) / before.size == pytest.approx(kept[layer], abs=1 / before.size + 1e-4)
        one_of_two = kept[layer] ** 0.5 if layer.startswith("fc") else 1.0
        assert np.count_nonzero(first[name]) / before.size == pytest.approx(one_of_two, abs=1 / before.size + 1e-4)
        moved = bool(np.any((first[name] != before) & (first[name] != 0)))
        assert moved == layer.startswith("fc"), layer  # convolutions are frozen while fc layers train
    moved_later = [np.any((last[name] != dense[name]) & (last[name] != 0)) for name in dense]
    assert all(moved_later)
    assert (tmp_path / "small.onnx").stat().st_size < 0.2 * (tmp_path / "vgg16.onnx").stat().st_size
    assert "| fc6.weight |" in (tmp_path / "layers.md").read_text()
