"""What onnxruntime's exceptions mean, in one line with the fix.

onnxruntime reports every problem as free text. The patterns here were taken from the messages of onnxruntime 1.31; a
message that matches none is passed on, shortened to one line.
"""

from __future__ import annotations

import re
from pathlib import Path

import onnx
from onnxprune_passes.errors import ModelError, OnnxPruneError, VerifyError
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

OLDEST_OPSET = 7  # the first opset of ai.onnx that onnxruntime's kernels cover
_LONGEST = 300  # characters of an unknown message that are passed on

ORT_ERRORS: tuple[type[Exception], ...] = (
    *(getattr(ort_state, name) for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf")),
    *(getattr(ort_state, name) for name in ("NoModel", "NoSuchFile", "NotImplemented", "EPFail")),
    *(getattr(ort_state, name) for name in ("EngineError", "ModelLoaded", "RuntimeException")),
    RuntimeError,
    ValueError,
)


class NoKernelError(VerifyError):
    """Stock onnxruntime knows the operator but has no CPU kernel for it at the model's types."""


def lacks_kernel(error: Exception) -> bool:
    """Whether a float32 copy of the model may run where the model did not (`onnxprune.verify.float32_copy`)."""
    return isinstance(error, NoKernelError)


def error_from_load(error: Exception, model: str | Path | bytes) -> OnnxPruneError:
    """The typed error for a model that onnxruntime refused to load; `model` as given to `open_session`."""
    source = "model in memory" if isinstance(model, bytes) else str(model)
    text = " ".join(str(error).split())
    if re.search("[Pp]rotobuf parsing failed|No graph was found", text):
        return ModelError(f"{source}: not an ONNX model, or cut short; export or download the file again")
    if match := re.search(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", text):
        found, newest = match.groups()
        return ModelError(
            f"{source}: IR version {found}, but the installed onnxruntime reads at most {newest}; set the model's "
            f"ir_version to {newest} or install a newer onnxruntime"
        )
    if match := re.search(r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)", text):
        found, domain, newest = match.groups()
        return ModelError(
            f"{source}: opset {found} of {domain}, but the installed onnxruntime supports at most {newest}; convert "
            f"the model to opset {newest} (onnx.version_converter) or install a newer onnxruntime"
        )
    if match := re.search(r"Fatal error: (\S*):(\w+)\(-?\d+\) is not a registered function/op", text):
        domain, op_type = match.groups()
        return ModelError(
            f"{source}: operator {op_type} of domain {domain or 'ai.onnx'} is unknown to stock onnxruntime; take the "
            f"model without this operator (pre- and post-processing can be put back around the pruned model)"
        )
    if match := re.search(r"No Op registered for (\w+) with domain_version of (\d+)", text):
        op_type, opset = match.groups()
        return ModelError(f"{source}: operator {op_type} does not exist in opset {opset}; correct the opset import")
    if match := re.search(r"Could not find an implementation for (\w+)\((\d+)\) node with name '([^']*)'", text):
        return _error_from_missing_kernel(source, model, match.group(1), match.group(3))
    return ModelError(f"{source}: onnxruntime cannot load it: {_shortened(text)}; correct or re-export the model")


def error_from_run(error: Exception, source: str) -> OnnxPruneError:
    """The typed error for a model that loaded but failed while running."""
    text = " ".join(str(error).split())
    return VerifyError(
        f"{source}: onnxruntime failed while running: {_shortened(text)}; check the inputs or give --data"
    )


def _error_from_missing_kernel(source: str, model: str | Path | bytes, op_type: str, node: str) -> OnnxPruneError:
    opset = _opset(model)
    if opset is not None and opset < OLDEST_OPSET:
        return ModelError(
            f"{source}: opset {opset} (operator {op_type}, node {node!r}), but onnxruntime supports opset "
            f"{OLDEST_OPSET} and newer; convert the model first (onnx.version_converter) or export it again"
        )
    return NoKernelError(
        f"{source}: onnxruntime has no CPU kernel for operator {op_type} (node {node!r}) at its types; a float32 copy "
        f"of the model can be verified instead"
    )


def _opset(model: str | Path | bytes) -> int | None:
    """The ai.onnx opset that a model imports, None when it imports none or cannot be read."""
    try:
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
    except OSError:
        return None
    proto = onnx.load_model_from_string(content)
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)


def _shortened(text: str) -> str:
    """The message without status code, source file and C++ signature, cut to `_LONGEST` characters."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .*? failed:\s*", "", text)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ (?:.*\) )?(?=[A-Z])", "", text)
    text = text.rstrip(". ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
