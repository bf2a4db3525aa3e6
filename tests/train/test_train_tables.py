"""The table a split becomes on the device, and the order in which batches are taken from it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from fusionrun.data.decode import Pictures
from fusionrun.data.load import Rows, fit_scaling
from fusionrun.errors import DataError
from fusionrun.models.experts import CNN, MLP, Expert
from fusionrun.schema.images import Images
from fusionrun.train.images import Encoded, Held
from fusionrun.train.tables import Table, epoch_order, spans

CPU = torch.device("cpu")


def mlp(inputs: int) -> Expert:
    shape = {"input_shape": (inputs,), "hidden": [], "features": 2}
    return Expert(MLP(**shape, dropout=0.0, activation="relu"), scaler_shape=(inputs,), norm=False)


@pytest.fixture
def rows() -> Rows:
    numbers = np.random.default_rng(0)
    views = {"a": numbers.normal(size=(7, 3)), "image": numbers.normal(size=(7, 12))}
    narrow = {name: values.astype(np.float32) for name, values in views.items()}
    return Rows(narrow, np.arange(7) % 3, np.arange(7))


def test_a_batch_is_the_experts_scaled_rows(rows: Rows) -> None:
    expert = mlp(3)
    expert.scaler.mean.fill_(0.5)
    expert.scaler.std.fill_(2.0)
    batch = Table(rows, {"x": expert}, {"x": "a"}, CPU).batch(torch.tensor([4, 1]))
    assert torch.equal(batch.inputs[0], (torch.from_numpy(rows.views["a"][[4, 1]]) - 0.5) / 2)
    assert batch.labels.tolist() == [1, 1]


def test_a_vector_view_becomes_the_image_that_a_cnn_reads(rows: Rows) -> None:
    backbone = CNN(input_shape=(1, 3, 4), channels=[2], features=2, dropout=0.0)
    expert = Expert(backbone, scaler_shape=(12,), norm=False)
    table = Table(rows, {"x": mlp(3), "y": expert}, {"x": "a", "y": "image"}, CPU)
    inputs = table.batch(torch.tensor([6, 0, 2])).inputs
    assert [tuple(x.shape) for x in inputs] == [(3, 3), (3, 1, 3, 4)]
    assert torch.equal(inputs[1].flatten(1), torch.from_numpy(rows.views["image"][[6, 0, 2]]))


def test_experts_of_one_view_and_scaling_share_their_columns(rows: Rows) -> None:
    table = Table(rows, {"x": mlp(3), "y": mlp(3)}, {"x": "a", "y": "a"}, CPU)
    assert table.matrix.shape == (7, 3)


def test_experts_of_one_view_with_another_scaling_have_their_own_columns(rows: Rows) -> None:
    other = mlp(3)
    other.scaler.mean.fill_(1.0)
    table = Table(rows, {"x": mlp(3), "y": other}, {"x": "a", "y": "a"}, CPU)
    first, second = table.batch(torch.arange(7)).inputs
    assert table.matrix.shape == (7, 6)
    assert torch.equal(second, first - 1)


def test_evaluation_sees_every_row_once_and_in_order(rows: Rows) -> None:
    table = Table(rows, {"x": mlp(3)}, {"x": "a"}, CPU)
    batches = list(table.in_order(3))
    assert [len(batch.labels) for batch in batches] == [3, 3, 1]
    assert torch.equal(torch.cat([b.inputs[0] for b in batches]), table.matrix)


def pictures(channels: int = 1) -> tuple[Rows, Expert]:
    """Seven images of bytes, and an expert that scales them."""
    raw = np.random.default_rng(1).integers(0, 256, (7, channels, 4, 6), dtype=np.uint8)
    backbone = CNN(input_shape=(channels, 4, 6), channels=[2], features=2, dropout=0.0)
    expert = Expert(backbone, scaler_shape=(channels, 1, 1), norm=False)
    mean, std = fit_scaling(raw)
    expert.scaler.mean.copy_(torch.from_numpy(mean))
    expert.scaler.std.copy_(torch.from_numpy(std))
    return Rows({"image": raw}, np.arange(7) % 3, np.arange(7)), expert


def test_images_stay_bytes_and_a_batch_is_what_the_expert_makes_of_them() -> None:
    rows, expert = pictures(channels=3)
    table = Table(rows, {"x": expert}, {"x": "image"}, CPU)
    assert table.images["image"].take(torch.arange(2)).dtype == torch.uint8
    (taken,) = table.batch(torch.tensor([4, 1])).inputs
    assert torch.equal(taken, expert.scale(torch.from_numpy(rows.views["image"][[4, 1]])))


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_images_that_are_read_ahead_are_those_that_are_held(num_threads: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (30, 3, 4, 6), dtype=np.uint8)
    files = [(f"image {row}", png(image)) for row, image in enumerate(pixels)]
    encoded = Encoded(Pictures(files, (3, 4, 6), Images()), CPU, num_threads)
    held = Held(pixels, CPU)
    rows: list[list[int]] = [[3, 1, 2], [29], [5, 5], [], [0, 4], [7]]
    wanted = [torch.tensor(own, dtype=torch.int64) for own in rows]
    for one, other in zip(encoded.batches(wanted), held.batches(wanted), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(encoded.take(wanted[0]), held.take(wanted[0]))


def test_an_image_that_cannot_be_read_ends_the_batch_that_it_is_in() -> None:
    files = [("image 0", png(np.zeros((3, 4, 6), np.uint8))), ("image 1", b"no image")]
    encoded = Encoded(Pictures(files, (3, 4, 6), Images()), CPU, 1)
    batches = encoded.batches([torch.tensor([0]), torch.tensor([1])])
    next(batches)
    with pytest.raises(DataError, match="cannot read the image image 1"):
        next(batches)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1)).save(file, "png")
    return file.getvalue()


def test_evaluation_takes_fewer_large_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusionrun.train.tables.MOST_PIXELS", 3 * 24)
    rows, expert = pictures()
    table = Table(rows, {"x": expert}, {"x": "image"}, CPU)
    assert [len(batch.labels) for batch in table.in_order(2048)] == [3, 3, 1]


def test_a_batch_of_no_images_has_their_shape() -> None:
    """What a rank without a share of the last batch takes."""
    rows, expert = pictures()
    table = Table(rows, {"x": expert}, {"x": "image"}, CPU)
    (taken,) = table.batch(torch.arange(0)).inputs
    assert taken.shape == (0, 1, 4, 6)


def test_experts_of_one_scaling_share_a_scaled_batch_and_others_do_not() -> None:
    rows, expert = pictures()
    _, same = pictures()
    _, other = pictures()
    other.scaler.std.fill_(2.0)
    experts = {"x": expert, "y": same, "z": other}
    table = Table(rows, experts, dict.fromkeys(experts, "image"), CPU)
    x, y, z = table.batch(torch.arange(7)).inputs
    assert x.data_ptr() == y.data_ptr()
    assert torch.equal(z, other.scale(torch.from_numpy(rows.views["image"])))


def test_images_and_numbers_stand_beside_each_other(rows: Rows) -> None:
    seen, expert = pictures()
    mixed = Rows({**rows.views, **seen.views, "image": seen.views["image"]}, rows.labels, rows.ids)
    table = Table(mixed, {"x": mlp(3), "y": expert}, {"x": "a", "y": "image"}, CPU)
    for batch in (table.batch(torch.arange(7)), next(table.in_order(7))):
        assert torch.equal(batch.inputs[0], torch.from_numpy(rows.views["a"]))
        assert torch.equal(batch.inputs[1], expert.scale(torch.from_numpy(seen.views["image"])))


def test_an_epochs_order_holds_every_row_once() -> None:
    assert sorted(epoch_order(50, 3, 2, CPU).tolist()) == list(range(50))


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    first = epoch_order(50, 1, 0, CPU)
    torch.rand(3)
    assert torch.equal(epoch_order(50, 1, 0, CPU), first)


@pytest.mark.parametrize("other", [(0, 1), (1, 1), (2, 0)])
def test_another_seed_or_epoch_has_another_order(other: tuple[int, int]) -> None:
    assert not torch.equal(epoch_order(50, *other, CPU), epoch_order(50, 1, 0, CPU))


def test_the_last_batch_is_shorter_and_used() -> None:
    assert spans(10, 4) == [(0, 4), (4, 8), (8, 10)]


def test_a_batch_larger_than_the_split_is_the_split() -> None:
    assert spans(3, 128) == [(0, 3)]
