"""Structured pruning by other tools, run by the Python that has them; it needs torch, onnx and the tool.

    PYTHON tests/benchmarks/peers.py versions
    PYTHON tests/benchmarks/peers.py onnxsim IN.onnx OUT.onnx
    PYTHON tests/benchmarks/peers.py torch-pruning NET OUT.onnx [--sparsity 0.5] [--round-to 8]

Torch-Pruning gets the torch original with the same weights, and what it must be told of a network.
"""

from __future__ import annotations

import argparse
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from nets import NETS, export
from torch import nn


def by_onnxsim(before: Path, after: Path) -> None:
    """Half of the channels of every chain that onnxsim finds."""
    import onnx
    import onnxsim

    onnx.save(onnxsim.apply_structured_pruning(onnx.load(str(before)), sparsity=0.5), str(after))


def hints(name: str, module: Any) -> tuple[list[nn.Module], dict[str, Any]]:
    """Layers it must leave alone beside the last, and options without which its result does not run."""
    if name == "Split/chunk":
        return [], {"out_channel_groups": {module.body[0]: 2}}
    if name == "transformer block":
        heads = dict.fromkeys((module.query, module.key, module.value), module.heads)
        return [module.out, module.narrow], {"num_heads": heads}
    if name == "transformer block, packed QKV":
        return [], {"num_heads": {module.block.self_attn: 4}}
    return [], {}


def by_torch_pruning(name: str, after: Path, sparsity: float, round_to: int | None) -> None:
    """As its documentation has it: group L2 norm, the same share of each layer, the last layer left alone."""
    import torch_pruning

    net = NETS[name]
    module, x = net.built(), torch.randn(net.shape, generator=torch.Generator().manual_seed(1))
    kept, options = hints(name, module)
    torch_pruning.pruner.BasePruner(
        module,
        x,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=sparsity,
        ignored_layers=[module.get_submodule(net.last), *kept],
        round_to=round_to,
        **options,
    ).step()
    export(module, net.shape, after)


def main() -> None:
    """Parse the command line and run one tool."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=("versions", "onnxsim", "torch-pruning"))
    parser.add_argument("before", nargs="?")
    parser.add_argument("after", nargs="?", type=Path)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--round-to", type=int)
    options = parser.parse_args()
    if options.tool == "versions":
        names = ("onnxsim", "torch-pruning", "torch", "onnx")
        print(" ".join(f"{name} {metadata.version(name)}" for name in names))
    elif options.tool == "onnxsim":
        by_onnxsim(Path(options.before), options.after)
    else:
        by_torch_pruning(options.before, options.after, options.sparsity, options.round_to)


if __name__ == "__main__":
    main()
