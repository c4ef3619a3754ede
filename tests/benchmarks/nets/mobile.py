"""MobileNetV2 (Sandler et al. 2018, table 2) and ShuffleNetV2 x1.0 (Ma et al. 2018, table 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(
    before: int, after: int, size: int, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    """A convolution that keeps the resolution (up to its stride), BatchNorm, and `act` when given."""
    layer = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), *([act] if act is not None else []))


class Inverted(nn.Module):
    """1x1 to a multiple of the width, depthwise 3x3, 1x1 back without activation; added to its input where it fits."""

    def __init__(self, before: int, after: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = before * expand
        first = [conv(before, wide, 1, act=nn.ReLU6())] if expand > 1 else []
        self.body = nn.Sequential(*first, conv(wide, wide, 3, stride, wide, nn.ReLU6()), conv(wide, after, 1))
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.adds else out


class MobileNetV2(nn.Module):
    """Width 1.0."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, 32, 3, 2, act=nn.ReLU6())]
        before = 32
        for expand, after, depth, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            for at in range(depth):
                layers.append(Inverted(before, after, stride if at == 0 else 1, expand))
                before = after
        self.features = nn.Sequential(*layers, conv(before, 1280, 1, act=nn.ReLU6()), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def shuffled(x: Tensor, groups: int = 2) -> Tensor:
    """Channels of the groups in turn."""
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


def branch(before: int, after: int, stride: int) -> nn.Sequential:
    """1x1, depthwise 3x3, 1x1."""
    first, last = conv(before, after, 1, act=nn.ReLU()), conv(after, after, 1, act=nn.ReLU())
    return nn.Sequential(first, conv(after, after, 3, stride, after), last)


class Unit(nn.Module):
    """Half of the channels pass, half go through a branch; then both are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = branch(width // 2, width // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return shuffled(torch.cat([left, self.branch(right)], 1))


class Down(nn.Module):
    """The unit that halves the resolution: two branches of the whole input."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        half = after // 2
        self.left = nn.Sequential(conv(before, before, 3, 2, before), conv(before, half, 1, act=nn.ReLU()))
        self.right = branch(before, half, 2)

    def forward(self, x: Tensor) -> Tensor:
        return shuffled(torch.cat([self.left(x), self.right(x)], 1))


class ShuffleNetV2(nn.Module):
    """x1.0: stages of 116, 232 and 464 channels, 4, 8 and 4 units."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, 24, 3, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
        before = 24
        for width, depth in ((116, 4), (232, 8), (464, 4)):
            layers += [Down(before, width), *(Unit(width) for _ in range(depth - 1))]
            before = width
        self.features = nn.Sequential(*layers, conv(before, 1024, 1, act=nn.ReLU()))
        self.fc = nn.Linear(1024, 1000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x).mean([2, 3]))
        return logits
