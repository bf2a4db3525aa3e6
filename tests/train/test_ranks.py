"""Several ranks, as real gloo processes: the same numbers as one, and a loss that is told."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fusionrun.errors import TrainingError, UserError
from fusionrun.store.layout import RunLayout
from fusionrun.train.rank_errors import forget_errors, record_error
from fusionrun.train.rank_place import RankPlace, rank_place
from fusionrun.train.ranks import (
    SINGLE,
    RankError,
    Ranks,
    join_ranks,
)
from tests.train import rank_worker
from tests.train.rank_worker import CPU, together

MEETING = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "20007"}


# --- one rank, and the shares -----------------------------------------------------------------


def test_a_single_rank_answers_without_a_group() -> None:
    numbers = torch.ones(2)
    SINGLE.sum_(numbers)
    assert (SINGLE.any(True), SINGLE.any(False), SINGLE.from_first("x")) == (True, False, "x")
    assert (SINGLE.from_each(1), SINGLE.share(3, 9), numbers.tolist()) == ([1], (3, 9), [1, 1])
    assert SINGLE.is_first
    SINGLE.close()


@given(st.integers(0, 10**6), st.integers(0, 5000), st.integers(1, 300))
def test_shares_lose_no_row_and_double_none(start: int, rows: int, size: int) -> None:
    shares = [Ranks(RankPlace(rank, size)).share(start, start + rows) for rank in range(size)]
    ends = [start, *(stop for _, stop in shares)]
    assert [first for first, _ in shares] == ends[:-1]
    assert ends[-1] == start + rows
    lengths = [stop - first for first, stop in shares]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


# --- who this process is ----------------------------------------------------------------------


def test_torchruns_variables_come_before_slurms() -> None:
    torchrun = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    slurm = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    assert rank_place({**torchrun, **slurm, **MEETING}) == (3, 4, 1, "10.0.0.1", "20007")


def test_a_step_of_srun_is_several_ranks() -> None:
    slurm = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    assert rank_place({**slurm, **MEETING}) == (1, 2, 0, "10.0.0.1", "20007")


def test_a_batch_script_itself_is_one_process() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert rank_place(batch) == RankPlace()


def test_a_step_of_one_task_is_one_process_whatever_the_job_has() -> None:
    step = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"}
    assert rank_place({**step, "SLURM_NTASKS": "4", **MEETING}) == RankPlace()


def test_several_tasks_without_a_meeting_point_are_refused() -> None:
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    with pytest.raises(UserError, match=r"rank 1 of 2: MASTER_ADDR is not set.*Fix: "):
        rank_place(step)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"RANK": "-1"}, r"variable RANK: got '-1', expected a number"),
        ({"LOCAL_RANK": ""}, r"variable LOCAL_RANK: got '', expected a number"),
        ({"RANK": "2"}, r"RANK=2 and WORLD_SIZE=2: expected a rank below"),
    ],
)
def test_an_impossible_rank_is_refused(changed: dict[str, str], message: str) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **MEETING}
    with pytest.raises(UserError, match=message):
        rank_place({**place, **changed})


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_an_impossible_timeout_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", **MEETING}
    for name, value in {**place, "FUSIONRUN_RANK_TIMEOUT_S": text}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"RANK_TIMEOUT_S: got '{text}', expected seconds above 0"):
        join_ranks(CPU)


# --- two ranks --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    codes, left = together(rank_worker.collectives, tmp_path_factory.mktemp("ranks"))
    assert codes == [0, 0], left
    return left


def test_each_rank_knows_itself(collected: list[Any]) -> None:
    assert [left["identity"] for left in collected] == [[0, 2, 0, True], [1, 2, 1, False]]


def test_any_is_true_on_all_where_it_is_true_on_one(collected: list[Any]) -> None:
    assert [left["any"] for left in collected] == [[False, True, True, True]] * 2


def test_all_get_the_first_ranks_value(collected: list[Any]) -> None:
    value = {"rank": 0, "text": "ééé", "none": None}
    assert [left["from_first"] for left in collected] == [value] * 2
    assert [left["from_first_inf"] for left in collected] == [float("inf")] * 2


def test_all_get_each_ranks_value(collected: list[Any]) -> None:
    assert [left["from_each"] for left in collected] == [[["", 0], ["x", 1]]] * 2


def test_a_sum_is_in_place_and_the_same_on_all(collected: list[Any]) -> None:
    assert [left["sum"].tolist() for left in collected] == [[3.0, 30.0]] * 2


@pytest.mark.parametrize(
    ("part", "whole", "batch_size", "samples"),
    [
        pytest.param(
            rank_worker.epoch_128,
            rank_worker.epoch_alone,
            128,
            [[64] * 9 + [24]] * 2,
            id="last batch short",
        ),
        pytest.param(
            rank_worker.epoch_109,
            rank_worker.epoch_alone,
            109,
            [[55] * 11 + [1], [54] * 11 + [0]],
            id="last batch of one row",
        ),
        pytest.param(
            rank_worker.augmented_109,
            rank_worker.augmented_alone,
            109,
            [[55] * 11 + [1], [54] * 11 + [0]],
            id="augmented",
        ),
        pytest.param(
            rank_worker.joined_109,
            rank_worker.joined_alone,
            109,
            [[55] * 11 + [1], [54] * 11 + [0]],
            id="paths joined and weights learned",
        ),
    ],
)
def test_two_ranks_are_one_rank_with_the_whole_batch(
    part: rank_worker.Part,
    whole: Callable[[int], Any],
    batch_size: int,
    samples: list[list[int]],
    tmp_path: Path,
) -> None:
    codes, left = together(part, tmp_path)
    assert codes == [0, 0], left
    alone = whole(batch_size)
    assert [own["samples"] for own in left] == samples
    names = ("losses", "norms", "weights", "loss_weights")
    for own in left:
        for name in names:
            torch.testing.assert_close(own[name], alone[name], rtol=1e-6, atol=1e-9)
    for name in names:
        assert torch.equal(left[0][name], left[1][name])


@pytest.mark.parametrize(
    ("part", "combination"),
    [(rank_worker.convolutions, "sum"), (rank_worker.joined_convolutions, "pcgrad")],
)
def test_two_ranks_with_batch_norm_are_one_rank_with_the_whole_batch(
    part: rank_worker.Part, combination: str, tmp_path: Path
) -> None:
    codes, left = together(part, tmp_path)
    assert codes == [0, 0], left
    assert [own["samples"] for own in left] == [[4, 5, 1], [3, 4, 0]]
    alone = rank_worker.convolutions_of(SINGLE, tmp_path, combination)
    for own in left:
        torch.testing.assert_close(own["losses"], alone["losses"], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(own["state"], alone["state"], rtol=1e-6, atol=1e-9)
    first, second = (own["state"] for own in left)
    assert any(name.endswith("running_var") for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_state_within_a_window_is_refused(tmp_path: Path) -> None:
    _, left = together(rank_worker.open_window, tmp_path)
    assert re.search(r"within a window, 1 of 2 batches in, on one of 2 ranks", left[0]["error"])


def test_one_rank_may_ask_for_the_state_within_a_window() -> None:
    updater, parts = rank_worker.small_updater(SINGLE)
    parts["experts.a"](torch.ones(1, 2)).sum().backward()
    updater.after_backward()
    assert "grad" in updater.state_dict()["experts.a"]


# --- a rank that is lost ----------------------------------------------------------------------


def test_a_killed_rank_ends_the_other_with_an_error_that_is_kept(tmp_path: Path) -> None:
    codes, left = together(rank_worker.one_is_killed, tmp_path)
    assert codes == [0, -signal.SIGKILL]
    where = rf"^rank 0 of 2 on {re.escape(socket.gethostname())} \(rendezvous 127.0.0.1:\d+\): "
    assert re.search(where + r"summing 1000 numbers failed: ", left[0]["error"])
    assert re.search(r"Without an answer: rank 1\n  Fix: ", left[0]["error"])
    record = json.loads(RunLayout(tmp_path).rank_error(0).read_text())
    assert (record["rank"], record["step"], record["kind"]) == (0, 12, "RankError")
    assert left[0]["error"].startswith(record["error"] + "\n  Fix: ")
    assert (record["ranks"], record["absent"]) == (2, [1])


def test_a_rank_that_hangs_is_named_by_the_other_after_the_timeout(tmp_path: Path) -> None:
    codes, left = together(rank_worker.one_hangs, tmp_path, FUSIONRUN_RANK_TIMEOUT_S="1.5")
    assert codes == [0, 0]
    assert re.search(r"summing 1000 numbers failed: .*[Tt]ime", left[0]["error"])
    assert re.search(r"(?s)Without an answer: rank 1\n.*raise FUSIONRUN_RANK_T", left[0]["error"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_first_rank_that_is_gone_or_stands_still_is_named_by_the_other(
    tmp_path: Path, number: signal.Signals
) -> None:
    part = {signal.SIGKILL: rank_worker.first_is_killed, signal.SIGSTOP: rank_worker.first_stands}
    together(part[number], tmp_path, FUSIONRUN_RANK_TIMEOUT_S="1.5")
    record = json.loads(RunLayout(tmp_path).rank_error(1).read_text())
    assert (record["kind"], record["absent"]) == ("RankError", [0])


def test_a_first_rank_that_waits_in_vain_says_so(tmp_path: Path) -> None:
    _, left = together(rank_worker.collectives, tmp_path, only=0, FUSIONRUN_RANK_TIMEOUT_S="1")
    assert left[0]["kind"] == "RankError"
    expected = (
        r"(?s)^rank 0 of 2 .*joining the other ranks failed, with 1 s .*the other ranks did not"
    )
    assert re.search(expected, left[0]["error"])


def test_a_rank_that_does_not_find_the_first_says_so(tmp_path: Path) -> None:
    _, left = together(rank_worker.collectives, tmp_path, only=1, FUSIONRUN_RANK_TIMEOUT_S="1")
    expected = (
        r"(?s)^rank 1 of 2 .*127\.0\.0\.1.*joining the other ranks failed.*rank 0 did not answer"
    )
    assert re.search(expected, left[0]["error"])


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        _, left = together(rank_worker.collectives, tmp_path, only=0, MASTER_PORT=port)
    assert re.search(
        rf"(?s)127\.0\.0\.1:{port}.*the port is taken: start the job", left[0]["error"]
    )


# --- what a rank leaves behind ----------------------------------------------------------------


def raised(message: str) -> TrainingError:
    try:
        raise TrainingError(message)
    except TrainingError as error:
        return error


def test_the_first_error_of_a_rank_is_kept(tmp_path: Path) -> None:
    layout, second = RunLayout(tmp_path), RankPlace(1, 2)
    record_error(layout, second, 7, raised("the cause"))
    record_error(layout, second, 8, raised("what came of it"))
    record = json.loads(layout.rank_error(1).read_text())
    assert (record["step"], record["error"], record["host"]) == (
        7,
        "the cause",
        os.uname().nodename,
    )
    assert "raise TrainingError(message)\n" in record["traceback"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record["time"])


def test_an_error_that_cannot_be_recorded_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where a directory should be")
    record_error(RunLayout(tmp_path), SINGLE, None, RankError("x"))


def test_an_attempt_forgets_the_errors_before_it(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    for rank in range(12):
        record_error(layout, RankPlace(rank, 12), 1, raised("before"))
    layout.log.write_text("stays")
    forget_errors(layout, RankPlace(0, 2))
    assert sorted(p.name for p in layout.logs.iterdir()) == ["job.log", layout.rank_error(1).name]
    forget_errors(layout, RankPlace(1, 2))
    assert [p.name for p in layout.logs.iterdir()] == ["job.log"]
