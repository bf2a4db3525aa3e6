"""Weights that are learned or follow the losses' pace, against the papers' formulas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fusionrun.store.manifest import read_manifest
from fusionrun.train import job
from fusionrun.train.loss_weights import LossWeights, loss_weights
from fusionrun.train.losses import LossSettings, LossTerms, loss_terms
from fusionrun.train.ranks import SINGLE
from tests.small_runs import SMALL, prepared

pytestmark = pytest.mark.usefixtures("numerics")

NAMES = ("a", "b")
STATIC = LossSettings(lambda_loss=0.5, distillation_weight=0.1, temperature=2.0, teacher="peers")
UNCERTAINTY = replace(STATIC, weighting="uncertainty", log_variance_lr=0.05)
DWA = replace(STATIC, weighting="dwa")
LIKE = torch.empty(0, dtype=torch.float64)


def made(settings: LossSettings) -> LossWeights:
    return loss_weights(NAMES, settings, LIKE, SINGLE)


def drawn(seed: int, weights: LossWeights) -> LossTerms:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 8, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (8,), generator=generator)
    return loss_terms(logits[1:], logits[0], labels, STATIC, term_weights=weights.tensor)


def take(weights: LossWeights, seed: int, left_out: float = 0.0) -> Tensor:
    log = weights.log(drawn(seed, weights))
    weights.learn(log, 1.0, torch.tensor(left_out))
    return log


def test_static_weights_stay_as_the_recipe_says() -> None:
    weights = made(STATIC)
    take(weights, 0)
    weights.end_epoch([1.0] * 6)
    assert weights.tensor.tolist() == [1.0, 0.5, 0.5, 0.1, 0.1]
    assert (weights.now(), weights.state_dict()) == ({}, {})


# --- uncertainty ------------------------------------------------------------------------------


def test_log_variances_take_adams_steps_on_the_papers_loss() -> None:
    weights = made(UNCERTAINTY)
    s = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([s], lr=0.05)
    prior = torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)
    for seed in range(5):
        terms = drawn(seed, weights)
        ce = torch.cat([terms.global_ce.unsqueeze(0), terms.expert_ce])
        (prior * (-s).exp() * ce + s / 2).sum().backward()  # type: ignore[no-untyped-call]
        adam.step()
        adam.zero_grad()
        take(weights, seed)
        torch.testing.assert_close(weights.tensor[:3], prior * (-s).exp().detach())
    assert weights.tensor[3:].tolist() == [0.1, 0.1]


def test_learned_weights_settle_at_half_of_one_over_the_loss() -> None:
    weights = made(UNCERTAINTY)
    losses = torch.tensor([0.0, 2.0, 0.25, 1.0], dtype=torch.float64)  # the total, then each
    for _ in range(600):
        weights.learn(losses, 1.0, None)
    assert weights.tensor[:3].tolist() == pytest.approx([0.25, 2.0, 0.5], rel=1e-3)


def test_the_logged_total_is_what_its_weighted_terms_add_up_to() -> None:
    weights = made(UNCERTAINTY)
    logs = torch.stack([take(weights, seed) for seed in range(4)])
    losses, weighted = weights.summary(logs.mean(0).tolist())
    assert losses["total"] == weighted["total"] == pytest.approx(sum(weighted.values()) / 2)
    assert list(losses) == list(weighted)
    assert list(losses)[-1] == "log_variances"
    # The means of products are not the products of the means: weights moved in between.
    assert weighted["global_ce"] != pytest.approx(losses["global_ce"] * weights.now()["global"])


@pytest.mark.parametrize("poisoned", [False, True], ids=["left out", "not finite"])
def test_a_step_that_is_left_out_moves_no_log_variance(poisoned: bool) -> None:
    weights = made(UNCERTAINTY)
    take(weights, 0)
    before = {key: tensor.clone() for key, tensor in weights.state_dict().items()}
    if poisoned:
        weights.learn(torch.full((4,), torch.nan, dtype=torch.float64), 1.0, None)
    else:
        take(weights, 1, left_out=1.0)
    assert all(torch.equal(before[key], t) for key, t in weights.state_dict().items())


# --- dynamic weight averaging -----------------------------------------------------------------


def test_who_falls_slower_weighs_more_from_the_third_epoch_on() -> None:
    weights = made(DWA)
    weights.end_epoch([9.0, 2.0, 2.0, 2.0, 0.3, 0.3])
    assert weights.now() == {"global": 1.0, "a": 0.5, "b": 0.5}
    weights.end_epoch([9.0, 1.0, 2.0, 1.8, 0.3, 0.3])
    factors = 3 * torch.tensor([0.5, 1.0, 0.9], dtype=torch.float64).div(2.0).softmax(0)
    expected = factors * torch.tensor([1.0, 0.5, 0.5])
    assert list(weights.now().values()) == pytest.approx(expected.tolist())
    assert weights.tensor[3:].tolist() == [0.1, 0.1]


def test_the_weights_of_a_pace_add_up_to_how_many_there_are() -> None:
    weights = made(replace(DWA, lambda_loss=1.0))
    for epoch in range(5):
        weights.end_epoch([9.0, 2.0 / (1 + epoch), 1.0, 0.5 + epoch, 0.3, 0.3])
    assert sum(weights.now().values()) == pytest.approx(3)


@pytest.mark.parametrize("settings", [UNCERTAINTY, DWA], ids=["uncertainty", "dwa"])
def test_a_loaded_state_goes_on_to_the_same_bits(settings: LossSettings) -> None:
    weights, other = made(settings), made(settings)

    def epochs(own: LossWeights, seeds: range) -> None:
        for seed in seeds:
            own.end_epoch(take(own, seed).tolist()[:6])

    epochs(weights, range(3))
    other.load_state_dict({k: t.clone() for k, t in weights.state_dict().items()})
    for own in (weights, other):
        epochs(own, range(3, 6))
    assert torch.equal(weights.tensor, other.tensor)


# --- a whole run ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uncertainty", "dwa"])
def test_a_run_logs_its_weights_and_exports_none(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = SMALL + "training: {epochs: 4, batch_size: 32, device: cpu}\n"
    layout = prepared(tmp_path, f"knowledge_transfer.loss_weighting={kind}", recipe=recipe)
    job.run(layout)
    lines: list[dict[str, Any]]
    lines = [json.loads(line) for line in layout.metrics.read_text().splitlines()]
    for line in lines:
        weighted = line["weighted_loss"]
        assert list(line["loss_weights"]) == ["global", "fourier", "zernike"]
        assert weighted["total"] == pytest.approx(sum(weighted.values()) / 2)
    if kind == "dwa":
        assert set(lines[1]["loss_weights"].values()) == {1.0}
    assert len(set(lines[3]["loss_weights"].values())) == 3
    assert set(read_manifest(layout.components("best")).components) == {
        *("experts.fourier", "experts.zernike", "heads.fourier", "heads.zernike"),
        *("fusion", "global_head"),
    }
    end = ", ".join(f"{path} {weight:.3g}" for path, weight in lines[3]["loss_weights"].items())
    if kind == "uncertainty":
        assert f"loss weights after the last epoch: {end}" in capsys.readouterr().out
