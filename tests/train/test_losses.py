"""Each loss term against torch's own functions, and where its gradient goes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionrun.train.losses import (
    LossSettings,
    Teacher,
    loss_terms,
    term_names,
    term_weights,
)

E, B, C = 4, 6, 5
NAMES = tuple("abcd")
TEACHERS: tuple[Teacher, ...] = ("peers", "ensemble", "mutual", "global")
ONLY_KD = LossSettings(lambda_loss=0.0, distillation_weight=1.0, temperature=3.0, teacher="peers")
PLAIN = LossSettings(lambda_loss=0.7, distillation_weight=0.0, temperature=3.0, teacher="peers")
BOTH = replace(PLAIN, distillation_weight=0.3)


def drawn(scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(E + 1, B, C, generator=generator, dtype=torch.float64)
    labels = torch.randint(C, (B,), generator=generator)
    return logits[1:].clone().requires_grad_(), logits[0].clone().requires_grad_(), labels


def mixed_targets() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(B, C, generator=generator, dtype=torch.float64).softmax(-1)


def kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    log_student = (student / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_student, teacher.detach(), reduction="batchmean")


def plain_distillation(i: int, experts: Tensor, overall: Tensor, settings: LossSettings) -> Tensor:
    """The contract's KD_i, in a loop over the peers."""
    t = settings.temperature
    peers = [(experts[j] / t).softmax(-1) for j in range(E) if j != i]
    match settings.teacher:
        case "peers":
            return kl(torch.stack(peers).mean(0), experts[i], t)
        case "mutual":
            return torch.stack([kl(peer, experts[i], t) for peer in peers]).mean()
        case "ensemble":
            return kl((experts.mean(0) / t).softmax(-1), experts[i], t)
        case "global":
            return kl((overall / t).softmax(-1), experts[i], t)


def kd_gradient(experts: Tensor, overall: Tensor, settings: LossSettings) -> Tensor:
    labels = torch.zeros(B, dtype=torch.int64)
    terms = loss_terms(experts, overall, labels, settings)
    assert terms.distillation is not None
    return torch.autograd.grad(terms.distillation.sum(), experts)[0]


@pytest.mark.parametrize("mixed", [False, True], ids=["indices", "mixed targets"])
def test_cross_entropies_equal_torchs(mixed: bool) -> None:
    experts, overall, labels = drawn()
    targets = mixed_targets() if mixed else labels

    terms = loss_terms(experts, overall, targets, PLAIN)

    own = torch.stack([F.cross_entropy(logits, targets) for logits in experts])
    torch.testing.assert_close(terms.global_ce, F.cross_entropy(overall, targets))
    torch.testing.assert_close(terms.expert_ce, own, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        terms.total, terms.global_ce + 0.7 * own.sum(), rtol=1e-12, atol=1e-12
    )


