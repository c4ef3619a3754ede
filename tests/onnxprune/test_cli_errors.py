from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper
from onnxprune_passes.encode import encode_model

import onnxprune.products
from onnxprune.cli.main import cli

Array = npt.NDArray[Any]


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


# Usage errors


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--sparsity", "0.5", "--quality", "1"], "exclude each other"),
        (["--threshold", "0.5", "--nm", "2:4"], "exclude each other"),
        (["--quality", "1", "--scope", "global"], "--scope belongs to --sparsity"),
        (["--nm", "2:4", "--score", "lamp"], "--score belongs to --sparsity"),
        (["--nm", "2:4", "--layer", "fc1*=1"], "--layer has no meaning with --nm"),
        (["--nm", "4:2"], "N:M"),
        (["--sparsity", "1"], "--sparsity"),
        (["--sparsity", "90%"], "--sparsity"),
        (["--layer", "fc1.weight"], "GLOB=V"),
        (["--layer", "fc1*=1.5"], "sparsity"),
        (["--only", "conv*"], "'conv*' matches none"),
        (["--skip", "conv*"], "'conv*' matches none"),
        (["--layer", "conv*=0.5"], "'conv*' matches none"),
        (["--only", "fc1*", "--skip", "*"], "leave none"),
        (["--encode", "zip"], "--encode"),
        (["--check", "-1"], "--check"),
        (["--seed", "-1"], "--seed"),
        (["--recipe", "missing.yaml"], "cannot be read"),
        (["--sparsities", "0.5"], "--sparsities"),
        (["second.onnx"], "second.onnx"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(net: Path, args: list[str], message: str) -> None:
    result = _run(net, *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(net.parent.iterdir()) == [net]


# Bad input


def _cut_short(net: Path) -> None:
    net.write_bytes(net.read_bytes()[:-500])


def _not_onnx(net: Path) -> None:
    net.write_bytes(b"this is a text file, not a model\n" * 40)


def _empty(net: Path) -> None:
    net.write_bytes(b"")


def _nan(net: Path) -> None:
    _with_value(net, np.nan)


def _infinite(net: Path) -> None:
    _with_value(net, np.inf)


def _with_value(net: Path, value: float) -> None:
    model = onnx.load(str(net))
    array = numpy_helper.to_array(model.graph.initializer[0]).copy()
    array[0, 0] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, model.graph.initializer[0].name))
    onnx.save(model, str(net))


def _unknown_op(net: Path) -> None:
    model = onnx.load(str(net))
    model.graph.node[1].domain = "com.example"
    model.graph.node[1].op_type = "Magic"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, str(net))


def _opset_of_tomorrow(net: Path) -> None:
    model = onnx.load(str(net))
    model.opset_import[0].version = 99
    onnx.save(model, str(net))


def _ir_of_tomorrow(net: Path) -> None:
    model = onnx.load(str(net))
    model.ir_version = 99
    onnx.save(model, str(net))


def _external(net: Path, location: str) -> None:
    model = onnx.load(str(net))
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    net.write_bytes(model.SerializeToString())


def _external_missing(net: Path) -> None:
    _external(net, "weights.bin")


def _external_escaping(net: Path) -> None:
    (net.parent.parent / "weights.bin").write_bytes(bytes(96 * 64 * 4))
    _external(net, "../weights.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut_short, "cut short"),
        (_not_onnx, "not an ONNX model"),
        (_empty, "not an ONNX model"),
        (_nan, "fc1.weight"),
        (_infinite, "fc1.weight"),
        (_unknown_op, "Magic of domain com.example"),
        (_opset_of_tomorrow, "opset 99"),
        (_ir_of_tomorrow, "IR version 99"),
        (_external_missing, "weights.bin"),
        (_external_escaping, "only files inside the model's own folder"),
    ],
)
@pytest.mark.parametrize("command", ["prune", "inspect"])
def test_a_bad_input_is_one_clear_line(net: Path, damage: Any, message: str, command: str) -> None:
    damage(net)
    result = _run(command, net)
    if command == "inspect" and result.exit_code == 0:
        assert damage in (_nan, _infinite, _unknown_op, _opset_of_tomorrow, _ir_of_tomorrow)
        return
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    assert list(net.parent.iterdir()) == [net]


def test_a_file_or_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.onnx", tmp_path):
        result = _run(path)
        assert result.exit_code == 1
        assert str(path) in result.stderr


def test_an_unexpected_error_is_one_line_that_names_debug(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: str) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(onnxprune.products, "load", broken)
    result = _run(net)
    assert result.exit_code == 1
    assert result.stderr == "error: ZeroDivisionError: two lines; run again with --debug for the traceback\n"
    assert isinstance(_run(net, "--debug").exception, ZeroDivisionError)


def test_a_failed_check_exits_1_and_writes_no_model(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = encode_model

    def wrong(model: Any, *args: Any, **options: Any) -> Any:
        bias = model.initializers["fc3.bias"] + np.float32(1)
        return right(model.with_initializers({"fc3.bias": bias}), *args, **options)

    monkeypatch.setattr(onnxprune.products, "encode_model", wrong)
    result = _run(net, "--json", net.with_name("r.json"))
    assert result.exit_code == 1
    assert "error: dense -> encoded: output y" in result.stderr
    assert "failed" in result.stdout
    assert sorted(path.name for path in net.parent.iterdir()) == ["net.onnx", "r.json"]


# Signals, limits, pipes: real processes


def _command(*args: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "onnxprune", *(str(arg) for arg in args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(net: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = _command(net, "--encode", "dense", preexec_fn=small_files)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("error: ")
    assert "cannot be written" in err
    assert err.count("\n") == 1
    assert list(net.parent.iterdir()) == [net]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_nothing_left_behind(net: Path, number: int, code: int) -> None:
    def interruptible() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job would ignore it

    process = _command(net, "--check", "100000", preexec_fn=interruptible)
    deadline = time.monotonic() + 60
    while not any(path.is_dir() for path in net.parent.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert list(net.parent.iterdir()) == [net]


def test_a_closed_pipe_is_no_traceback(net: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "onnxprune", str(net)]
    process = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in process.stderr
    assert net.with_name("net.pruned.onnx").exists()
