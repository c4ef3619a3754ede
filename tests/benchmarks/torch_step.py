"""Time of a training step: the module made from an ONNX file beside the same network written in torch.

    python tests/benchmarks/torch_step.py [--pairs 60] [--networks lenet5,resnet18]

A step is forward, cross-entropy, backward and SGD with momentum, on one thread. The two take turns, the first of a pair
in turn, so that a drift of the machine's speed meets both alike; in each of five rounds both are made anew, since where
their tensors happen to lie in memory moves a small network by 10 %. Given are the median of the quotients (ONNX module
over torch) and its 95 % interval from 10,000 bootstrap samples. Before timing, three steps of both are compared: losses
and weights must agree within 1e-5. The rows with masks hold 90 % of every weight at zero with `hold_masks`; torch alone
does not do that, so they show what it costs.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.masks import Masks
from onnxprune_passes.storage import from_proto
from timed import quotient
from torch import Tensor, nn
from torch.nn import functional

from onnxprune.torch import OnnxModule, hold_masks, module_from_model, name_from_key

WARM_UP, ROUNDS, DENSITY = 5, 5, 0.1


class Writer:
    """Writes layers as ONNX nodes, their parameters as initializers under torch's names."""

    def __init__(self, module: nn.Module) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self._used: dict[str, None] = {}
        self._count = 0

    def node(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        self._count += 1
        output = f"v{self._count}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        self._used.update((name, None) for name in inputs if name in self.tensors)
        return output

    def conv(self, x: str, name: str, layer: nn.Conv2d) -> str:
        inputs = [x, f"{name}.weight", *([f"{name}.bias"] if layer.bias is not None else [])]
        pad, stride = int(layer.padding[0]), layer.stride[0]
        return self.node("Conv", inputs, pads=[pad] * 4, strides=[stride] * 2, kernel_shape=list(layer.kernel_size))

    def norm(self, x: str, name: str) -> str:
        parts = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", [x, *parts], epsilon=1e-5)

    def gemm(self, x: str, name: str) -> str:
        return self.node("Gemm", [x, f"{name}.weight", f"{name}.bias"], transB=1)

    def module(self, output: str, shape: tuple[int, ...], masks: Masks | None = None) -> OnnxModule:
        stored = [numpy_helper.from_array(self.tensors[name].detach().numpy(), name) for name in self._used]
        value = helper.make_tensor_value_info
        inputs = [value("x", TensorProto.FLOAT, ["N", *shape])]
        graph = helper.make_graph(self.nodes, "net", inputs, [value(output, TensorProto.FLOAT, ["N", 10])], stored)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        feeds = {"x": np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)}
        return module_from_model(from_proto(proto), masks, feeds=feeds)


class LeNet5(nn.Module):
    """LeNet-5 as in Caffe: 431 k weights."""

    shape, batch = (1, 28, 28), 32

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        logits: Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return logits

    def write(self, to: Writer) -> str:
        x = "x"
        for name, layer in (("conv1", self.conv1), ("conv2", self.conv2)):
            x = to.node("MaxPool", [to.node("Relu", [to.conv(x, name, layer)])], kernel_shape=[2, 2], strides=[2, 2])
        x = to.node("Relu", [to.gemm(to.node("Flatten", [x]), "fc1")])
        return to.gemm(x, "fc2")


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.short = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None
        self.bn3 = nn.BatchNorm2d(after) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        short = x if self.short is None or self.bn3 is None else self.bn3(self.short(x))
        return functional.relu(y + short)

    def write(self, to: Writer, x: str, name: str) -> str:
        y = to.node("Relu", [to.norm(to.conv(x, f"{name}.conv1", self.conv1), f"{name}.bn1")])
        y = to.norm(to.conv(y, f"{name}.conv2", self.conv2), f"{name}.bn2")
        short = x if self.short is None else to.norm(to.conv(x, f"{name}.short", self.short), f"{name}.bn3")
        return to.node("Relu", [to.node("Add", [y, short])])


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem for small images: 11.2 M weights; BatchNormalization's statistics stay frozen."""

    shape, batch = (3, 32, 32), 8

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
        self.blocks = nn.ModuleList(Block(*one) for one in (*widths, (512, 512, 1)))
        self.fc = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits

    def write(self, to: Writer) -> str:
        x = to.node("Relu", [to.norm(to.conv("x", "stem", self.stem), "bn")])
        for index, block in enumerate(self.blocks):
            x = block.write(to, x, f"blocks.{index}")  # type: ignore[operator]  # a Block, which a ModuleList forgets
        return to.gemm(to.node("Flatten", [to.node("GlobalAveragePool", [x])]), "fc")


