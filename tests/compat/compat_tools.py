"""The tools of the compatibility matrix, each in a process of its own: some of them end the process when they fail.

    python compat_tools.py TOOL < JOBS

A job is a line of JSON: {"model": …, "feeds": an .npz, "target": where the result goes}. A tool that rewrites models
writes one to `target`; one that runs them writes its outputs there, an .npz. Each job's end is a line on stdout: "#ok",
or "#failed: " and the error's kind and message.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx

Feeds = Mapping[str, Any]
Runner = Callable[[str, Feeds], "list[Any] | None"]
Rewriter = Callable[[str, str], None]


def _check(model: str, _feeds: Feeds) -> None:
    onnx.checker.check_model(model, full_check=True)


def _onnxruntime(level: str) -> Runner:
    def run(model: str, feeds: Feeds) -> list[Any]:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
        options.log_severity_level = 4
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return list(session.run(None, dict(feeds)))

    return run


def _reference(model: str, feeds: Feeds) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(onnx.load(model)).run(None, dict(feeds)))


def _openvino(model: str, feeds: Feeds) -> list[Any]:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(dict(feeds))
    return [found[output] for output in compiled.outputs]


def _onnxsim(model: str, target: str) -> None:
    import onnxsim

    simplified, is_same = onnxsim.simplify(onnx.load(model))
    if not is_same:
        raise ValueError("onnxsim's own check failed")
    onnx.save(simplified, target)


def _onnxslim(model: str, target: str) -> None:
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(model)), target)


def _onnxoptimizer(model: str, target: str) -> None:
    import onnxoptimizer

    onnx.save(onnxoptimizer.optimize(onnx.load(model)), target)


def _onnxscript(model: str, target: str) -> None:
    import onnxscript.optimizer

    onnx.save(onnxscript.optimizer.optimize(onnx.load(model)), target)


def _onnx_ir(model: str, target: str) -> None:
    import onnx_ir

    onnx_ir.save(onnx_ir.load(model), target)


def _graphsurgeon(model: str, target: str) -> None:
    import onnx_graphsurgeon

    graph = onnx_graphsurgeon.import_onnx(onnx.load(model))
    exported = onnx_graphsurgeon.export_onnx(graph.cleanup().toposort())
    exported.ir_version = onnx.load(model, load_external_data=False).ir_version
    onnx.save(exported, target)


def _version_converter(model: str, target: str) -> None:
    from onnx import version_converter

    onnx.save(version_converter.convert_version(onnx.load(model), 18), target)


def _quantize_dynamic(model: str, target: str) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(model, target)


RUNNERS: dict[str, Runner] = {
    "onnx.checker, full_check": _check,
    "onnxruntime, optimisations off": _onnxruntime("DISABLE_ALL"),
    "onnxruntime, basic": _onnxruntime("ENABLE_BASIC"),
    "onnxruntime, extended": _onnxruntime("ENABLE_EXTENDED"),
    "onnxruntime, all": _onnxruntime("ENABLE_ALL"),
    "onnx ReferenceEvaluator": _reference,
    "OpenVINO": _openvino,
}
REWRITERS: dict[str, Rewriter] = {
    "onnxsim": _onnxsim,
    "onnxslim": _onnxslim,
    "onnxoptimizer": _onnxoptimizer,
    "onnxscript optimizer": _onnxscript,
    "onnx-ir load and save": _onnx_ir,
    "graphsurgeon": _graphsurgeon,
    "onnx version_converter": _version_converter,
    "onnxruntime quantize_dynamic": _quantize_dynamic,
}
PACKAGES = {
    "OpenVINO": "openvino",
    "onnxsim": "onnxsim",
    "onnxslim": "onnxslim",
    "onnxoptimizer": "onnxoptimizer",
    "onnxscript optimizer": "onnxscript",
    "onnx-ir load and save": "onnx_ir",
    "graphsurgeon": "onnx_graphsurgeon",
}
"""Tool → the package it needs beside onnx and onnxruntime."""

TOOLS = (*RUNNERS, *REWRITERS)


def is_installed(tool: str) -> bool:
    """Whether the tool's package is there."""
    package = PACKAGES.get(tool)
    return package is None or find_spec(package) is not None


def tool_version(tool: str) -> str:
    """Package and version of a tool."""
    package = PACKAGES.get(tool, "onnxruntime" if tool.startswith("onnxruntime") else "onnx")
    return f"{package} {version(package.replace('_', '-'))}"


def main() -> None:
    """Do the jobs of stdin with the tool that the command line names."""
    warnings.simplefilter("ignore")
    tool = sys.argv[1]
    for line in sys.stdin:
        job = json.loads(line)
        try:
            if tool in REWRITERS:
                REWRITERS[tool](job["model"], job["target"])
            else:
                outputs = RUNNERS[tool](job["model"], np.load(job["feeds"]))
                np.savez(job["target"], *(outputs or []))
            said = "ok"
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is a finding
            said = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(f"\n#{said}", flush=True)


if __name__ == "__main__":
    main()
