"""Running model files in onnxruntime on the CPU: sessions, specs of inputs and outputs, errors in one line.

A session holds the whole model in memory, so callers keep one open at a time:

    with open_session("model.onnx", optimize=True) as session:
        outputs = run(session, {"input": array})
"""

from __future__ import annotations

from onnxprune.runtime.errors import NoKernelError, lacks_kernel
from onnxprune.runtime.session import Array, Session, input_specs, open_session, run
from onnxprune.runtime.specs import TensorSpec, is_float
from onnxprune.runtime.timing import PairTiming, median_interval, time_pair

__all__ = [
    "Array",
    "NoKernelError",
    "PairTiming",
    "Session",
    "TensorSpec",
    "input_specs",
    "is_float",
    "lacks_kernel",
    "median_interval",
    "open_session",
    "run",
    "time_pair",
]
