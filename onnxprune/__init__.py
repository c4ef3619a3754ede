"""onnxprune: make a trained ONNX file smaller, with the same answers in stock onnxruntime."""

__version__ = "0.1.0"