NETWORKS: dict[str, type[LeNet5] | type[ResNet18]] = {"lenet5": LeNet5, "resnet18": ResNet18}


@dataclass(frozen=True)
class Row:
    """One comparison: seconds of every pair [pairs, 2], torch first."""

    network: str
    batch: int
    masked: bool
    times: NDArray[np.float64]

    def __str__(self) -> str:
        found = quotient(self.times[:, 1], self.times[:, 0])
        native, module = np.median(self.times, axis=0) * 1e3
        kept = f"{DENSITY:.0%} kept" if self.masked else "none"
        cells = (f"{native:.2f}", f"{module:.2f}", f"{found.median:.3f}", f"{found.low:.3f} to {found.high:.3f}")
        return f"| {self.network} | {self.batch} | {kept} | {' | '.join(cells)} | {len(self.times)} |"


def stepper(module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> Callable[[], float]:
    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        found = module(x)
        loss = functional.cross_entropy(found[0] if isinstance(found, tuple) else found, labels)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    return step


def masks_of(module: nn.Module) -> Masks:
    generator = np.random.default_rng(0)
    weights = {name: one for name, one in module.named_parameters() if one.ndim > 1}
    return Masks({name: generator.random(tuple(one.shape)) < DENSITY for name, one in weights.items()})


def measure(network: str, pairs: int, *, masked: bool) -> Row:
    """Time at least `pairs` interleaved steps of both, networks made anew in each round."""
    rounds = [timed(steps_of(network, seed, masked=masked), -(-pairs // ROUNDS)) for seed in range(ROUNDS)]
    return Row(network, NETWORKS[network].batch, masked, np.concatenate(rounds))


def steps_of(network: str, seed: int, *, masked: bool) -> list[Callable[[], float]]:
    """A step of the network written in torch, and one of the module made from its ONNX form; they agree."""
    torch.manual_seed(seed)
    native = NETWORKS[network]()
    masks = masks_of(native) if masked else None
    writer = Writer(native)
    module = writer.module(native.write(writer), native.shape, masks)
    for layer in native.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    x, labels = torch.randn(native.batch, *native.shape), torch.randint(0, 10, (native.batch,))
    optimizers = [torch.optim.SGD(one.parameters(), lr=1e-3, momentum=0.9) for one in (native, module)]
    if masked:
        hold_masks(module, optimizers[1])
    steps = [stepper(one, opt, x, labels) for one, opt in zip((native, module), optimizers, strict=True)]
    for _ in range(3):
        losses = [step() for step in steps]
        assert masked or abs(losses[0] - losses[1]) <= 1e-5 * abs(losses[0]), losses
    if not masked:
        for name, parameter in native.named_parameters():
            other = module.get_parameter(name_from_key(name))
            assert torch.allclose(parameter, other, rtol=0, atol=1e-5 * parameter.abs().max().item()), name
    return steps


def timed(steps: list[Callable[[], float]], pairs: int) -> NDArray[np.float64]:
    """Seconds of every step [pairs, 2], the first of a pair in turn."""
    for step in steps * WARM_UP:
        step()
    times = np.zeros((pairs, 2))
    for pair in range(pairs):
        for at in (0, 1) if pair % 2 == 0 else (1, 0):
            begin = time.perf_counter()
            steps[at]()
            times[pair, at] = time.perf_counter() - begin
    return times


HEAD = """| network | batch | masks | torch, ms | ONNX module, ms | quotient, median | 95 % interval | pairs |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--networks", default="lenet5,resnet18")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    networks = arguments.networks.split(",")
    rows = [measure(network, arguments.pairs, masked=masked) for network in networks for masked in (False, True)]
    print(HEAD, *rows, "", sep="\n")
    print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread, {date.today()}")


if __name__ == "__main__":
    main()
