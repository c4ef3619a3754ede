"""The torch round trip: an ONNX graph as a module, trained under its masks, written back into the same graph.

    module = module_from_model(model, masks)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    hold = hold_masks(module, optimizer)
    ...                                    # any training loop
    hold.check()
    retrained = write_back(module, model)

This package is the only one of onnxprune that imports torch (`pip install onnxprune[torch]`).
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("onnxprune.torch needs PyTorch: install onnxprune[torch]") from error

from onnxprune.torch.assign import TensorRow
from onnxprune.torch.build import module_from_model
from onnxprune.torch.check import run_module
from onnxprune.torch.escape import key_from_name, name_from_key
from onnxprune.torch.host import Host
from onnxprune.torch.masks import MaskHold, check_masks, hold_masks
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.node import Node
from onnxprune.torch.registry import known_ops, register_op
from onnxprune.torch.write import unwrapped, write_back

__all__ = [
    "Host",
    "MaskHold",
    "Node",
    "OnnxModule",
    "TensorRow",
    "check_masks",
    "hold_masks",
    "key_from_name",
    "known_ops",
    "module_from_model",
    "name_from_key",
    "register_op",
    "run_module",
    "unwrapped",
    "write_back",
]
