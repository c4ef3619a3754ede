"""Networks written in torch that structured pruning is measured on; they need torch and nothing else.

Each is the published architecture, checked by its published number of parameters where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from .dense import DenseNet121
from .mobile import MobileNetV2, ShuffleNetV2
from .recurrent import GRUNet, LSTMNet
from .residual import ResNet18, ResNeXt50
from .small import ConcatNet, LeNet5, SplitNet
from .transformer import EncoderBlock, PackedBlock
from .weights import export, filled

__all__ = ["NETS", "TIMED", "Net", "export"]


@dataclass(frozen=True)
class Net:
    """One network.

    Attributes:
        make: builds it, with torch's own weights.
        shape: of its input, the batch first; images are small where the number of parameters does not depend on it.
        last: name of the layer that makes the output; no pruner may cut its outputs.
        millions: the published number of parameters, in millions to two places; None when there is none.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    last: str
    millions: float | None = None

    def built(self, seed: int = 0) -> nn.Module:
        """The network with seeded weights as after training, in eval mode."""
        return filled(self.make(), self.shape, seed)


_IMAGE = (1, 3, 64, 64)
NETS = {
    "ResNet18": Net(ResNet18, _IMAGE, "fc", 11.69),
    "2-branch concat": Net(ConcatNet, (1, 3, 32, 32), "fc"),
    "DenseNet121": Net(DenseNet121, _IMAGE, "classifier", 7.98),
    "ResNeXt50-32x4d": Net(ResNeXt50, _IMAGE, "fc", 25.03),
    "MobileNetV2": Net(MobileNetV2, _IMAGE, "classifier", 3.50),
    "ShuffleNetV2 x1.0": Net(ShuffleNetV2, _IMAGE, "fc", 2.28),
    "Split/chunk": Net(SplitNet, (1, 3, 32, 32), "fc"),
    "LeNet-5": Net(LeNet5, (1, 1, 28, 28), "fc2"),
    "LSTM": Net(LSTMNet, (1, 16, 40), "fc"),
    "GRU": Net(GRUNet, (1, 16, 40), "fc"),
    "transformer block": Net(EncoderBlock, (1, 16, 64), "fc"),
    "transformer block (packed QKV)": Net(PackedBlock, (1, 16, 64), "fc"),
}
"""In the order of the table."""
_LARGER = (1, 3, 160, 160)
TIMED = {
    "MobileNetV2": replace(NETS["MobileNetV2"], shape=_LARGER),
    "ResNet18": replace(NETS["ResNet18"], shape=_LARGER),
    "LeNet-5": NETS["LeNet-5"],
    "transformer block": Net(lambda: EncoderBlock(256, 8, 1024), (1, 64, 256), "fc"),
}
"""Those whose time is measured, at sizes that are in use."""
