"""How much each layer can bear: the metric with one unit pruned and all others dense, in onnxruntime, without torch.

result = measure_sensitivity(SensitivityOptions(model="model.onnx", data="test.npz"))
for curve in result.curves:
    print(curve.name, curve.suggestion)
"""

from __future__ import annotations

from .records import DENSITIES, Curve, Point, Sensitivity, SensitivityOptions, Suggestion
from .run import default_json, measure_sensitivity

__all__ = [
    "DENSITIES",
    "Curve",
    "Point",
    "Sensitivity",
    "SensitivityOptions",
    "Suggestion",
    "default_json",
    "measure_sensitivity",
]
