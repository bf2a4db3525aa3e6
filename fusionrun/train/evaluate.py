"""A split under the network in evaluation mode: logits of all paths, and their metrics.

Shapes: N rows, E experts, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fusionrun.models.network import FusionNetwork, Outputs
from fusionrun.train.step import autocast
from fusionrun.train.tables import Table

# Large enough to keep any device busy, small enough for activations of small images.
EVALUATION_BATCH = 2048


@torch.no_grad()
def split_logits(network: FusionNetwork, table: Table, precision: str) -> Outputs:
    """Logits of every row, in the table's order: of the experts (E, N, C), of the global head
    (N, C); float32.
    """
    experts, overall = [], []
    with evaluating(network):
        for batch in table.in_order(EVALUATION_BATCH):
            with autocast(precision, table.labels.device):
                outputs = network(batch.inputs)
            experts.append(outputs.expert_logits.float())
            overall.append(outputs.global_logits.float())
    return Outputs(torch.cat(experts, dim=1), torch.cat(overall))


@contextmanager
def evaluating(network: FusionNetwork) -> Iterator[None]:
    """A network in evaluation mode, then in the one that it was in."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
