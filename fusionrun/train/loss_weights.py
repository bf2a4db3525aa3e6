"""What each term of the loss weighs while a run goes on: as the recipe says, learned, or by pace.

The weights are one small tensor on the device, which a step reads like any other of its inputs.
`uncertainty` moves it after every step, `dwa` at every epoch's end. λ and the distillation's weight
stay factors of the recipe's: λ is where an expert's weight begins, distillation keeps its own.

Owns that tensor, what it is made of, and how weighted terms are logged; what learns here is no
component and is never exported. Never decides what a term is.

Shapes: E experts, K = 1 + E cross-entropies (the global head's first), T = K or K + E loss terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from fusionrun.train.losses import (
    LossSettings,
    LossTerms,
    initial_weights,
    term_names,
    term_weights,
)
from fusionrun.train.metrics import GLOBAL
from fusionrun.train.optimizer import Call, Counter, OptimizerSettings, optimize
from fusionrun.train.ranks import Ranks

__all__ = ["LossWeights", "loss_weights"]

TEMPERATURE: Final = 2.0
"""Of DWA's softmax over the losses' paces. Source: Liu et al., 2019."""

Summary = tuple[dict[str, float], dict[str, float]]


class LossWeights:
    """Weights that stay: 1, λ for each expert, w for each distillation.

    Args:
        experts: the experts' names.
        settings: λ, w and what the other kinds need.
        like: a tensor of the losses' type, on their device.
        ranks: those that train together; weights are the same on all.
    """

    def __init__(
        self, experts: Sequence[str], settings: LossSettings, like: Tensor, ranks: Ranks
    ) -> None:
        self._names = term_names(experts, settings)
        self._paths = (GLOBAL, *experts)
        self._given = term_weights(experts, settings)
        self._settings, self._ranks = settings, ranks
        self.tensor = initial_weights(like, len(experts), settings)

    @property
    def log_size(self) -> int:
        """How many numbers `log` gives."""
        return len(self._names)

    def log(self, terms: LossTerms) -> Tensor:
        """What a step leaves for the epoch's end, on the device."""
        return terms.log

    def learn(self, log: Tensor, share: float, left_out: Tensor | None) -> None:
        """Takes in a step: its log, this rank's share of the batch, whether it was left out."""

    def end_epoch(self, means: Sequence[float]) -> None:
        """Takes in an epoch: the mean of each number of the log."""

    def summary(self, means: Sequence[float]) -> Summary:
        """An epoch's losses, and the same as they were weighted, from the log's means."""
        losses = dict(zip(self._names, means, strict=True))
        weights = dict(zip(self._names, self._given, strict=True))
        return losses, {name: losses[name] * weight for name, weight in weights.items()}

    def now(self) -> dict[str, float]:
        """What each path's cross-entropy weighs now; empty where that never changes."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on, as views."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state_dict` gave.

        Raises:
            KeyError, RuntimeError: it was another kind's, or of other experts.
        """
        for key, tensor in self.state_dict().items():
            tensor.copy_(state[key])


