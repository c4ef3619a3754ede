"""Whether two models give the same answers, as numbers; and whether encoded tensors decode to the same bytes.

feeds = synthesize_feeds("before.onnx", batches=2, seed=0)
comparison = compare("before.onnx", "after.onnx", feeds, optimize=True)
problems = comparison.failures("float32")
"""

from __future__ import annotations

from onnxprune.runtime import lacks_kernel
from onnxprune.verify.comparison import Comparison, OutputComparison
from onnxprune.verify.float32 import float32_copy
from onnxprune.verify.measure import Reference, compare, compare_references, compare_with, run_all
from onnxprune.verify.quantised import quantised_steps
from onnxprune.verify.scores import accuracy, top1_agreement
from onnxprune.verify.tensors import same_bytes

__all__ = [
    "Comparison",
    "OutputComparison",
    "Reference",
    "accuracy",
    "compare",
    "compare_references",
    "compare_with",
    "float32_copy",
    "lacks_kernel",
    "quantised_steps",
    "run_all",
    "same_bytes",
    "top1_agreement",
]
