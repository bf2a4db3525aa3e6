"""A split under the network in evaluation mode: logits of all paths, and their metrics.

Shapes: N rows, E experts, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fusionrun.models.network import FusionNetwork
from fusionrun.train.step import autocast
from fusionrun.train.tables import Table

# Large enough to keep any device busy, small enough for activations of small images.
EVALUATION_BATCH = 2048


@torch.no_grad()
def split_logits(network: FusionNetwork, table: Table, precision: str) -> tuple[Tensor, Tensor]:
    """Logits of every row, in the table's order.

    Returns:
        Of the experts (E, N, C) and of the global head (N, C), float32.
    """
    was_training = network.training
    network.eval()
    experts, overall = [], []
    for batch in table.in_order(EVALUATION_BATCH):
        with autocast(precision, table.labels.device):
            outputs = network(batch.inputs)
        experts.append(outputs.expert_logits.float())
        overall.append(outputs.global_logits.float())
    network.train(was_training)
    return torch.cat(experts, dim=1), torch.cat(overall)
