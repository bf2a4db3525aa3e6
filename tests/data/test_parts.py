"""Parts that are taken from the training rows: how many and which, the one as the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrun.data.header import DataSummary, read_summary
from fusionrun.data.load import Rows, load_data
from fusionrun.errors import DataError
from fusionrun.schema.data import Npz
from fusionrun.schema.image_data import Idx
from tests.data.written import write_mnist


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_mnist(tmp_path / "mnist", train=60, test=20)
    labels = np.repeat([0, 1, 2], [40, 25, 10])
    np.savez(tmp_path / "train.npz", v=np.arange(75.0), label=labels)
    np.savez(tmp_path / "test.npz", v=np.arange(9.0), label=np.arange(9) % 3)
    return tmp_path


def mnist(**more: Any) -> Idx:
    return Idx.model_validate({"source": "idx", "path": "mnist", **more})


def files(val: float, **more: Any) -> Npz:
    split = {"train": "train.npz", "val": val, "test": "test.npz", **more.pop("split", {})}
    return Npz.model_validate({"source": "npz", "split": split, **more})


def both(data: Any, folder: Path) -> tuple[DataSummary, Mapping[str, Rows]]:
    summary = read_summary(data, folder)
    return summary, load_data(data, summary)


@pytest.mark.parametrize(
    "data",
    [
        mnist(),
        mnist(split={"val": 0.0}),
        mnist(split={"val": 0.25, "seed": 3}, fusion_holdout=0.2),
        mnist(split={"stratify": False}, fusion_holdout=0.3),
        files(0.2),
        files(0.2, split={"stratify": False}),
        files(0.0, fusion_holdout=0.1),
        Npz(source="npz", path="train.npz", fusion_holdout=0.25),
        Npz.model_validate({"source": "npz", "path": "train.npz", "split": {"folds": 3, "fold": 1},
                            "fusion_holdout": 0.25}),
    ],
    ids=str,
)  # fmt: skip
def test_the_plan_foretells_what_is_loaded(folder: Path, data: Any) -> None:
    summary, rows = both(data, folder)
    assert {part: len(held.labels) for part, held in rows.items()} == dict(summary.sizes)
    for part, counts in summary.class_counts.items():
        if part != "all":
            held = np.bincount(rows[part].labels, minlength=len(counts))
            assert held.tolist() == list(counts)


def test_no_row_is_in_two_parts_and_none_is_lost(folder: Path) -> None:
    _, rows = both(mnist(fusion_holdout=0.2), folder)
    taken = np.concatenate([rows[part].ids for part in ("train", "val", "fusion_holdout")])
    assert sorted(taken.tolist()) == list(range(60))


def test_validation_keeps_each_classs_share(folder: Path) -> None:
    summary, _ = both(files(0.2), folder)
    assert summary.class_counts == {"train": (32, 20, 8), "val": (8, 5, 2), "test": (3, 3, 3)}


def test_the_holdout_is_taken_from_what_is_left_to_train(folder: Path) -> None:
    summary, _ = both(mnist(split={"val": 0.5}, fusion_holdout=0.5), folder)
    assert summary.sizes == {"train": 15, "val": 30, "test": 20, "fusion_holdout": 15}


def test_the_splits_seed_decides_which_rows(folder: Path) -> None:
    drawn = [both(mnist(split={"seed": seed}), folder)[1]["val"].ids for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_what_validates_stays_whatever_is_held_out(folder: Path) -> None:
    without, with_it = (both(mnist(fusion_holdout=share), folder)[1] for share in (0.0, 0.3))
    assert np.array_equal(without["val"].ids, with_it["val"].ids)


def test_a_part_that_would_be_empty_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no rows for val"):
        read_summary(mnist(split={"val": 0.001}), folder)


def test_a_holdout_that_would_be_empty_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no rows for fusion_holdout"):
        read_summary(mnist(fusion_holdout=0.001), folder)
