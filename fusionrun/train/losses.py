"""The loss of the two paths, term by term: global, individual, distillation.

    L = CE(z_g, y) + λ Σ_i CE(z_i, y) + w Σ_i KD_i
    KD_i = T² · KL(sg[q_i] ‖ softmax(z_i / T)), the mean over the batch

The first term is the collaborative path, the others are the individual one.

Owns the terms and how they are added up. Never reads a value back from the device: what is to be
logged stays a small tensor (`LossTerms.log`) until the epoch ends.

Shapes: B batch, E experts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fusionrun.schema.training import Weighting

__all__ = [
    "LossSettings",
    "LossTerms",
    "Teacher",
    "initial_weights",
    "loss_terms",
    "term_names",
    "term_weights",
]

Teacher = Literal["peers", "ensemble", "mutual", "global"]


@dataclass(frozen=True)
class LossSettings:
    """What the terms weigh, and who teaches.

    Attributes:
        lambda_loss: λ, the weight of each expert's own cross-entropy. 0 leaves the heads untrained.
        distillation_weight: w, the weight of each expert's distillation. 0 leaves it out.
        temperature: T, what logits are divided by before distillation.
        teacher: where q_i comes from. `peers`: the mean of the other experts' softened
            probabilities; `ensemble`: the softened mean of all experts' logits; `mutual`: each
            other expert in turn, the mean of those divergences; `global`: the global head.
        weighting: whether the cross-entropies' weights stay as they are: see `loss_weights`.
        log_variance_lr: rate of the learned log-variances, for `uncertainty`.
    """

    lambda_loss: float
    distillation_weight: float
    temperature: float
    teacher: Teacher
    weighting: Weighting = "static"
    log_variance_lr: float | None = None

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature: got {self.temperature}, expected more than 0")
        if min(self.lambda_loss, self.distillation_weight) < 0:
            raise ValueError(
                "lambda_loss and distillation_weight: expected 0 or more, "
                f"got {self.lambda_loss} and {self.distillation_weight}"
            )


class LossTerms(NamedTuple):
    """One batch's loss and the terms it is made of, none of them weighted.

    Attributes:
        total: (), the weighted sum; the only one to call `backward` on.
        global_ce: (), cross-entropy of the global head.
        expert_ce: (E,), cross-entropy of each expert's head; carries no gradient when λ is 0.
        distillation: (E,), KD_i with its T²; None when its weight is 0.
    """

    total: Tensor
    global_ce: Tensor
    expert_ce: Tensor
    distillation: Tensor | None

    @property
    def log(self) -> Tensor:
        """All terms in one detached tensor, in the order of `term_names`: (2 + E,) or (2 + 2E,).

        To be kept each step and stacked when the epoch ends, so that nothing waits in between.
        """
        rows = [self.total.unsqueeze(0), self.global_ce.unsqueeze(0), self.expert_ce]
        if self.distillation is not None:
            rows.append(self.distillation)
        return torch.cat([row.detach() for row in rows])


def term_names(experts: Sequence[str], settings: LossSettings) -> tuple[str, ...]:
    """What each number of `LossTerms.log` is."""
    names = ["total", "global_ce", *(f"expert_ce.{name}" for name in experts)]
    if settings.distillation_weight:
        names += [f"distillation.{name}" for name in experts]
    return tuple(names)


def term_weights(experts: Sequence[str], settings: LossSettings) -> tuple[float, ...]:
    """The weight of each number of `LossTerms.log` in the loss; the total's own is 1."""
    weights = [1.0, 1.0] + [settings.lambda_loss] * len(experts)
    if settings.distillation_weight:
        weights += [settings.distillation_weight] * len(experts)
    return tuple(weights)


