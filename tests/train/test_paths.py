"""Two paths' gradients on an expert: closed cases, the papers' own words in a loop, whole steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusionrun.models.experts import MLP, Expert
from fusionrun.models.fusions.product_of_experts import ProductOfExperts
from fusionrun.models.fusions.simple_addition import SimpleAddition
from fusionrun.models.network import FusionNetwork
from fusionrun.schema.training import Combination
from fusionrun.train.buffers import clip_groups
from fusionrun.train.loss_scale import LossScale
from fusionrun.train.losses import LossSettings, loss_terms
from fusionrun.train.optimizer import OptimizerSettings
from fusionrun.train.paths import MAGNITUDE, mmpareto, pcgrad
from fusionrun.train.step import Step
from fusionrun.train.tables import Batch
from fusionrun.train.updates import Updater

NAMES = ("a", "b")
LOSSES = LossSettings(lambda_loss=0.5, distillation_weight=0.2, temperature=2.0, teacher="peers")
CPU = torch.device("cpu")
BOTH: tuple[Combination, ...] = ("pcgrad", "mmpareto")
Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]


def joined(weigh: Weigh, c: Any, i: Any) -> Tensor:
    c, i = (torch.as_tensor(v, dtype=torch.float64) for v in (c, i))
    of_c, of_i = weigh(*(d.unsqueeze(0) for d in (c @ c, c @ i, i @ i)))[0]
    return of_c * c + of_i * i


# --- small cases ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c", "i", "expected"),
    [
        ([1, 0], [0, 1], [1, 1]),
        ([2, 1], [1, 0], [3, 1]),
        ([1, 0], [-1, 1], [0.5, 1.5]),  # c loses (-1/2) (-1, 1), i loses (-1) (1, 0)
        ([3, 0], [-1, 0], [0, 0]),
        ([0, 0], [4, -3], [4, -3]),
    ],
)
def test_pcgrad_takes_out_what_each_has_along_the_other(c: Any, i: Any, expected: Any) -> None:
    assert joined(pcgrad, c, i).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("c", "i", "direction"),
    [
        ([1, 0], [0, 1], [1, 1]),
        ([2, 1], [1, 0], [3, 1]),
        ([1, 0], [-1, 1], [0.2, 0.4]),  # the shortest between them: α = 3/5
        ([0, 0], [4, -3], [4, -3]),
    ],
)
def test_mmpareto_has_the_common_direction_and_the_sums_length(
    c: Any, i: Any, direction: Any
) -> None:
    got, common = joined(mmpareto, c, i), torch.tensor(direction, dtype=torch.float64)
    length = math.dist((0, 0), [x + y for x, y in zip(c, i, strict=True)])
    expected = common / common.norm() * length * MAGNITUDE
    assert got.tolist() == pytest.approx(expected.tolist())


def test_mmpareto_does_not_stretch_what_is_rounding_alone() -> None:
    assert joined(mmpareto, [1, 0], [-1, 0]).norm() < 1e-12
    assert joined(mmpareto, [0, 0], [0, 0]).tolist() == [0, 0]


def drawn(seed: int) -> tuple[Tensor, Tensor]:
    """A pair in conflict, of unequal lengths."""
    generator = torch.Generator().manual_seed(seed)
    c, i = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    return c, i - (1.2 + seed) * c


@pytest.mark.parametrize("seed", range(4))
def test_pcgrad_is_the_papers_algorithm_in_any_order(seed: int) -> None:
    gradients = drawn(seed)
    projected = []
    for task, own in enumerate(gradients):
        left, other = own.clone(), gradients[1 - task]  # of two tasks each has one other
        if left @ other < 0:
            left -= (left @ other) / (other @ other) * other
        projected.append(left)
    torch.testing.assert_close(joined(pcgrad, *gradients), projected[0] + projected[1])


@pytest.mark.parametrize("seed", range(4))
def test_mmpareto_is_along_the_shortest_between_the_two_and_descends_both(seed: int) -> None:
    c, i = drawn(seed)
    alphas = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
    lengths = (alphas * c + (1 - alphas) * i).norm(dim=1)
    shortest = alphas[lengths.argmin()] * c + (1 - alphas[lengths.argmin()]) * i
    got = joined(mmpareto, c, i)
    assert (got @ shortest / got.norm() / shortest.norm()).item() == pytest.approx(1, abs=1e-8)
    assert got.norm().item() == pytest.approx(MAGNITUDE * (c + i).norm().item())
    assert min(got @ c, got @ i) > 0


@pytest.mark.parametrize("weigh", [pcgrad, mmpareto])
def test_each_expert_is_weighed_by_itself(weigh: Weigh) -> None:
    pairs = [drawn(seed) for seed in range(3)]
    dots = [torch.stack(d) for d in zip(*((c @ c, c @ i, i @ i) for c, i in pairs), strict=True)]
    for row, (c, i) in zip(weigh(*dots), pairs, strict=True):
        torch.testing.assert_close(row[0] * c + row[1] * i, joined(weigh, c, i))


# --- whole steps ------------------------------------------------------------------------------


def network(kind: str = "sum of features") -> FusionNetwork:
    torch.manual_seed(0)

    def expert() -> Expert:
        backbone = MLP(input_shape=(5,), hidden=[7], features=6, dropout=0.0, activation="gelu")
        return Expert(backbone, scaler_shape=(5,), norm=True)

    fusion: nn.Module = ProductOfExperts()
    last: nn.Module = nn.Identity()
    if kind == "sum of features":
        fusion = SimpleAddition(
            widths=[6, 6], dim=6, hidden_dim=6, dropout=0.0, cross_expert_attention=False
        )
        last = nn.Linear(6, 4)
    experts = {name: expert() for name in NAMES}
    heads = {name: nn.Linear(6, 4) for name in NAMES}
    return FusionNetwork(experts, heads, fusion, last).double()


def step(
    own: FusionNetwork,
    combination: Combination,
    *,
    losses: LossSettings = LOSSES,
    accumulation: int = 1,
    loss_scale: LossScale | None = None,
    max_skipped: int = 0,
) -> Step:
    """Plain gradient descent at a rate of 1: a step is the gradient."""
    parts = own.components()
    updater = Updater(
        parts,
        clip_groups(NAMES, None, None),
        OptimizerSettings("SGD"),
        dict.fromkeys(parts, 0.0),
        accumulation,
        loss_scale,
        max_skipped=max_skipped,
        combination=combination,
    )
    updater.set_rates(dict.fromkeys(parts, 1.0))
    return Step(own, updater, losses, "float32", CPU)


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in NAMES]
    return Batch(inputs, torch.randint(4, (8,), generator=generator))


def moves(own: FusionNetwork, take: Callable[[], object]) -> dict[str, Tensor]:
    """What a step subtracts, by component."""
    before = {n: nn.utils.parameters_to_vector(m.parameters()).clone() for n, m in parts(own)}
    take()
    return {n: before[n] - nn.utils.parameters_to_vector(m.parameters()) for n, m in parts(own)}


def parts(own: FusionNetwork) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in own.components().items() if list(m.parameters())]


def path_gradients(own: FusionNetwork, one: Batch) -> dict[str, list[Tensor]]:
    """By component the collaborative gradient and the individual one, by plain autograd."""
    found: dict[str, list[Tensor]] = {name: [] for name, _ in parts(own)}
    for which in (0, 1):
        outputs = own(one.inputs)
        terms = loss_terms(outputs.expert_logits, outputs.global_logits, one.labels, LOSSES)
        assert terms.distillation is not None
        individual = 0.5 * terms.expert_ce.sum() + 0.2 * terms.distillation.sum()
        loss = individual if which else terms.global_ce
        for name, module in parts(own):
            own_parameters = list(module.parameters())
            gradients = torch.autograd.grad(
                loss, own_parameters, retain_graph=True, allow_unused=True
            )
            pairs = zip(gradients, own_parameters, strict=True)
            found[name].append(
                torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
            )
    return found


@pytest.mark.parametrize("kind", ["sum of features", "product of experts"])
@pytest.mark.parametrize("combination", BOTH)
def test_a_step_combines_on_experts_and_adds_everywhere_else(
    combination: Combination, kind: str
) -> None:
    own = network(kind)
    weigh = {"pcgrad": pcgrad, "mmpareto": mmpareto}[combination]
    gradients = path_gradients(own, batch(0))
    conflicts = {name: bool(c @ i < 0) for name, (c, i) in gradients.items()}

    moved = moves(own, lambda: step(own, combination)(batch(0), True))

    for name, (c, i) in gradients.items():
        expected = joined(weigh, c, i) if name.startswith("experts.") else c + i
        torch.testing.assert_close(moved[name], expected, rtol=1e-9, atol=1e-12)
    if kind == "sum of features":
        assert conflicts["experts.a"] or conflicts["experts.b"]


def test_without_a_conflict_pcgrad_is_the_sum() -> None:
    own = network("product of experts")
    twin = copy.deepcopy(own)
    usual = moves(own, lambda: step(own, "sum")(batch(3), True))
    combined = moves(twin, lambda: step(twin, "pcgrad")(batch(3), True))
    for name, value in usual.items():
        torch.testing.assert_close(combined[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("combination", BOTH)
def test_batches_are_combined_one_by_one_and_then_accumulated(combination: Combination) -> None:
    own = network()
    alone = []
    for seed in (0, 1):
        twin = copy.deepcopy(own)
        taken = step(twin, combination)
        frozen = dict.fromkeys(("fusion", "global_head"))
        taken.updater.set_rates({**dict.fromkeys(twin.components(), 1.0), **frozen})
        alone.append(moves(twin, lambda t=taken, s=seed: t(batch(s), True)))
    window = step(own, combination, accumulation=2)
    window.updater.set_rates(
        {**dict.fromkeys(own.components(), 1.0), "fusion": None, "global_head": None}
    )

    moved = moves(own, lambda: [window(batch(seed), False) for seed in (0, 1)])

    for name in ("experts.a", "heads.a", "experts.b", "heads.b"):
        expected = (alone[0][name] + alone[1][name]) / 2
        torch.testing.assert_close(moved[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("combination", BOTH)
def test_a_loss_scale_changes_nothing_but_the_gradients_range(combination: Combination) -> None:
    own, twin = network(), network()
    usual = moves(own, lambda: step(own, combination)(batch(0), True))
    scaled = step(twin, combination, loss_scale=LossScale("cpu"))
    moved = moves(twin, lambda: scaled(batch(0), True))
    for name, value in usual.items():
        torch.testing.assert_close(moved[name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("combination", BOTH)
def test_a_gradient_that_is_not_finite_leaves_the_step_out(combination: Combination) -> None:
    own = network()
    taken = step(own, combination, max_skipped=1)
    broken = batch(0)
    broken.inputs[0][0, 0] = math.inf
    moved = moves(own, lambda: taken(broken, True))
    assert all(not value.any() for value in moved.values())
    assert taken.updater.nonfinite_steps() == 1
    assert all(
        value.isfinite().all() for value in moves(own, lambda: taken(batch(1), True)).values()
    )


@pytest.mark.parametrize("combination", BOTH)
def test_a_frozen_expert_stays_and_the_other_is_combined(combination: Combination) -> None:
    own = network()
    weigh = {"pcgrad": pcgrad, "mmpareto": mmpareto}[combination]
    expected = joined(weigh, *path_gradients(own, batch(0))["experts.b"])
    taken = step(own, combination)
    own.freeze(["a"])
    taken.updater.set_rates({**dict.fromkeys(own.components(), 1.0), "experts.a": None})
    moved = moves(own, lambda: taken(batch(0), True))
    assert not moved["experts.a"].any()
    assert moved["heads.a"].any()
    torch.testing.assert_close(moved["experts.b"], expected, rtol=1e-9, atol=1e-12)


def test_the_log_of_a_step_is_the_same_however_gradients_are_combined() -> None:
    logs = [step(network(), c)(batch(0), True) for c in ("sum", *BOTH)]
    assert all(torch.equal(log.terms, logs[0].terms) for log in logs)


def test_distillation_alone_is_an_individual_path() -> None:
    losses = replace(LOSSES, lambda_loss=0.0, teacher="global")
    own = network()
    moved = moves(own, lambda: step(own, "pcgrad", losses=losses)(batch(0), True))
    assert all(value.any() for value in moved.values())
