"""Augmented batches: the same on any number of ranks, and all that a loss needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionrun.data.load import Rows
from fusionrun.models.experts import CNN, MLP, Backbone, Expert
from fusionrun.plan.augmentation import settled
from fusionrun.schema.training import Augmentation
from fusionrun.train.augment import Augmenter, BatchPart, Reading
from fusionrun.train.mixing import Mixture, drawn_mixture, soft
from fusionrun.train.tables import Batch, Picture, Table

CPU = torch.device("cpu")
ROWS, CLASSES = 40, 5
SIZE = 16
IMAGE = (1, 6, 8)
EVERYTHING = {
    "mixup": {"alpha": 0.5, "probability": 0.7},
    "random_erasing": {"probability": 0.5},
    "flip": True,
    "crop": 2,
    "randaugment": {"num_ops": 2, "magnitude": 20},
    "noise": 0.3,
    "modality_dropout": 0.4,
    "label_smoothing": 0.1,
}


def settings(**on: Any) -> Augmentation:
    return settled(Augmentation.model_validate(on), "concatenation")


def expert(backbone: Backbone, *scaler_shape: int) -> Expert:
    made = Expert(backbone, scaler_shape=scaler_shape, norm=False)
    made.scaler.mean.fill_(0.4)
    made.scaler.std.fill_(2.0)
    return made


@pytest.fixture(scope="module")
def table() -> Table:
    """A CNN and an MLP on one image, an MLP on a vector."""
    rng = np.random.default_rng(0)
    views = {
        "image": rng.integers(0, 256, (ROWS, *IMAGE), dtype=np.uint8),
        "vector": rng.random((ROWS, 3), dtype=np.float32),
    }
    plain = {"hidden": [], "features": 4, "dropout": 0.0, "activation": "relu"}
    experts = {
        "cnn": expert(
            CNN(input_shape=IMAGE, channels=[2], features=4, dropout=0.0), *(IMAGE[0], 1, 1)
        ),
        "flat": expert(MLP(input_shape=(48,), **plain), *(IMAGE[0], 1, 1)),  # type: ignore[arg-type]
        "vector": expert(MLP(input_shape=(3,), **plain), 3),  # type: ignore[arg-type]
    }
    rows = Rows(views, np.arange(ROWS) % CLASSES, np.arange(ROWS))
    return Table(rows, experts, {"cnn": "image", "flat": "image", "vector": "vector"}, CPU)


def augmenter(table: Table, seed: int = 0, **on: Any) -> Augmenter:
    black = torch.full((1, 1, 1), -0.2)
    readings = [
        Reading("image", slot, IMAGE, black, slot.scaler)
        if isinstance(slot, Picture)
        else Reading("vector", slot)
        for slot in table.slots
    ]
    return Augmenter(settings(**on), seed, CLASSES, readings)


ORDER = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))


def epoch(table: Table, seed: int = 0, first_step: int = 0, **on: Any) -> list[Batch]:
    """Every batch of an epoch; the last one has eight rows."""
    spans = [(start, min(start + SIZE, ROWS)) for start in range(0, ROWS, SIZE)]
    parts = [BatchPart(first_step + n, *span, *span) for n, span in enumerate(spans)]
    return list(augmenter(table, seed, **on).batches(table, ORDER, parts))


def tensors(batch: Batch) -> list[Tensor]:
    found = [*batch.inputs, batch.labels, batch.targets, batch.present]
    return [x for x in found if x is not None]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- what a batch depends on ------------------------------------------------------------------


def test_the_same_seed_gives_the_same_batches(table: Table) -> None:
    once, again = epoch(table, **EVERYTHING), epoch(table, **EVERYTHING)
    assert all(same(tensors(a), tensors(b)) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("change", [{"seed": 1}, {"first_step": 3}])
def test_another_seed_or_step_gives_other_batches(table: Table, change: dict[str, int]) -> None:
    once, other = epoch(table, **EVERYTHING), epoch(table, **EVERYTHING, **change)
    pairs = zip(once, other, strict=True)
    assert not any(torch.equal(a.inputs[0], b.inputs[0]) for a, b in pairs)


def test_the_rest_of_an_epoch_does_not_depend_on_what_was_before(table: Table) -> None:
    (last,) = augmenter(table, **EVERYTHING).batches(table, ORDER, [BatchPart(2, 32, 40, 32, 40)])
    assert same(tensors(last), tensors(epoch(table, **EVERYTHING)[2]))


@pytest.mark.parametrize("cut", [0, 5, SIZE])
def test_ranks_together_have_the_batch_of_one(table: Table, cut: int) -> None:
    whole = epoch(table, **EVERYTHING)[0]
    own = augmenter(table, **EVERYTHING)
    parts = [BatchPart(0, 0, SIZE, 0, cut), BatchPart(0, 0, SIZE, cut, SIZE)]
    halves = [next(own.batches(table, ORDER, [part])) for part in parts]
    halves = [half for half in halves if len(half.labels)]
    assert sum(len(half.labels) for half in halves) == SIZE
    joined = [torch.cat(pair) for pair in zip(*map(tensors, halves), strict=True)]
    assert same(joined, tensors(whole))
    assert whole.weights is not None
    assert torch.equal(
        torch.cat([h.weights for h in halves if h.weights is not None], 1), whole.weights
    )


def test_experts_that_share_an_image_see_the_same(table: Table) -> None:
    batch = epoch(table, **EVERYTHING)[0]
    assert torch.equal(batch.inputs[0].flatten(1), batch.inputs[1])


def test_turning_one_on_changes_no_draw_of_another(table: Table) -> None:
    alone, beside = epoch(table, flip=True)[0], epoch(table, flip=True, label_smoothing=0.1)[0]
    assert torch.equal(alone.inputs[0], beside.inputs[0])


def test_the_table_is_left_as_it_is(table: Table) -> None:
    before = table.matrix.clone()
    epoch(table, **EVERYTHING)
    assert torch.equal(table.matrix, before)


# --- each of them -----------------------------------------------------------------------------


def test_noise_has_the_deviation_that_was_asked_for(table: Table) -> None:
    plain, noisy = table.batch(ORDER[:SIZE]), epoch(table, noise=0.3)[0]
    for clean, changed in zip(plain.inputs, noisy.inputs, strict=True):
        assert 0.2 < (changed - clean).std() < 0.4


def test_half_of_the_images_are_flipped_and_no_vector(table: Table) -> None:
    plain = table.batch(ORDER[:SIZE])
    batch = epoch(table, flip=True)[0]
    pairs = zip(batch.inputs[0], plain.inputs[0], strict=True)
    flips = [torch.equal(x, y.flip(-1)) and not torch.equal(x, y) for x, y in pairs]
    assert 0 < sum(flips) < SIZE
    assert torch.equal(batch.inputs[2], plain.inputs[2])


@pytest.mark.parametrize("on", [{"randaugment": {"num_ops": 1}}, {"trivialaugment": True}])
def test_a_policy_leaves_bytes_and_no_vector_changes(on: dict[str, Any], table: Table) -> None:
    plain, batch = table.batch(ORDER[:SIZE]), epoch(table, **on)[0]
    raw = batch.inputs[0] * 2.0 + 0.4
    torch.testing.assert_close(raw, raw.round(), atol=1e-3, rtol=0)
    assert raw.min() + 1e-3 >= 0
    assert raw.max() <= 255 + 1e-3
    pairs = zip(batch.inputs[0], plain.inputs[0], strict=True)
    unlike = sum(not torch.equal(x, y) for x, y in pairs)
    assert SIZE // 2 < unlike < SIZE + 1  # (two of fourteen leave one channel as it is)
    assert torch.equal(batch.inputs[2], plain.inputs[2])


def test_mixup_is_the_sum_with_the_one_before(table: Table) -> None:
    plain = table.batch(ORDER[:SIZE])
    batch = epoch(table, mixup={"alpha": 1.0})[0]
    assert batch.targets is not None
    own = F.one_hot(plain.labels, CLASSES).float()
    share = float((batch.targets * own).sum(1).min())
    for x, mixed in zip([*plain.inputs, own], [*batch.inputs, batch.targets], strict=True):
        torch.testing.assert_close(mixed, share * x + (1 - share) * x.roll(1, 0))
    larger = plain.labels if share >= 0.5 else plain.labels.roll(1)
    assert torch.equal(batch.labels, larger)


def test_cutmix_weighs_targets_by_the_pixels_that_are_left() -> None:
    kinds = settings(cutmix={"alpha": 1.0})
    for seed in range(50):
        mixture = drawn_mixture(kinds, np.random.default_rng(seed), (6, 8))
        assert mixture is not None
        left = mixture.inputs(torch.ones(1, 1, 6, 8), torch.zeros(1, 1, 6, 8)).mean()
        assert float(left) == pytest.approx(mixture.own)


def test_the_box_of_cutmix_is_torchvisions() -> None:
    """λ, then row and column of its middle; sides of √(1 - λ), cut at the edges."""
    for seed in range(20):
        mixture = drawn_mixture(
            settings(cutmix={"alpha": 1.0}), np.random.default_rng(seed), (20, 30)
        )
        assert mixture is not None
        again = np.random.default_rng(seed)
        again.random(3)
        half = 0.5 * (1 - again.beta(1.0, 1.0)) ** 0.5
        y, x = again.integers(20), again.integers(30)
        top, bottom = np.clip([y - int(half * 20), y + int(half * 20)], 0, 20)
        left, right = np.clip([x - int(half * 30), x + int(half * 30)], 0, 30)
        assert mixture.box == (top, left, bottom, right)


def test_of_mixup_and_cutmix_a_batch_gets_one() -> None:
    both = settings(mixup={"alpha": 1.0}, cutmix={"alpha": 1.0, "probability": 0.5})
    drawn = [drawn_mixture(both, np.random.default_rng(seed), (6, 8)) for seed in range(400)]
    boxes = sum(mixture is not None and mixture.box is not None for mixture in drawn)
    assert None not in drawn
    assert 60 < boxes < 140  # a quarter


def test_the_share_of_batches_that_are_mixed() -> None:
    some = settings(mixup={"alpha": 1.0, "probability": 0.25})
    drawn = [drawn_mixture(some, np.random.default_rng(seed), None) for seed in range(400)]
    assert 60 < sum(mixture is not None for mixture in drawn) < 140


def test_labels_of_a_mixture_are_those_of_the_larger_share() -> None:
    own, partners = torch.tensor([0, 1]), torch.tensor([2, 3])
    assert torch.equal(Mixture(0.5, None).labels(own, partners), own)
    assert torch.equal(Mixture(0.4, None).labels(own, partners), partners)


def test_smoothed_targets_are_torchs() -> None:
    logits = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % CLASSES
    smoothed = soft(labels, CLASSES, 0.2, torch.float32)
    torch.testing.assert_close(
        F.cross_entropy(logits, smoothed), F.cross_entropy(logits, labels, label_smoothing=0.2)
    )


# --- missing views ----------------------------------------------------------------------------


def test_views_are_missing_as_often_as_asked_and_never_all(table: Table) -> None:
    chance = 0.5
    parts = [BatchPart(step, 0, ROWS, 0, ROWS) for step in range(40)]
    batches = augmenter(table, modality_dropout=chance).batches(table, ORDER, parts)
    found = [batch.present for batch in batches if batch.present is not None]
    present = torch.cat(found)
    assert present.any(1).all()
    assert torch.equal(present[:, 0], present[:, 1])  # (one view)
    # Both missing, a quarter, becomes one missing: 1/4 + 1/2 of 1/4 for each.
    assert abs((~present[:, 2]).float().mean() - 0.375) < 0.05


def test_weights_make_the_mean_over_the_samples_that_have_the_view(table: Table) -> None:
    batch = epoch(table, modality_dropout=0.4)[0]
    assert batch.weights is not None
    assert batch.present is not None
    values = torch.arange(SIZE, dtype=torch.float32)
    for weight, present in zip(batch.weights, batch.present.T, strict=True):
        assert torch.equal(weight > 0, present)
        torch.testing.assert_close((weight * values).mean(), values[present].mean())
