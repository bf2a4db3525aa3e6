"""What a run trains on where it is not the whole training part: as many as told, and which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrun.data.header import DataSummary, read_summary
from fusionrun.data.load import Rows, load_data
from fusionrun.data.own_rows import OwnRows, narrowed
from fusionrun.errors import DataError
from fusionrun.schema.data import Npz

HELD_OUT = OwnRows("fusion_holdout")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = np.random.default_rng(0).permutation(np.repeat(range(4), [60, 50, 31, 20]))
    np.savez(tmp_path / "rows.npz", v=np.arange(161.0), label=labels)
    return tmp_path


def table(**more: Any) -> Npz:
    return Npz.model_validate({"source": "npz", "path": "rows.npz", **more})


def loaded(data: Npz, folder: Path, own: OwnRows | None) -> tuple[DataSummary, Rows]:
    summary = narrowed(data, read_summary(data, folder), own)
    return summary, load_data(data, summary)["train"]


@pytest.mark.parametrize("own", [HELD_OUT, OwnRows("train", 0, 2), OwnRows("train", 1, 2)])
@pytest.mark.parametrize("kind", ["iid", "classes"])
@pytest.mark.parametrize("split", [{}, {"folds": 3, "fold": 1}])
def test_what_is_told_is_what_is_loaded(
    folder: Path, kind: str, own: OwnRows, split: dict[str, Any]
) -> None:
    data = table(expert_shares=kind, fusion_holdout=0.2, split=split)
    summary, rows = loaded(data, folder, own)
    assert summary.sizes["train"] == len(rows.labels)
    counts = np.bincount(rows.labels, minlength=4)
    assert summary.class_counts["train"] == tuple(counts.tolist())
    assert DataSummary.from_json(summary.to_json()) == summary


def test_without_stratify_a_share_is_drawn_all_the_same(folder: Path) -> None:
    data = table(expert_shares="iid", split={"stratify": False})
    summary, rows = loaded(data, folder, OwnRows("train", 1, 3))
    assert summary.sizes["train"] == len(rows.labels)


@pytest.mark.parametrize("kind", ["iid", "classes"])
def test_all_of_them_together_are_the_training_rows(folder: Path, kind: str) -> None:
    data = table(expert_shares=kind, fusion_holdout=0.25)
    parts = [loaded(data, folder, OwnRows("train", n, 2))[1].ids for n in range(2)]
    parts.append(loaded(data, folder, HELD_OUT)[1].ids)
    whole = loaded(table(), folder, None)[1].ids
    assert np.array_equal(np.sort(np.concatenate(parts)), whole)


def test_validation_and_test_are_everybodys(folder: Path) -> None:
    data = table(expert_shares="iid", fusion_holdout=0.25)
    summary = read_summary(data, folder)
    for own in (HELD_OUT, OwnRows("train", 1, 2)):
        rows = load_data(data, narrowed(data, summary, own))
        assert np.array_equal(rows["test"].ids, load_data(data, summary)["test"].ids)
        assert list(rows) == ["train", "val", "test"]


def test_specialists_of_an_unstratified_split_cannot_be_counted(folder: Path) -> None:
    data = table(expert_shares="classes", split={"stratify": False})
    with pytest.raises(ValueError, match="only the drawing tells"):
        narrowed(data, read_summary(data, folder), OwnRows("train", 0, 2))


def test_other_rows_than_were_planned_are_refused(folder: Path) -> None:
    data = table(expert_shares="iid")
    summary = narrowed(data, read_summary(data, folder), OwnRows("train", 0, 2))
    np.savez(folder / "rows.npz", v=np.arange(100.0), label=np.arange(100) % 4)
    with pytest.raises(DataError, match="changed since the plan was made"):
        load_data(data, summary)
