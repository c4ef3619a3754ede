"""ResNet-18 (He et al. 2015, table 1) and ResNeXt-50 32x4d (Xie et al. 2016, table 1)."""

from __future__ import annotations

from torch import Tensor, nn


def conv(before: int, after: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the resolution (up to its stride), and BatchNorm."""
    layer = nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after))


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1x1 convolution where shapes change."""

    def __init__(self, body: nn.Sequential, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut = conv(before, after, 1, stride) if stride > 1 or before != after else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def basic(before: int, after: int, stride: int) -> Residual:
    """Two 3x3 convolutions."""
    body = nn.Sequential(conv(before, after, 3, stride), nn.ReLU(), conv(after, after, 3))
    return Residual(body, before, after, stride)


def grouped(before: int, after: int, stride: int) -> Residual:
    """1x1 to half the width, 3x3 in 32 groups, 1x1 to the full width."""
    half = after // 2
    body = nn.Sequential(
        conv(before, half, 1), nn.ReLU(), conv(half, half, 3, stride, 32), nn.ReLU(), conv(half, after, 1)
    )
    return Residual(body, before, after, stride)


class _Stages(nn.Module):
    def __init__(self, blocks: list[Residual], width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.stages(self.stem(x))).flatten(1))
        return logits


class ResNet18(_Stages):
    """Two basic blocks for each of 64, 128, 256 and 512 channels."""

    def __init__(self) -> None:
        sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        blocks = [one for a, b, stride in sizes for one in (basic(a, b, stride), basic(b, b, 1))]
        super().__init__(blocks, 512)


class ResNeXt50(_Stages):
    """3, 4, 6 and 3 grouped blocks of 256, 512, 1024 and 2048 channels."""

    def __init__(self) -> None:
        blocks: list[Residual] = []
        before = 64
        for after, depth in ((256, 3), (512, 4), (1024, 6), (2048, 3)):
            for at in range(depth):
                blocks.append(grouped(before, after, 2 if at == 0 and after > 256 else 1))
                before = after
        super().__init__(blocks, 2048)
