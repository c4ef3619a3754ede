"""DenseNet-121 (Huang et al. 2016, table 1): growth 32, bottlenecks of 128, transitions that halve."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """BatchNorm, relu, 1x1 to 4 x growth, BatchNorm, relu, 3x3 to growth; joined to its input."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        wide = 4 * growth
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.ReLU(),
            nn.Conv2d(before, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class DenseNet121(nn.Module):
    """Blocks of 6, 12, 24 and 16 layers."""

    def __init__(self, growth: int = 32, depths: tuple[int, ...] = (6, 12, 24, 16)) -> None:
        super().__init__()
        width = 2 * growth
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
        for at, depth in enumerate(depths):
            if at:
                layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False)]
                layers.append(nn.AvgPool2d(2))
                width //= 2
            for _ in range(depth):
                layers.append(Layer(width, growth))
                width += growth
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
