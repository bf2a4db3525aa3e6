"""Each expert's share of the training rows: how many the plan foretells, and which they are."""

from __future__ import annotations

import numpy as np
import pytest

from fusionrun.data.shares import Kind, deal_classes, plan_shares, share_rows

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(6), [50, 31, 30, 20, 7, 3]))
EXPERTS = ("a", "b", "c")
DEALT = ((0, 1, 3, 6), (4, 5, 9), (2, 7, 8))


def shares(kind: Kind, seed: int = 0) -> dict[str, np.ndarray]:
    return share_rows(kind, EXPERTS, LABELS, num_classes=6, seed=seed)


@pytest.mark.parametrize("kind", ["shared", "iid", "classes"])
@pytest.mark.parametrize("seed", [0, 1, 5])
def test_the_plan_foretells_rows_and_classes(kind: Kind, seed: int) -> None:
    planned = plan_shares(
        kind,
        EXPERTS,
        rows=len(LABELS),
        num_classes=6,
        class_counts=np.bincount(LABELS).tolist(),
        seed=seed,
    )
    for expert, rows in shares(kind, seed).items():
        assert planned[expert].rows == len(rows)
        assert planned[expert].classes == tuple(np.unique(LABELS[rows]).tolist())


@pytest.mark.parametrize("kind", ["iid", "classes"])
def test_each_row_is_one_experts(kind: Kind) -> None:
    together = np.concatenate(list(shares(kind).values()))
    assert sorted(together.tolist()) == list(range(len(LABELS)))


def test_shared_is_all_rows_for_everyone() -> None:
    assert all(np.array_equal(rows, np.arange(len(LABELS))) for rows in shares("shared").values())


def test_iid_shares_differ_by_at_most_a_row_of_any_class() -> None:
    counts = np.array([np.bincount(LABELS[rows], minlength=6) for rows in shares("iid").values()])
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_specialists_see_every_row_of_their_classes() -> None:
    for rows in shares("classes").values():
        own = np.unique(LABELS[rows])
        assert len(own) == 2
        assert np.isin(LABELS, own).sum() == len(rows)


@pytest.mark.parametrize("kind", ["iid", "classes"])
def test_the_seed_decides(kind: Kind) -> None:
    first, again, other = (shares(kind, seed)["a"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_classes_are_dealt_as_they_always_were() -> None:
    assert deal_classes(10, 3, seed=0) == DEALT


def test_without_class_counts_only_iid_can_tell_rows() -> None:
    unknown = {"rows": 10, "num_classes": 6, "class_counts": None, "seed": 0}
    iid = plan_shares("iid", EXPERTS, **unknown)
    classes = plan_shares("classes", EXPERTS, **unknown)
    assert [share.rows for share in iid.values()] == [4, 3, 3]
    assert [share.rows for share in classes.values()] == [None] * 3
