"""Slurm's reasons in words."""

from __future__ import annotations

import pytest

from fusionrun.watch.reasons import reason_of


@pytest.mark.parametrize("word", ["PartitionConfig", "PartitionTimeLimit", "BadConstraints"])
def test_what_can_never_start_says_so(word: str) -> None:
    assert "never start" in reason_of(word).advice


def test_what_slurm_adds_to_a_reason_is_kept() -> None:
    assert reason_of("ReqNodeNotAvail, UnavailableNodes:n[1-2]").meaning.endswith(
        "(UnavailableNodes:n[1-2])"
    )


@pytest.mark.parametrize(
    ("word", "never"),
    [
        ("QOSMaxGRESPerJob", True),
        ("AssocMaxNodePerJobLimit", True),
        ("QOSMaxWallDurationPerJobLimit", True),
        ("QOSMaxJobsPerUserLimit", False),
        ("AssocGrpGRESRunMinutes", False),
    ],
)
def test_a_limit_of_one_job_is_told_from_a_limit_of_many(word: str, never: bool) -> None:
    reason = reason_of(word)
    assert word in reason.meaning
    assert ("never start" in reason.advice) is never


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    assert "NewInSlurm42" in reason_of("NewInSlurm42").meaning


def test_no_reason_yet_is_no_error() -> None:
    assert "not looked at it yet" in reason_of("").meaning
