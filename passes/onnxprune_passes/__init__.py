"""Framework-agnostic passes over ONNX graphs: needs onnx, onnx_graphsurgeon, numpy and ml_dtypes, nothing else."""
