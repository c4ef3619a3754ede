"""One encoder block of Vaswani et al. 2017, and a classifier of the mean step: as torch ships it, and by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedBlock(nn.Module):
    """torch's own layer, one weight for query, key and value. Width 64, 4 heads, 128 hidden units, 10 classes."""

    def __init__(self, width: int = 64, heads: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(width, heads, hidden, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.block(x).mean(1))
        return logits


class EncoderBlock(nn.Module):
    """The same with a layer each for query, key and value, as most model libraries write it."""

    def __init__(self, width: int = 64, heads: int = 4, hidden: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        query, key, value = (
            layer(x).view(batch, steps, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) * self.scale, -1)
        seen = (weights @ value).transpose(1, 2).reshape(batch, steps, -1)
        x = self.norm1(x + self.out(seen))
        x = self.norm2(x + self.narrow(torch.relu(self.wide(x))))
        logits: Tensor = self.fc(x.mean(1))
        return logits