class UncertaintyWeights(LossWeights):
    """Weights learned as uncertainties (Kendall, Gal and Cipolla, 2018, arXiv 1705.07115).

        Σ_k c_k exp(-s_k) CE_k + s_k / 2,   s_k = log σ_k², c = (1, λ, …, λ)

    The gradient of s is known in closed form from the losses, 1/2 - c exp(-s) CE: no backward pass
    visits it. It is taken by Adam at a rate of its own, constant and without decay, at every batch
    that is not left out; s begins at 0. The weights settle at 1 / (2 CE) and so grow without bound
    as a loss goes to zero, as in the paper.
    """

    def __init__(
        self, experts: Sequence[str], settings: LossSettings, like: Tensor, ranks: Ranks
    ) -> None:
        super().__init__(experts, settings, like, ranks)
        self._size = len(self._paths)
        self._prior = self.tensor[: self._size].clone()
        self._log_variances = torch.zeros_like(self._prior)
        self._gradient = torch.zeros_like(self._prior)
        self._moments = [torch.zeros_like(self._prior) for _ in range(2)]
        self._steps = torch.zeros((), device=like.device)
        self._none = torch.zeros((), device=like.device)
        self._adam = OptimizerSettings("Adam")

    @property
    def log_size(self) -> int:
        """The terms, Σ s / 2, and each cross-entropy as it was weighted."""
        return len(self._names) + 1 + self._size

    def log(self, terms: LossTerms) -> Tensor:
        """The total has Σ s / 2 in it: it is what is made small."""
        log, penalty = terms.log, self._log_variances.sum().unsqueeze(0) / 2
        weighted = log[1 : 1 + self._size] * self.tensor[: self._size]
        return torch.cat([log[:1] + penalty, log[1:], penalty, weighted])

    @torch.no_grad()
    def learn(self, log: Tensor, share: float, left_out: Tensor | None) -> None:
        """Moves s by the whole batch's losses."""
        losses = log[1 : 1 + self._size] * share
        self._ranks.sum_(losses)
        torch.sub(0.5, losses * self.tensor[: self._size], out=self._gradient)
        bad = (self._gradient.sum() * 0).ne(0).to(self._none.dtype)
        found = torch.maximum(bad, self._none if left_out is None else left_out)
        rate = self._settings.log_variance_lr
        assert rate is not None
        moments = [[moment] for moment in self._moments]
        flats, grads, steps = [self._log_variances], [self._gradient], [self._steps]
        call = Call(Counter(False, 0), rate, 0.0, flats, grads, moments, steps)
        optimize(self._adam, call, found)
        self._set()

    def _set(self) -> None:
        torch.mul(self._prior, (-self._log_variances).exp(), out=self.tensor[: self._size])

    def summary(self, means: Sequence[float]) -> Summary:
        """Weights differ from step to step: what is weighted was logged so."""
        end = len(self._names)
        losses, weighted = super().summary(means[:end])
        cross_entropies = self._names[1 : 1 + self._size]
        weighted |= dict(zip(cross_entropies, means[end + 1 :], strict=True))
        penalty = {"log_variances": means[end]}
        return losses | penalty, weighted | penalty

    def now(self) -> dict[str, float]:
        """After the last step."""
        return dict(zip(self._paths, self.tensor[: self._size].tolist(), strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """s, Adam's moments and its steps."""
        first, second = self._moments
        state = {"log_variances": self._log_variances, "step": self._steps}
        return {**state, "exp_avg": first, "exp_avg_sq": second}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Also puts the weights where s says."""
        super().load_state_dict(state)
        self._set()


class PaceWeights(LossWeights):
    """Dynamic weight averaging: who falls slower weighs more (Liu et al., 2019, arXiv 1803.10704).

        c_k K softmax(r / 2)_k,   r_k = the last epoch's mean CE_k / that of the one before it

    The first two epochs weigh all alike.
    """

    def __init__(
        self, experts: Sequence[str], settings: LossSettings, like: Tensor, ranks: Ranks
    ) -> None:
        super().__init__(experts, settings, like, ranks)
        # The two latest epochs' means, the latest one last; nan: there was none yet.
        self._means = torch.full((2, len(self._paths)), math.nan, dtype=torch.float64)

    def end_epoch(self, means: Sequence[float]) -> None:
        """Weighs the next epoch."""
        latest = torch.tensor(means[1 : 1 + len(self._paths)], dtype=torch.float64)
        self._means.copy_(torch.stack([self._means[1], latest]))
        self._set()

    def _set(self) -> None:
        size = len(self._paths)
        paces = self._means[1] / self._means[0].clamp(min=torch.finfo(torch.float64).tiny)
        factors = torch.ones_like(paces)
        if not paces.isnan().any():
            factors = size * (paces / TEMPERATURE).softmax(0)
        given = self._given[1 : 1 + size]
        own = [c * factor for c, factor in zip(given, factors.tolist(), strict=True)]
        self.tensor[:size].copy_(torch.tensor(own, dtype=torch.float64))

    def summary(self, means: Sequence[float]) -> Summary:
        """With the weights that the epoch had, as the steps used them."""
        losses, weighted = super().summary(means)
        names, size = self._names[1:], len(self._paths)
        own = zip(names[:size], self.tensor[:size].tolist(), strict=True)
        return losses, weighted | {name: losses[name] * weight for name, weight in own}

    def now(self) -> dict[str, float]:
        """Those of the epoch that goes on, or comes."""
        size = len(self._paths)
        return dict(zip(self._paths, self.tensor[:size].tolist(), strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        """The two epochs' means."""
        return {"means": self._means}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Also makes the weights anew."""
        super().load_state_dict(state)
        self._set()


def loss_weights(
    experts: Sequence[str], settings: LossSettings, like: Tensor, ranks: Ranks
) -> LossWeights:
    """The weights of a run, by `settings.weighting`."""
    kinds = {"static": LossWeights, "uncertainty": UncertaintyWeights, "dwa": PaceWeights}
    return kinds[settings.weighting](experts, settings, like, ranks)
