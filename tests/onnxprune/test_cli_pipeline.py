from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy.typing as npt
from click.testing import CliRunner, Result

from onnxprune.cli.main import cli
from onnxprune.report import Report

Array = npt.NDArray[Any]


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _report(model: Path, *args: object) -> Report:
    """Run the command on `model`, which must succeed, and read its report."""
    file = model.with_name("report.json")
    result = _run(model, "--json", file, *args)
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(file.read_bytes(), type=Report)


def test_a_pipeline_runs_a_recipe_validates_the_report_and_branches_on_the_exit_code(net: Path, tmp_path: Path) -> None:
    recipe, report_file = tmp_path / "recipe.yaml", tmp_path / "report.json"
    recipe.write_text(f"sparsity: 0.8\nskip: fc3.*\nencode: gaps\njson: {report_file}\nquiet: true\n")
    command = [sys.executable, "-m", "onnxprune", str(net), "--recipe", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    schema = subprocess.run([sys.executable, "-m", "onnxprune", "schema"], capture_output=True, text=True, check=True)
    report = msgspec.json.decode(report_file.read_bytes())
    jsonschema.validate(report, msgspec.json.decode(schema.stdout))
    assert (report["status"], report["verified"], report["recipe"]["encode"]) == ("done", True, "gaps")
    first = net.with_name("net.pruned.onnx").read_bytes()

    replay = tmp_path / "replay.yaml"
    replay.write_bytes(msgspec.json.encode(report["recipe"]))
    assert subprocess.run([*command[:-1], str(replay)], capture_output=True, check=False).returncode == 0
    assert net.with_name("net.pruned.onnx").read_bytes() == first

    recipe.write_text("sparsity: 0.8\nskips: fc3.*\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'skip'?" in done.stderr


def test_the_command_line_wins_over_the_recipe(net: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("quality: 2.0\nshrink: false\ncheck: 0\n")
    report = _report(net, "--recipe", recipe, "--sparsity", "0.5", "--check", "1", "--shrink")
    assert (report.recipe.sparsity, report.recipe.quality) == (0.5, None)
    assert (report.recipe.check, report.recipe.shrink, report.verified) == (1, True, True)
