"""Small convolutional networks, one for each structure: a split, two branches joined, a flattened map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(before: int, after: int, size: int = 3) -> nn.Sequential:
    """A convolution that keeps the resolution, BatchNorm, relu."""
    layer = nn.Conv2d(before, after, size, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


class SplitNet(nn.Module):
    """One convolution whose halves go two ways and are added again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 64), conv(64, 128)
        self.left, self.right = conv(64, 96), conv(64, 96)
        self.fc = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        left, right = functional.max_pool2d(self.body(self.stem(x)), 2).chunk(2, dim=1)
        both = self.left(left) + self.right(right)
        logits: Tensor = self.fc(functional.adaptive_avg_pool2d(both, 1).flatten(1))
        return logits


class ConcatNet(nn.Module):
    """Two branches of different width, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = conv(3, 32), conv(32, 48), conv(32, 64, 5)
        self.join = conv(112, 128)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.stem(x), 2)
        x = self.join(torch.cat([self.left(x), self.right(x)], 1))
        logits: Tensor = self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class LeNet5(nn.Module):
    """LeNet-5 as in Caffe: conv 20, conv 50, fully connected 500 and 10; 431,080 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        logits: Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return logits