def loss_terms(
    expert_logits: Tensor,
    global_logits: Tensor,
    targets: Tensor,
    settings: LossSettings,
    weights: Tensor | None = None,
    term_weights: Tensor | None = None,
) -> LossTerms:
    """The loss of one batch, in float32 at least, whatever autocast says.

    Args:
        expert_logits: (E, B, C), each head's logits.
        global_logits: (B, C).
        targets: (B,) class indices (int64), or (B, C) probabilities (mixed or smoothed labels),
            which then every cross-entropy uses.
        settings: weights, temperature and teacher.
        weights: (E, B), what each sample counts in an expert's own terms: 0 where its view is
            missing; such an expert teaches nobody either. None: no view is missing.
        term_weights: (1 + E,) or (1 + 2E,), what each term weighs; None: as the settings say.

    Raises:
        ValueError: distillation is asked for with fewer than two experts.
    """
    experts, overall = _at_least_float32(expert_logits), _at_least_float32(global_logits)
    num_experts = experts.shape[0]
    # With λ = 0 the experts' terms are for the log alone: cut, so that backward never visits them.
    judged = experts if settings.lambda_loss else experts.detach()
    terms = _cross_entropies(torch.cat([overall.unsqueeze(0), judged]), targets, weights)
    if settings.distillation_weight:
        terms = torch.cat([terms, _distillation(experts, overall, settings, weights)])
    if term_weights is None:
        term_weights = initial_weights(terms, num_experts, settings)
    first_kd = 1 + num_experts
    distillation = terms[first_kd:] if settings.distillation_weight else None
    total = torch.dot(terms, term_weights)
    return LossTerms(total, terms[0], terms[1:first_kd], distillation)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def initial_weights(like: Tensor, num_experts: int, settings: LossSettings) -> Tensor:
    """(1 + E,) or (1 + 2E,), as `like`: 1, λ for each expert and w for each distillation.

    Made by filling: a copy from the host would make a GPU wait.
    """
    size = 1 + num_experts * (2 if settings.distillation_weight else 1)
    weights = like.new_full((size,), settings.distillation_weight)
    weights[: 1 + num_experts].fill_(settings.lambda_loss)
    weights[:1].fill_(1.0)
    return weights


def _cross_entropies(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy of each row of (1 + E, B, C) logits, the mean over the batch: (1 + E,)."""
    rows, batch, _ = logits.shape
    log_probs = logits.log_softmax(-1)
    if targets.ndim == 1:
        log_likelihood = log_probs.gather(-1, targets.expand(rows, batch).unsqueeze(-1))
    else:
        log_likelihood = log_probs * targets
    if weights is not None:
        every_sample = torch.ones_like(weights[:1])
        log_likelihood = log_likelihood * torch.cat([every_sample, weights]).unsqueeze(-1)
    return log_likelihood.sum((1, 2)) * (-1.0 / batch)


def _distillation(
    experts: Tensor, overall: Tensor, settings: LossSettings, weights: Tensor | None
) -> Tensor:
    """KD_i of every expert, (E,). The teacher's side carries no gradient."""
    num_experts, batch, _ = experts.shape
    if num_experts < 2:
        raise ValueError(
            f"distillation needs at least two experts, got {num_experts}; "
            "set its weight to 0 or add an expert"
        )
    temperature = settings.temperature
    log_student = (experts / temperature).log_softmax(-1)
    with torch.no_grad():
        present = None if weights is None else (weights > 0).unsqueeze(-1)
        teacher, entropy = _teacher(experts, overall, log_student, settings, present)
    # -KL(q ‖ p) = H(q) + Σ q log p, class by class.
    negative = torch.addcmul(entropy, teacher, log_student)
    if weights is not None:
        negative = negative * weights.unsqueeze(-1)
    return negative.sum((1, 2)) * (-(temperature**2) / batch)


def _teacher(
    experts: Tensor,
    overall: Tensor,
    log_student: Tensor,
    settings: LossSettings,
    present: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The softened probabilities to learn from, and each one's share -q log q of the entropy.

    Whose view is missing in a sample (`present`, (E, B, 1), is False) teaches nobody there. Where
    no other is left, `peers` and `mutual` give zeros, which teach nothing.

    Returns:
        Two tensors of (E, B, C); or, where all experts have one teacher, of (B, C).
    """
    match settings.teacher:
        case "peers":
            teacher = _mean_of_others(log_student.exp(), present)
        case "mutual":
            # The mean of KL(p_j ‖ p_i) over j differs from KL(mean of p_j ‖ p_i) only in the
            # entropy, where the student has no say: hence the same gradient as `peers`.
            probs = log_student.exp()
            entropies = torch.special.entr(probs)
            return _mean_of_others(probs, present), _mean_of_others(entropies, present)
        case "ensemble":
            teacher = (_mean(experts, present) / settings.temperature).softmax(-1)
        case "global":
            teacher = (overall / settings.temperature).softmax(-1)
    return teacher, torch.special.entr(teacher)


def _mean(values: Tensor, present: Tensor | None) -> Tensor:
    """The mean over the experts that are present: (E, B, C) to (B, C)."""
    if present is None:
        return values.mean(0)
    return (values * present).sum(0) / present.sum(0).clamp(min=1)


def _mean_of_others(values: Tensor, present: Tensor | None) -> Tensor:
    """For each expert the mean over all the others: (E, B, C) to the same, E at least 2."""
    if present is not None:
        values = values * present
        others = (present.sum(0) - present.long()).clamp(min=1)
        return (values.sum(0) - values).clamp_min_(0).div_(others)
    # Not a product with a matrix of ones and zeros: TF32 would round it. What the difference
    # loses to cancellation may fall below zero, where neither quantity can be.
    return (values.sum(0) - values).clamp_min_(0).div_(values.shape[0] - 1)
