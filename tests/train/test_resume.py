"""A run that was killed, stopped or interrupted goes on, and ends with the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fusionrun.errors import BusyError, InexactError, NotCompiledError, TrainingError, UserError
from fusionrun.job import main
from fusionrun.store.checkpoints import list_checkpoints
from fusionrun.store.components import verify
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status
from fusionrun.train import attempt, circumstances, job, saver
from fusionrun.train.alone import alone
from fusionrun.train.ranks import SINGLE
from tests import small_runs
from tests.small_runs import SMALL
from tests.train.scripted_job import UNDISTURBED, Script, obeyed, started

pytestmark = pytest.mark.usefixtures("numerics")

# With windows of three batches, steps 6 and 7 are in mid-window.
RECIPE = SMALL + "training: {epochs: 5, batch_size: 32, device: cpu}\n"
STEPS = 25
KEPT = "step-000000011.damaged"


prepared = partial(small_runs.prepared, recipe=RECIPE)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(layout: RunLayout, name: str) -> list[dict[str, Any]]:
    return [line for line in lines_of(layout.events) if line["event"] == name]


def outcome(layout: RunLayout) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(layout.outcome.read_text())
    return content


def result(layout: RunLayout) -> dict[str, Any]:
    """Everything that an undisturbed run decides: component files, metrics, results."""
    verify(layout.components("best"))
    verify(layout.components("last"))
    clock = {"seconds", "samples_per_s"}
    files = {
        str(path.relative_to(layout.root)): path.read_bytes()
        for path in layout.all_components.rglob("*.*")
        if path.is_file()
    }
    metrics = [
        {k: v for k, v in line.items() if k not in clock} for line in lines_of(layout.metrics)
    ]
    return {**files, "metrics": metrics, "results": layout.results.read_bytes()}


def run(layout: RunLayout, script: Script = UNDISTURBED) -> str:
    with obeyed(script, layout):
        return job.run(layout)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    layout = prepared(tmp_path_factory.mktemp("undisturbed"))
    assert job.run(layout) == "completed"
    assert read_status(layout).step == STEPS
    return result(layout)


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return prepared(tmp_path)


# --- killed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("saved", [7, 9], ids=lambda step: f"saved at {step}")
def test_a_run_killed_in_mid_epoch_goes_on_to_the_same_bits(
    saved: int, layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    assert started(layout, Script(saves=(3, saved), kill=saved + 2)) == [-signal.SIGKILL]
    assert not layout.outcome.exists()
    assert read_status(layout).state == "running"
    assert started(layout) == [0]
    assert [line["resumed_from"] for line in events(layout, "started")] == [None, saved]
    assert result(layout) == undisturbed


@pytest.mark.parametrize(
    "asked",
    [
        (
            "knowledge_transfer={gradient_combination: pcgrad, loss_weighting: uncertainty, "
            "expert_gradient_accumulation: 3, knowledge_distillation_weight: 0.1}",
        ),
        (
            "knowledge_transfer.gradient_combination=mmpareto",
            "knowledge_transfer.loss_weighting=dwa",
            "learning_rates={rules: [{mup: {base_width: 4}}]}",
        ),
    ],
    ids=["pcgrad and uncertainty", "mmpareto, dwa and mup"],
)
def test_what_weighs_paths_and_losses_goes_on_to_the_same_bits(
    asked: tuple[str, ...], tmp_path: Path
) -> None:
    whole = prepared(tmp_path / "whole", *asked)
    killed = prepared(tmp_path / "killed", *asked)
    assert run(whole) == "completed"
    # In the fourth epoch: dwa weighs by the first three, and the window is open.
    assert started(killed, Script(saves=(17,), kill=18)) == [-signal.SIGKILL]
    assert started(killed) == [0]
    assert [line["resumed_from"] for line in events(killed, "started")] == [None, 17]
    assert result(killed) == result(whole)


def test_a_run_killed_during_a_save_goes_on_from_the_one_before(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    script = Script(saves=(4, 8), kill_in_save=12)
    assert started(layout, script) == [-signal.SIGKILL]
    (unfinished,) = layout.checkpoints.glob(".step-000000012.tmp-*")
    assert any(unfinished.iterdir())
    assert started(layout, Script(saves=(10,), kill=11)) == [-signal.SIGKILL]
    assert not unfinished.exists()
    assert started(layout) == [0]
    assert [line["resumed_from"] for line in events(layout, "started")] == [None, 8, 10]
    assert result(layout) == undisturbed


def test_a_run_killed_before_its_first_checkpoint_begins_again_and_has_every_epoch_once(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    assert started(layout, Script(kill=17)) == [-signal.SIGKILL]
    assert len(lines_of(layout.metrics)) == 3
    assert started(layout) == [0]
    assert result(layout) == undisturbed


def test_a_run_killed_from_outside_at_any_moment_goes_on(tmp_path: Path) -> None:
    layout = prepared(tmp_path, "training.epochs=400", "training.checkpoints.every_s=0")
    command = [sys.executable, "-m", "fusionrun.job", str(layout.root)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(list_checkpoints(layout.checkpoints)) == 2)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    reached = list_checkpoints(layout.checkpoints)[0].step
    assert run(layout, Script(stop=reached + 3)) == "stopped"
    assert events(layout, "started")[1]["resumed_from"] == reached > 0
    assert [line["epoch"] for line in lines_of(layout.metrics)] == list(range((reached + 3) // 5))


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.02)


# --- asked to stop --------------------------------------------------------------------------


def test_a_stop_request_in_mid_epoch_ends_with_zero_and_the_run_goes_on_to_the_same_bits(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    assert started(layout, Script(stop=13)) == [0]
    assert outcome(layout)["outcome"] == "stopped"
    assert outcome(layout)["reason"] == "time_limit"
    assert (outcome(layout)["attempt"], outcome(layout)["step"]) == (1, 13)
    assert not layout.stop_request.exists()
    status = read_status(layout)
    assert (status.state, status.epoch, status.step) == ("stopped", 2, 13)
    assert events(layout, "stopped") == [
        {**events(layout, "stopped")[0], "reason": "time_limit", "step": 13}
    ]
    verify(layout.components("best"))
    assert started(layout) == [0]
    assert result(layout) == undisturbed
    assert (outcome(layout)["outcome"], outcome(layout)["attempt"]) == ("completed", 2)


def test_a_run_stopped_before_every_step_goes_on_to_the_same_bits(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    for step in range(STEPS):
        assert run(layout, Script(stop=step)) == "stopped"
    assert run(layout) == "completed"
    assert [line["resumed_from"] for line in events(layout, "started")] == [None, *range(STEPS)]
    assert result(layout) == undisturbed


def test_a_run_that_stops_where_it_went_on_from_saves_nothing_twice(layout: RunLayout) -> None:
    for _ in range(2):
        assert run(layout, Script(stop=4)) == "stopped"
    assert [line["step"] for line in events(layout, "checkpoint")] == [4]


@pytest.mark.parametrize(
    ("content", "reason"), [('{"reason": "cancel"}', "cancel"), ("", "cancel")]
)
def test_a_request_that_is_there_before_the_run_stops_it_at_its_first_step(
    content: str, reason: str, layout: RunLayout
) -> None:
    layout.stop_request.write_text(content)
    assert job.run(layout) == "stopped"
    assert (outcome(layout)["reason"], outcome(layout)["step"]) == (reason, 0)


def test_for_a_queued_job_term_is_a_request_however_often_it_comes(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    with obeyed(Script(signals=(8, signal.SIGTERM)), layout):
        assert main([str(layout.root)]) == 0
    assert (outcome(layout)["outcome"], outcome(layout)["reason"]) == ("stopped", "signal")
    assert main([str(layout.root)]) == 0
    assert result(layout) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_interrupted_in_the_foreground_leaves_a_checkpoint(
    number: int, layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run(layout, Script(signals=(12, number)))
    assert read_status(layout).state == "interrupted"
    assert (outcome(layout)["outcome"], outcome(layout)["reason"]) == ("stopped", "interrupt")
    assert run(layout) == "completed"
    assert result(layout) == undisturbed


class CutOff:
    """A compiled step whose compiler is ended by the signal that asks the run to stop."""

    def __init__(self, number: int, *_: object) -> None:
        self.number = number

    def __call__(self, *_: object) -> None:
        os.kill(os.getpid(), self.number)
        raise NotCompiledError("C++ compile error")


@pytest.mark.parametrize(
    ("number", "code", "reason"), [(signal.SIGTERM, 0, "signal"), (signal.SIGINT, 130, "interrupt")]
)
def test_a_signal_that_ends_the_compiler_too_stops_the_run_and_is_no_failure(
    number: int, code: int, reason: str, layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    with mock.patch.object(attempt, "take_step", partial(CutOff, number)):
        assert main([str(layout.root)]) == code
    assert (outcome(layout)["outcome"], outcome(layout)["reason"]) == ("stopped", reason)
    assert events(layout, "failed") == []
    assert run(layout) == "completed"
    assert result(layout) == undisturbed


def test_for_a_queued_job_int_is_a_person(layout: RunLayout) -> None:
    with obeyed(Script(signals=(3, signal.SIGINT)), layout):
        assert main([str(layout.root)]) == 130
    assert [c.step for c in list_checkpoints(layout.checkpoints)] == [3]


# --- damaged, foreign and old checkpoints ---------------------------------------------------


def test_a_flipped_byte_in_the_newest_checkpoint_takes_the_one_before_and_says_so(
    layout: RunLayout, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run(layout, Script(saves=(6,), stop=11))
    newest, before = list_checkpoints(layout.checkpoints)
    damage(newest.path / "updater.safetensors")
    assert run(layout) == "completed"
    (skipped,) = events(layout, "checkpoint_skipped")
    assert skipped["checkpoint"] == newest.name
    assert "updater.safetensors: sha256" in skipped["why"]
    assert f"checkpoint {newest.name} is skipped: updater.safetensors" in capsys.readouterr().out
    assert events(layout, "started")[1]["resumed_from"] == before.step == 6
    assert result(layout) == undisturbed


def test_a_damaged_checkpoint_gives_its_name_to_the_next_of_its_step_and_stays(
    layout: RunLayout,
) -> None:
    run(layout, Script(saves=(6,), stop=11))
    damaged = list_checkpoints(layout.checkpoints)[0].path
    damage(damaged / "weights.safetensors")
    was = {path.name: path.read_bytes() for path in damaged.iterdir()}
    run(layout, Script(saves=(11, 12), stop=14))
    (set_aside,) = events(layout, "checkpoint_set_aside")
    assert (set_aside["checkpoint"], set_aside["kept_as"]) == (damaged.name, KEPT)
    kept = layout.checkpoints / KEPT
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == was
    assert [c.step for c in list_checkpoints(layout.checkpoints)] == [14, 12]


def test_a_damaged_checkpoint_stays_until_the_run_has_completed(layout: RunLayout) -> None:
    run(layout, Script(saves=(6,), stop=11))
    damage(list_checkpoints(layout.checkpoints)[0].path / "weights.safetensors")
    run(layout, Script(stop=8))
    assert [c.step for c in list_checkpoints(layout.checkpoints)] == [11, 8, 6]
    run(layout)
    assert not layout.checkpoints.exists()


def test_a_run_with_no_whole_checkpoint_begins_again(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    run(layout, Script(saves=(6,), stop=11))
    for checkpoint in list_checkpoints(layout.checkpoints):
        damage(checkpoint.path / "run.json")
    assert run(layout) == "completed"
    assert len(events(layout, "checkpoint_skipped")) == 2
    assert events(layout, "started")[1]["resumed_from"] is None
    assert result(layout) == undisturbed


def test_a_checkpoint_of_another_plan_is_skipped(layout: RunLayout, tmp_path: Path) -> None:
    run(layout, Script(stop=6))
    other = prepared(tmp_path, "training.batch_size=16")
    layout.checkpoints.rename(other.checkpoints)
    run(other, Script(stop=1))
    assert events(other, "checkpoint_skipped")[0]["why"].startswith("it is of another plan")


def test_what_stands_where_checkpoints_should_be_is_refused(layout: RunLayout) -> None:
    layout.checkpoints.write_text("no directory")
    with pytest.raises(TrainingError, match=r"checkpoints: not a directory.*\n  Fix: put the"):
        run(layout)
    assert layout.checkpoints.read_text() == "no directory"


def test_data_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    import numpy as np

    from fusionrun.datasets import path_of

    with np.load(path_of("handwritten_digits")) as archive:
        arrays = {name: archive[name] for name in ("fourier", "zernike", "label")}
    np.savez(tmp_path / "rows.npz", **arrays)
    recipe = RECIPE.replace("package:handwritten_digits", "rows.npz")
    layout = prepared(tmp_path, recipe=recipe)
    run(layout, Script(stop=6))
    np.savez(tmp_path / "rows.npz", **{**arrays, "fourier": arrays["fourier"][::-1]})
    with pytest.raises(UserError, match=r"the file's content has changed[\s\S]*--allow-inexact"):
        run(layout)
    assert main([str(layout.root)]) == 2
    assert main([str(layout.root), "--fresh"]) == 0


def test_other_circumstances_are_listed_and_refused_unless_allowed(
    layout: RunLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    run(layout, Script(stop=6))
    capsys.readouterr()
    before = circumstances.circumstances

    def as_elsewhere(*arguments: Any) -> dict[str, str]:
        return {**before(*arguments), "torch": "2.0.0", "threads": "64"}

    kept = [path.read_bytes() for path in (layout.environment, layout.metrics)]
    with mock.patch.object(attempt, "circumstances", as_elsewhere):
        with pytest.raises(
            InexactError, match=r"torch: was .*, is 2\.0\.0\n  threads: was .*, is 64"
        ):
            run(layout)
        assert "goes on at" not in capsys.readouterr().out
        assert [path.read_bytes() for path in (layout.environment, layout.metrics)] == kept
        stands = read_status(layout)
        assert (stands.state, stands.step, stands.attempts) == ("stopped", 6, 1)
        layout.inexact_allowed.write_text("{}")
        assert run(layout) == "completed"
    (inexact,) = events(layout, "inexact")
    assert [line.split(":")[0] for line in inexact["differences"]] == ["torch", "threads"]


def test_only_the_last_two_checkpoints_are_kept_and_none_once_the_run_is_done(
    layout: RunLayout,
) -> None:
    run(layout, Script(saves=(2, 4, 6), stop=8))
    assert [c.step for c in list_checkpoints(layout.checkpoints)] == [8, 6]
    run(layout)
    assert not layout.checkpoints.exists()


def test_a_disk_that_takes_no_checkpoint_fails_the_run_with_a_message(layout: RunLayout) -> None:
    with pytest.raises(TrainingError, match=r"no checkpoint could be written, 2 times in a row"):
        run(layout, Script(saves=(6, 7, 8), block=5))
    assert [line["failures"] for line in events(layout, "checkpoint_failed")] == [1, 2]
    assert outcome(layout)["outcome"] == "failed"


def test_a_checkpoint_that_fails_once_is_tried_again(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:

    def mend(seconds: float) -> None:
        assert events(layout, "checkpoint_failed")
        layout.checkpoints.unlink()

    clock = mock.Mock(wraps=time, sleep=mend)
    with mock.patch.object(saver, "time", clock):
        assert run(layout, Script(stop=6, block=5)) == "stopped"
    assert [c.step for c in list_checkpoints(layout.checkpoints)] == [6]
    assert run(layout) == "completed"
    assert result(layout) == undisturbed


# --- gradients that are not finite ----------------------------------------------------------


def test_a_gradient_that_is_not_finite_halts_the_run_and_names_step_and_component(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    words = r"step 10: not finite: gradient of experts\.fourier; the weights are those before it"
    with pytest.raises(TrainingError, match=words):
        run(layout, Script(saves=(6,), poison=(8,)))
    assert read_status(layout).step == 9  # what came after it moved nothing
    assert [c.step for c in list_checkpoints(layout.checkpoints)] == [6]
    assert run(layout) == "completed"
    assert result(layout) == undisturbed


def test_weights_that_leave_all_bounds_halt_the_run(tmp_path: Path) -> None:
    layout = prepared(tmp_path, "learning_rates.base_lr=1e30")
    with pytest.raises(TrainingError, match=r"step [2-5]: not finite: loss total.*gradient of"):
        job.run(layout)


def test_as_many_steps_as_the_recipe_allows_are_left_out_also_across_a_resume(
    tmp_path: Path,
) -> None:
    layout = prepared(tmp_path, "training.max_skipped_steps=2")
    assert run(layout, Script(poison=(1, 12), stop=13)) == "stopped"
    assert run(layout) == "completed"
    skipped = events(layout, "step_skipped")
    assert [(line["step"], line["gradients"]) for line in skipped] == [
        (3, ["experts.fourier"]),
        (13, ["experts.fourier"]),
    ]
    assert [line["skipped_steps"] for line in lines_of(layout.metrics)] == [1, 0, 1, 0, 0]

    (tmp_path / "again").mkdir()
    again = prepared(tmp_path / "again", "training.max_skipped_steps=2")
    assert run(again, Script(poison=(1, 12))) == "completed"
    assert result(again) == result(layout)

    third = prepared(tmp_path, "training.max_skipped_steps=2")
    with pytest.raises(
        TrainingError, match=r"step 18: .*the 2 steps that may be left out are used"
    ):
        run(third, Script(poison=(1, 12, 16)))


# --- records --------------------------------------------------------------------------------


def test_a_completed_run_is_left_as_it_is(
    layout: RunLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    run(layout)
    files = [path for path in layout.root.rglob("*") if path.is_file()]
    files.remove(layout.training_lock)  # (it says who held it last)
    before = {path: path.read_bytes() for path in files}
    assert main([str(layout.root)]) == 0
    assert "has completed before" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before


def test_fresh_begins_again_with_new_records(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    run(layout, Script(stop=13))
    assert main([str(layout.root), "--fresh"]) == 0
    assert [line["resumed_from"] for line in events(layout, "started")] == [None, None]
    assert result(layout) == undisturbed


def test_a_failed_attempt_says_why_and_the_next_goes_on(
    layout: RunLayout, undisturbed: dict[str, Any]
) -> None:
    with pytest.raises(RuntimeError, match="told to fail"):
        run(layout, Script(saves=(9,), fail=12))
    assert (outcome(layout)["outcome"], outcome(layout)["reason"]) == ("failed", "told to fail")
    assert json.loads(layout.rank_error(0).read_text())["step"] == 12
    assert main([str(layout.root)]) == 0
    assert not layout.rank_error(0).exists()
    assert result(layout) == undisturbed


def test_status_tells_pace_totals_and_the_job(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    run(layout, Script(saves=(6,), stop=13))
    status = read_status(layout)
    assert (status.epochs, status.steps, status.attempts, status.job_id) == (5, STEPS, 1, "4711")
    assert status.step_s is not None
    assert status.save_s is not None
    assert 0 < status.step_s < 1
    assert 0 < status.save_s < 10
    (begun,) = events(layout, "started")
    assert (begun["attempt"], begun["job_id"], begun["pid"]) == (1, "4711", os.getpid())


def test_a_second_attempt_says_where_it_goes_on(
    layout: RunLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    run(layout, Script(stop=13))
    capsys.readouterr()
    run(layout)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "attempt 2 goes on at step 13, in epoch 3"
    assert shown[1] == "engine eager (25 steps: compiling pays back from 10,000 on)"
    assert [line[:9] for line in shown[2:]] == ["epoch 3/5", "epoch 4/5", "epoch 5/5"]


# --- every kind of state --------------------------------------------------------------------

KINDS = {
    "SGD with momentum": ["training.optimizer={type: SGD, momentum: 0.9, nesterov: true}"],
    "SGD without": ["training.optimizer={type: SGD, momentum: 0.0, nesterov: false}"],
    "Adam": ["training.optimizer={type: Adam}"],
    "bf16": ["training.precision=bf16"],
    "no window": ["knowledge_transfer.expert_gradient_accumulation=1"],
    "no validation": ["data.split={train: 0.08, val: 0.0, test: 0.92}"],
    "untrained heads": [
        "knowledge_transfer.lambda_loss=0.0",
        "knowledge_transfer.knowledge_distillation_weight=0.0",
    ],
    "BatchNorm": [
        "experts.zernike={model: cnn, view: pixel_averages, shape: [15, 16], channels: [4]}"
    ],
    "early stopping": ["training.early_stopping={patience: 2, min_delta: 0.9}"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_state_goes_on_to_the_same_bits(kind: str, tmp_path: Path) -> None:
    whole, parts = (prepared(tmp_path, *KINDS[kind]) for _ in range(2))
    run(whole)
    for step in (4, 7, 12):
        assert run(parts, Script(stop=step)) == "stopped"
    assert run(parts) == "completed"
    left, right = result(whole), result(parts)
    for files in (left, right):
        for which in ("best", "last"):
            del files[f"components/{which}/manifest.json"]  # it names the run: `-2`
    assert left == right


# --- several ranks --------------------------------------------------------------------------


def test_two_ranks_stop_at_one_step_and_go_on_to_the_same_bits(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
    whole, parts = (prepared(folder) for folder in folders)
    assert started(whole, size=2) == [0, 0]
    # Step 13 is the last of a window: within one nothing can be saved, and it closes first.
    assert started(parts, Script(saves=(5,), stop=12), size=2) == [0, 0]
    assert (outcome(parts)["outcome"], outcome(parts)["step"]) == ("stopped", 13)
    assert started(parts, Script(saves=(15,), kill=17), size=2) == [-signal.SIGKILL] * 2
    assert started(parts, size=2) == [0, 0]
    assert [line["resumed_from"] for line in events(parts, "started")] == [None, 13, 15]
    assert [line["ranks"] for line in events(parts, "started")] == [2, 2, 2]
    assert result(parts) == result(whole)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        (["keep_last=1"], [8]),
        (["keep_last=3"], [8, 7, 6]),
        (["keep_last=1", "keep_every_steps=3"], [8, 6, 3]),
        (["keep_last=1", "keep_best=true"], [8, 6]),
    ],
)
def test_the_recipe_says_which_checkpoints_stay(
    settings: list[str], left: list[int], tmp_path: Path
) -> None:
    layout = prepared(tmp_path, *(f"training.checkpoints.{setting}" for setting in settings))
    run(layout, Script(saves=(2, 3, 4, 6, 7), stop=8))
    assert [c.step for c in list_checkpoints(layout.checkpoints)] == left


def test_checkpoints_come_at_the_steps_that_the_recipe_names(tmp_path: Path) -> None:
    layout = prepared(
        tmp_path, "training.checkpoints.every_steps=4", "training.checkpoints.keep_every_steps=8"
    )
    assert job.run(layout) == "completed"
    assert [line["step"] for line in events(layout, "checkpoint")] == [4, 8, 12, 16, 20, 24]
    assert [c.step for c in list_checkpoints(layout.checkpoints)] == [24, 16, 8]


def test_a_second_process_is_told_who_trains_the_run_and_touches_nothing(
    layout: RunLayout,
) -> None:
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    with (
        alone(layout, SINGLE),
        pytest.raises(BusyError, match=rf"process {os.getpid()} on .*since"),
    ):
        job.run(layout)
    assert before.items() <= {p: p.read_bytes() for p in before}.items()
    assert job.run(layout) == "completed"


def test_without_a_whole_checkpoint_it_says_that_it_begins_again(
    layout: RunLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    run(layout, Script(stop=6))
    damage(list_checkpoints(layout.checkpoints)[0].path / "weights.safetensors")
    run(layout, Script(stop=1))
    assert (
        "attempt 2 begins again at step 0: there is no whole checkpoint" in capsys.readouterr().out
    )
