"""What each layer costs: weights, FLOPs, and the shares of both that pruning and zero activations leave.

The columns are those of Han et al. 2015, tables 2 to 5.
"""

from __future__ import annotations

from .costs import LayerCost, LayerTable, LayerTotal, layer_cost, total_of
from .measure import DataSource
from .table import layer_table

__all__ = ["DataSource", "LayerCost", "LayerTable", "LayerTotal", "layer_cost", "layer_table", "total_of"]
