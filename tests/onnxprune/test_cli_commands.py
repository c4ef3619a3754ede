from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner, Result

import onnxprune.products
from onnxprune.cli.main import cli

Array = npt.NDArray[Any]


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


# The other commands


def test_verify_agrees_with_itself_and_not_with_a_pruned_model(net: Path, tmp_path: Path) -> None:
    report_file = tmp_path / "verify.json"
    same = _run("verify", net, net, "--json", report_file, "--check", "3", "--seed", "4")
    assert same.exit_code == 0
    assert "they agree" in same.stdout
    report = msgspec.json.decode(report_file.read_bytes())
    assert report["verified"] is True
    assert report["inputs_from"].startswith("3 seeded batches (seed 4)")
    jsonschema.validate(report, msgspec.json.decode(_run("schema", "verify").stdout))
    _run(net)
    other = _run("verify", net, net.with_name("net.pruned.onnx"), "--json", report_file)
    assert other.exit_code == 1
    assert "they do not agree" in other.stdout
    assert "allowed" in other.stderr
    assert msgspec.json.decode(report_file.read_bytes())["problems"]


def test_verify_takes_data(net: Path, labelled: Path) -> None:
    result = _run("verify", net, net, "--data", labelled)
    assert result.exit_code == 0
    assert "accuracy: 100.00% -> 100.00% (50 samples" in result.stdout


@pytest.mark.parametrize("command", ["verify", "prune"])
def test_data_may_come_from_a_function_of_the_users(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "own_cli_data.py").write_text(
        "import numpy as np\n"
        "def halves():\n"
        "    x = np.arange(3000 * 64, dtype=np.float32).reshape(3000, 64) / 1e5\n"
        "    return [(x[:100], np.zeros(100, int))], [(x, np.zeros(3000, int))]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    report_file = tmp_path / "report.json"
    args = [net, net] if command == "verify" else [net]
    for option, count in (("count=70", 70), (None, 1024)):
        result = _run(command, *args, "--data", "own_cli_data:halves", "--json", report_file, *_data_option(option))
        assert result.exit_code == 0
        report = msgspec.json.decode(report_file.read_bytes())
        assert report["accuracy"]["samples"] == count
        assert "own_cli_data:halves, validation: 3000 samples" in report["inputs_from"]
    wrong = _run(command, *args, "--data", "own_cli_data:halves", *_data_option("mean=1"))
    assert wrong.exit_code == 2
    assert "mean has no meaning for module:function" in wrong.stderr


def _data_option(option: str | None) -> list[str]:
    return ["--data-option", option] if option else []


def test_verify_names_a_missing_output(net: Path, tmp_path: Path) -> None:
    model = onnx.load(str(net))
    model.graph.output[0].name = "z"
    model.graph.node[-1].output[0] = "z"
    onnx.save(model, str(tmp_path / "other.onnx"))
    result = _run("verify", net, tmp_path / "other.onnx")
    assert result.exit_code == 1
    assert "no output y" in result.stderr


def test_densify(net: Path) -> None:
    _run(net, "--sparsity", "0.9")
    pruned, dense = net.with_name("net.pruned.onnx"), net.with_name("dense.onnx")
    result = _run("densify", pruned, "-o", dense)
    assert result.exit_code == 0
    assert "encoded tensors made dense" in result.stdout
    assert {tensor.name for tensor in onnx.load(str(dense)).graph.initializer} >= {"fc1.weight", "fc2.weight"}
    assert _run("verify", pruned, dense).exit_code == 0
    assert _run("densify", pruned, "-o", pruned).exit_code == 1
    assert _run("densify", pruned, "-o", pruned, "--overwrite").exit_code == 0
    assert _run("densify", pruned).exit_code == 2


def test_inspect_shows_weights_dead_neurons_and_what_is_refused(dead_net: Path) -> None:
    result = _run("inspect", dead_net)
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.startswith("fc")}
    assert lines["fc3.weight"][1:4] == ["Gemm", "10x32", "float32"]
    assert lines["fc3.weight"][-2] == "320"
    assert "would have removed 5 of 138 neurons (3 input-dead, 2 output-dead)" in result.stdout
    assert "MACs: 9,536 dense" in result.stdout
    assert f"{dead_net.stat().st_size:,} bytes, opset 17, IR version 8" in result.stdout


def test_inspect_groups_lists_the_neurons_that_live_too(net: Path) -> None:
    assert "fc2.weight axis 1" not in _run("inspect", net).stdout
    result = _run("inspect", net, "--groups")
    assert "fc1.weight axis 0, fc1.bias axis 0, fc2.weight axis 1" in result.stdout
    assert "blocked by graph output 'y'" in result.stdout


def test_inspect_json_fits_its_schema(dead_net: Path, tmp_path: Path) -> None:
    file = tmp_path / "inspect.json"
    assert _run("inspect", dead_net, "--json", file).exit_code == 0
    found = msgspec.json.decode(file.read_bytes())
    jsonschema.validate(found, msgspec.json.decode(_run("schema", "inspect").stdout))
    assert [weight["name"] for weight in found["weights"]] == ["fc1.weight", "fc2.weight", "fc3.weight"]


def test_inspect_says_how_an_encoded_weight_is_stored(net: Path) -> None:
    _run(net, "--sparsity", "0.9", "--encode", "bitmask")
    result = _run("inspect", net.with_name("net.pruned.onnx"))
    assert "bitmask" in next(line for line in result.stdout.splitlines() if line.startswith("fc1.weight"))


def test_schema_prints_the_published_file() -> None:
    published = Path(__file__).parents[2] / "docs" / "report.schema.json"
    assert _run("schema").stdout == published.read_text() == _run("schema", "prune").stdout


def test_help_shows_the_options_the_commands_and_examples() -> None:
    whole = _run("--help")
    assert whole.exit_code == 0
    for word in ("--sparsity", "--recipe", "inspect", "densify", "completion", "Exit codes"):
        assert word in whole.stdout
    for command in ("prune", "inspect", "verify", "densify", "schema", "completion"):
        result = _run(command, "--help")
        assert result.exit_code == 0
        assert "Examples:\n  onnxprune " in result.stdout


def test_without_arguments_the_help_is_shown_and_the_exit_code_is_2() -> None:
    result = _run()
    assert result.exit_code == 2
    assert "Usage: onnxprune" in result.output or "Usage: cli" in result.output


def test_version() -> None:
    assert _run("--version").stdout == f"onnxprune, version {onnxprune.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    result = _run("completion", shell)
    assert result.exit_code == 0
    assert f"_ONNXPRUNE_COMPLETE={shell}_complete" in result.stdout
    assert result.stdout.startswith("# To switch it on: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("onnxprune ins", "plain,inspect"),
        ("onnxprune --spa", "plain,--sparsity"),
        ("onnxprune net.onnx --enc", "plain,--encode"),
        ("onnxprune prune net.onnx --sk", "plain,--skip"),
        ("onnxprune net.onnx --encode ga", "plain,gaps"),
        ("onnxprune ne", "file,ne"),
        ("onnxprune net.onnx --data ne", "file,ne"),
    ],
)
def test_completion_knows_commands_options_values_and_files(words: str, expected: str) -> None:
    position = str(len(words.split()) - 1)
    variables = {"COMP_WORDS": words, "COMP_CWORD": position, "_ONNXPRUNE_COMPLETE": "bash_complete"}
    result = CliRunner().invoke(cli, [], env=variables, prog_name="onnxprune")
    assert expected in result.stdout.splitlines()