def test_one_hot_targets_equal_indices() -> None:
    experts, overall, labels = drawn()

    by_index = loss_terms(experts, overall, labels, BOTH)
    by_row = loss_terms(experts, overall, F.one_hot(labels, C).double(), BOTH)

    torch.testing.assert_close(by_row.log, by_index.log, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("teacher", TEACHERS)
def test_distillation_equals_torchs_kl_div(teacher: Teacher) -> None:
    experts, overall, labels = drawn()
    settings = replace(BOTH, teacher=teacher)

    got = loss_terms(experts, overall, labels, settings)

    expected = [plain_distillation(i, experts, overall, settings) for i in range(E)]
    assert got.distillation is not None
    torch.testing.assert_close(got.distillation, torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("mixed", [False, True], ids=["indices", "mixed targets"])
def test_gradients_of_the_total_equal_those_of_a_plain_sum(teacher: Teacher, mixed: bool) -> None:
    experts, overall, labels = drawn()
    targets = mixed_targets() if mixed else labels
    settings = replace(BOTH, teacher=teacher)
    plain = F.cross_entropy(overall, targets)
    for i in range(E):
        plain = plain + 0.7 * F.cross_entropy(experts[i], targets)
        plain = plain + 0.3 * plain_distillation(i, experts, overall, settings)
    expected = torch.autograd.grad(plain, [experts, overall])

    total = loss_terms(experts, overall, targets, settings).total

    torch.testing.assert_close(total, plain, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad(total, [experts, overall])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("teacher", TEACHERS)
def test_equal_logits_give_zero_distillation(teacher: Teacher) -> None:
    _, overall, labels = drawn()
    experts = overall.detach().expand(E, B, C).clone().requires_grad_()

    terms = loss_terms(experts, overall, labels, replace(ONLY_KD, teacher=teacher))

    assert terms.distillation is not None
    assert terms.distillation.abs().max() < 1e-14
    assert kd_gradient(experts, overall, replace(ONLY_KD, teacher=teacher)).abs().max() < 1e-15


@pytest.mark.parametrize("teacher", TEACHERS)
def test_distillation_reaches_only_the_student(teacher: Teacher) -> None:
    experts, overall, labels = drawn()
    terms = loss_terms(experts, overall, labels, replace(ONLY_KD, teacher=teacher))
    assert terms.distillation is not None

    own, taught = torch.autograd.grad(terms.distillation[2], [experts, overall])

    assert own[2].abs().min() > 0
    others = [i for i in range(E) if i != 2]
    assert torch.equal(own[others], torch.zeros(E - 1, B, C, dtype=torch.float64))
    assert torch.equal(taught, torch.zeros_like(taught))


def test_mutual_and_peers_have_equal_gradients_and_other_values() -> None:
    experts, overall, labels = drawn()
    mutual = replace(ONLY_KD, teacher="mutual")

    assert torch.equal(
        kd_gradient(experts, overall, mutual), kd_gradient(experts, overall, ONLY_KD)
    )
    assert loss_terms(experts, overall, labels, mutual).total > (
        loss_terms(experts, overall, labels, ONLY_KD).total
    )


def test_the_squared_temperature_keeps_the_gradients_size() -> None:
    """Hinton et al. (2015): for large T the gradient tends to the logits' difference over C."""
    experts, overall, _ = drawn(scale=1.0)
    hot = kd_gradient(experts, overall, replace(ONLY_KD, temperature=1e4, teacher="global"))
    centred = experts - experts.mean(-1, keepdim=True)
    aim = overall - overall.mean(-1, keepdim=True)
    torch.testing.assert_close(hot, (centred - aim) / (C * B), rtol=1e-3, atol=1e-5)

    cool = kd_gradient(experts, overall, replace(ONLY_KD, temperature=1.0, teacher="global"))
    assert 0.5 < (hot.norm() / cool.norm()).item() < 2.0


def test_untrained_heads_are_logged_without_a_gradient() -> None:
    experts, overall, labels = drawn()

    terms = loss_terms(experts, overall, labels, replace(PLAIN, lambda_loss=0.0))

    torch.testing.assert_close(terms.total, terms.global_ce, rtol=1e-12, atol=1e-12)
    assert terms.expert_ce.min() > 0
    terms.total.backward()  # type: ignore[no-untyped-call]
    assert experts.grad is None


def test_no_weight_means_no_distillation() -> None:
    assert loss_terms(*drawn(), PLAIN).distillation is None


def test_distillation_of_one_expert_is_refused() -> None:
    experts, overall, labels = drawn()

    with pytest.raises(ValueError, match="at least two experts, got 1"):
        loss_terms(experts[:1], overall, labels, BOTH)


def test_one_expert_without_distillation_is_fine() -> None:
    experts, overall, labels = drawn()

    terms = loss_terms(experts[:1], overall, labels, PLAIN)

    assert terms.expert_ce.shape == (1,)


def test_extreme_logits_stay_finite() -> None:
    experts, overall, labels = drawn(scale=500.0)

    terms = loss_terms(experts.float(), overall.float(), labels, BOTH)

    assert terms.log.isfinite().all()
    assert (terms.log >= 0).all()
    assert torch.autograd.grad(terms.total, experts)[0].isfinite().all()


def test_terms_are_float32_under_autocast() -> None:
    experts, overall, labels = drawn()
    low = experts.bfloat16(), overall.bfloat16()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss_terms(*low, labels, BOTH)

    assert inside.log.dtype == torch.float32
    outside = loss_terms(low[0].float(), low[1].float(), labels, BOTH)
    assert torch.equal(inside.log, outside.log)


@pytest.mark.parametrize("settings", [PLAIN, BOTH], ids=["without", "with distillation"])
def test_the_logs_numbers_have_names_and_weights_that_add_up(settings: LossSettings) -> None:
    terms = loss_terms(*drawn(), settings)
    log = dict(zip(term_names(NAMES, settings), terms.log.tolist(), strict=True))
    weights = dict(zip(term_names(NAMES, settings), term_weights(NAMES, settings), strict=True))

    assert not terms.log.requires_grad
    assert log["expert_ce.c"] == terms.expert_ce[2].item()
    total = log.pop("total")
    assert total == pytest.approx(sum(weights[name] * value for name, value in log.items()))


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature: got 0"):
        replace(PLAIN, temperature=0.0)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        replace(PLAIN, lambda_loss=-1.0)


# --- missing views ----------------------------------------------------------------------------

PRESENT = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1]], dtype=torch.bool)


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_missing_view_neither_learns_nor_teaches(teacher: Teacher) -> None:
    """Against plain loops over the samples that have an expert's view."""
    experts, overall, labels = (x[..., :4, :] if x.ndim > 1 else x[:4] for x in drawn())
    experts = experts[:3]
    weights = PRESENT * (4 / PRESENT.sum(1, keepdim=True)).double()
    terms = loss_terms(experts, overall, labels, replace(BOTH, teacher=teacher), weights)
    assert terms.distillation is not None
    for i in range(3):
        rows = PRESENT[i].nonzero().flatten()
        own = F.cross_entropy(experts[i, rows], labels[rows])
        torch.testing.assert_close(terms.expert_ce[i], own)
        taught = [distilled(experts[:, b], overall[b], i, PRESENT[:, b], teacher) for b in rows]
        torch.testing.assert_close(terms.distillation[i], torch.stack(taught).mean())


def distilled(
    experts: Tensor, overall: Tensor, i: int, present: Tensor, teacher: Teacher
) -> Tensor:
    """KD of one expert on one sample: (E, C) and (C,) logits."""
    there = present.nonzero().flatten().tolist()
    others = [experts[j] for j in there if j != i]
    if not others and teacher in ("peers", "mutual"):
        return torch.zeros((), dtype=experts.dtype)
    soft = [(logits / 3.0).softmax(-1) for logits in others]
    teachers = {
        "peers": lambda: [torch.stack(soft).mean(0)],
        "mutual": lambda: soft,
        "ensemble": lambda: [(experts[there].mean(0) / 3.0).softmax(-1)],
        "global": lambda: [(overall / 3.0).softmax(-1)],
    }[teacher]()
    return torch.stack([kl(q[None], experts[i][None], 3.0) for q in teachers]).mean()
