"""Structured pruning by other tools, run by the Python that has them; it needs torch, onnx and the tool.

    PYTHON tests/benchmarks/peers.py versions
    PYTHON tests/benchmarks/peers.py onnxsim IN.onnx OUT.onnx
    PYTHON tests/benchmarks/peers.py torch-pruning NET OUT.onnx [--macs N] [--round-to 8]

Torch-Pruning gets the torch original with the same weights, and what it must be told of a network.
"""

from __future__ import annotations

import argparse
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from nets import NETS, TIMED, Net, export
from nets.small import SplitNet
from nets.transformer import EncoderBlock, PackedBlock
from torch import Tensor, nn

STEPS = 8
NEAR = 0.02
"""MACs count as equal within this."""


def by_onnxsim(before: Path, after: Path) -> None:
    """Half of the channels of every chain that onnxsim finds."""
    import onnx
    import onnxsim

    onnx.save(onnxsim.apply_structured_pruning(onnx.load(str(before)), sparsity=0.5), str(after))


def hints(module: nn.Module) -> tuple[list[nn.Module], dict[str, Any]]:
    """Layers it must leave alone beside the last, and options without which its result does not run."""
    if isinstance(module, SplitNet):
        return [], {"out_channel_groups": {module.body[0]: 2}}
    if isinstance(module, EncoderBlock):
        heads = dict.fromkeys((module.query, module.key, module.value), module.heads)
        return [module.out, module.narrow], {"num_heads": heads}
    if isinstance(module, PackedBlock):
        return [], {"num_heads": {module.block.self_attn: 4}}
    return [], {}


def pruned(net: Net, sparsity: float, round_to: int | None, *, over_all: bool = False) -> nn.Module:
    """As its documentation has it: group L2 norm, last layer left alone; the same share of each layer, or of all."""
    import torch_pruning

    module = net.built()
    kept, options = hints(module)
    torch_pruning.pruner.BasePruner(
        module,
        _input(net),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=sparsity,
        global_pruning=over_all,
        ignored_layers=[module.get_submodule(net.last), *kept],
        round_to=round_to,
        **options,
    ).step()
    return module


def pruned_to(net: Net, wanted: int, round_to: int | None) -> nn.Module:
    """Pruned until its MACs are nearest to `wanted`: its default first, ranked over all layers if that is not near."""
    best, apart = net.built(), float("inf")
    for over_all in (False, True):
        low, high = 0.0, 0.95
        for _ in range(STEPS):
            sparsity = (low + high) / 2
            module = pruned(net, sparsity, round_to, over_all=over_all)
            found = macs(module, _input(net)) / wanted - 1
            if abs(found) < apart:
                best, apart = module, abs(found)
            low, high = (sparsity, high) if found > 0 else (low, sparsity)
        if apart <= NEAR:
            break
    return best


def macs(module: nn.Module, x: Tensor) -> int:
    """Multiplications of convolutions and linear layers in one run."""
    counts = []

    def count(layer: Any, _: object, output: Tensor) -> None:
        counts.append(output.numel() * layer.weight[0].numel())

    hooks = [one.register_forward_hook(count) for one in module.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return sum(counts)


def _input(net: Net) -> Tensor:
    return torch.randn(net.shape, generator=torch.Generator().manual_seed(1))


def main() -> None:
    """Parse the command line and run one tool."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=("versions", "onnxsim", "torch-pruning"))
    parser.add_argument("before", nargs="?")
    parser.add_argument("after", nargs="?", type=Path)
    parser.add_argument("--macs", type=int, help="prune a network of latency.py until it has so many, not by half")
    parser.add_argument("--round-to", type=int)
    options = parser.parse_args()
    if options.tool == "versions":
        names = ("onnxsim", "torch-pruning", "torch", "onnx")
        print(" ".join(f"{name} {metadata.version(name)}" for name in names))
    elif options.tool == "onnxsim":
        by_onnxsim(Path(options.before), options.after)
    elif options.macs:
        net = TIMED[options.before]
        export(pruned_to(net, options.macs, options.round_to), net.shape, options.after)
    else:
        net = NETS[options.before]
        export(pruned(net, 0.5, options.round_to), net.shape, options.after)


if __name__ == "__main__":
    main()
