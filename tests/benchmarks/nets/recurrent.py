"""Two recurrent layers and a classifier of the last step."""

from __future__ import annotations

from torch import Tensor, nn


class LSTMNet(nn.Module):
    """40 features, two LSTM layers of 128 units, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(40, 128, num_layers=2, batch_first=True)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.rnn(x)
        logits: Tensor = self.fc(steps[:, -1])
        return logits


class GRUNet(nn.Module):
    """40 features, two GRU layers of 128 units, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(40, 128, num_layers=2, batch_first=True)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.rnn(x)
        logits: Tensor = self.fc(steps[:, -1])
        return logits
