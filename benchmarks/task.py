"""What all engines are given: one network with its first weights, its data, and the batches' order.

    L = CE(z_g, y) + λ Σ_i CE(z_i, y)

Rates are those of the first epoch throughout. The recipe has no dropout, no distillation and no
augmentation, so that every engine must come to the same loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.data.load import load_data
from fusionrun.models.network import FusionNetwork
from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.plan.unsupported import refuse_unsupported
from fusionrun.recipe.read import read_recipe
from fusionrun.train.assemble import choose_device, make_network
from fusionrun.train.tables import Table, epoch_order


def plan_of(recipe: Path, settings: list[str]) -> Plan:
    """Raises NotYetError where this version cannot train the recipe."""
    plan = make_plan(read_recipe(recipe, settings), Path("runs"))
    refuse_unsupported(plan)
    transfer = plan.settings.knowledge_transfer
    assert transfer.knowledge_distillation_weight == 0
    assert transfer.expert_gradient_accumulation == 1
    return plan


@dataclass(frozen=True)
class Task:
    """What a peer trains.

    Attributes:
        plan: the recipe's.
        network: with its first weights, in training mode.
        inputs: of each expert, scaled, (N, *shape).
        labels: (N,).
    """

    plan: Plan
    network: FusionNetwork
    inputs: list[Tensor]
    labels: Tensor

    @property
    def batch_size(self) -> int:
        return self.plan.settings.training.batch_size

    @property
    def device(self) -> torch.device:
        """Where network and rows are."""
        return self.labels.device

    def orders(self) -> Iterator[Tensor]:
        """The rows of one epoch after the other, in fusionrun's order."""
        for epoch in count():
            yield epoch_order(len(self.labels), self.plan.seed, epoch, self.device)

    def parameter_groups(self) -> list[dict[str, object]]:
        """One for each component, with its rate and weight decay."""
        return [
            {
                "params": list(module.parameters()),
                "lr": self.plan.components[name].rates[0],
                "weight_decay": self.plan.components[name].weight_decay,
            }
            for name, module in self.network.components().items()
        ]

    def optimizer(self, *, fused: bool | None = None) -> torch.optim.Optimizer:
        settings = self.plan.settings.training.optimizer
        assert settings.type == "AdamW"
        groups = self.parameter_groups()
        return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, fused=fused)

    def clips(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters with one norm, and its limit: each expert with its head; the rest."""
        transfer, parts = self.plan.settings.knowledge_transfer, self.network.components()
        pairs = [(parts[f"experts.{n}"], parts[f"heads.{n}"]) for n in self.network.names]
        joined = (parts["fusion"], parts["global_head"])
        limits = [transfer.expert_gradient_clipping] * len(pairs)
        return [
            ([p for module in modules for p in module.parameters()], float(limit))
            for modules, limit in zip(
                [*pairs, joined], [*limits, transfer.fusion_gradient_clipping], strict=True
            )
            if limit is not None
        ]

    def loss(self, inputs: list[Tensor], labels: Tensor) -> Tensor:
        """As a person writes it down."""
        outputs = self.network(inputs)
        loss = F.cross_entropy(outputs.global_logits, labels)
        weight = self.plan.settings.knowledge_transfer.lambda_loss
        for logits in outputs.expert_logits:
            loss = loss + weight * F.cross_entropy(logits, labels)
        return loss

    @torch.no_grad()
    def whole_loss(self) -> float:
        """Of all training rows, by the network as it is now."""
        self.network.eval()
        loss = self.loss(self.inputs, self.labels).item()
        self.network.train()
        return loss


def task_of(plan: Plan) -> Task:
    torch.manual_seed(plan.seed)
    rows = load_data(plan.settings.data, plan.data)["train"]
    device = choose_device(plan.settings.training.device)
    network = make_network(plan, rows).to(device).train()
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    table = Table(rows, network.experts_by_name, views, device)
    batch = table.batch(torch.arange(len(table), device=device))
    return Task(plan, network, [x.contiguous() for x in batch.inputs], batch.labels)
