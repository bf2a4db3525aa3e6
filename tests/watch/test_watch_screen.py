"""What people and programs see of runs, without any cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fusionrun.watch.listing import listing, listing_as_json
from fusionrun.watch.look import Look, look
from fusionrun.watch.screen import printable, run_lines, span, table
from tests.watch.made import PROGRAM, Made, fusionrun, job

LONG = "handwritten-digits-1a2b3c4d-s0"
KEYS = [
    "id", "directory", "state", "certain", "why", "advice", "executor", "job", "attempts",
    "epoch", "epochs", "step", "steps", "percent", "eta_s", "time_left_s", "step_s", "save_s",
    "checkpoint_step", "damaged", "started", "heartbeat", "heartbeat_age_s", "host", "pid", "log",
]  # fmt: skip


def shown(made: Made, width: int, what: str = "status") -> list[str]:
    seen, out = look([made.layout]), StringIO()
    console = Console(file=out, width=width)
    console.print(table(seen, width) if what == "status" else listing(seen, width))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.2, "0s"),
        (99, "99s"),
        (100, "2m"),
        (5990, "1h40m"),
        (3 * 3600 + 300, "3h05m"),
        (172_799, "2d00h"),
        (200_000, "2d07h"),
        (1e9, "11574d"),
        (float("inf"), "–"),
    ],
)
def test_a_span_is_short(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize("what", ["status", "runs"])
def test_a_run_takes_one_line_of_eighty_columns(tmp_path: Path, what: str) -> None:
    made = Made(tmp_path / LONG).status("completed", epoch=60, step=6000, attempts=12)
    made.layout.results.write_text('{"test": {"global": {"accuracy": 0.9}}}')
    lines = shown(made, 80, what)
    assert len(lines) == 2
    assert lines[1].startswith(f"{LONG}  completed")


def test_advice_has_the_directory_that_was_looked_in(tmp_path: Path) -> None:
    Made(tmp_path / "a run" / "a").status("failed")
    told = fusionrun("status", "a", "--runs", tmp_path / "a run").stdout
    assert f"`fusionrun resume a --runs '{tmp_path / 'a run'}'` starts it again" in told
    env = {**os.environ, "FUSIONRUN_RUNS": str(tmp_path / "a run")}
    assert "`fusionrun resume a` starts it again" in fusionrun("status", "a", env=env).stdout


def test_a_job_that_was_cancelled_in_the_queue_did_not_start(tmp_path: Path) -> None:
    made = Made(tmp_path / "run").journal("cancelled", job_id="12")
    start = "2026-11-26T11:45:14"
    (run,) = look([made.layout]).runs
    lines = dict(run_lines(Look(0.0, (replace(run, job=job("CANCELLED", nodes="", start=start)),))))
    assert lines["job"] == "12 CANCELLED"
    lines = dict(run_lines(Look(0.0, (replace(run, job=job("CANCELLED", start=start)),))))
    assert lines["job"] == "12 CANCELLED, on n1, started 2026-11-26 11:45:14"


def test_an_id_is_never_cut_but_folded(tmp_path: Path) -> None:
    made = Made(tmp_path / ("x" * 100)).status("running")
    assert "".join(re.findall("x+", "".join(shown(made, 80)))) == "x" * 100


def test_a_wide_screen_shows_the_steps(tmp_path: Path) -> None:
    made = Made(tmp_path / LONG).status("running")
    assert "1200/6000" in shown(made, 120)[1]
    assert "1200/6000" not in shown(made, 80)[1]


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        ("\x1b[31mred\x1b[0m", "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}[0m"),
        ("1 %\r50 %\r100 %\r", "100 %"),
        ("tabs\tstay, ünïcode too", "tabs\tstay, ünïcode too"),
    ],
)
def test_a_line_of_the_log_cannot_steer_the_terminal(line: str, clean: str) -> None:
    assert printable(line) == clean


def test_json_has_every_key_for_every_run(tmp_path: Path) -> None:
    Made(tmp_path / "a").status("running")
    Made(tmp_path / "b")
    done = fusionrun("status", "--json", "--runs", tmp_path)
    content = json.loads(done.stdout)
    assert list(content) == ["time", "scheduler", "runs_dir", "without_plan", "runs"]
    assert [list(run) for run in content["runs"]] == [KEYS, KEYS]
    assert (done.returncode, done.stderr) == (0, "")


def test_json_of_one_run_has_the_reasons_of_its_end(tmp_path: Path) -> None:
    made = Made(tmp_path / "a").status("failed").outcome("failed", "boom").rank_error(1, "boom")
    made.log("one\ntwo\n")
    content = json.loads(fusionrun("status", "a", "--json", "--runs", tmp_path).stdout)
    assert list(content) == ["time", "scheduler", "run"]
    assert list(content["run"]) == [*KEYS, "post_mortem", "log_tail"]
    assert content["run"]["log_tail"] == ["one", "two"]
    assert content["run"]["post_mortem"]["cause"] == "error"
    assert content["run"]["post_mortem"]["first_error"]["rank"] == 1


def test_why_a_run_has_failed_is_said_once(tmp_path: Path) -> None:
    why = "step 3: not finite: the loss global (nan); the weights are those before it"
    made = Made(tmp_path / "a").status("failed").outcome("failed", why)
    made.log(f"epoch 1\n{why}\nfusionrun: the training failed: {why}\n")
    done = fusionrun("status", "a", "--runs", tmp_path)
    assert " ".join(done.stdout.split()).count("not finite") == 1
    assert "epoch 1" in done.stdout


def test_a_failed_run_is_an_answer(tmp_path: Path) -> None:
    made = Made(tmp_path / "a").status("failed").rank_error(2, "[bold]no markup[/bold]")
    made.rank_error(0, "peer gone", age_s=5).log("the last words\n")
    done = fusionrun("status", "a", "--runs", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the first to fail: rank 2 on n3; 1 more failed after it" in done.stdout
    assert "RuntimeError: [bold]no markup[/bold]" in done.stdout
    assert "the last words" in done.stdout


def test_an_error_that_says_all_comes_without_a_traceback(tmp_path: Path) -> None:
    made = Made(tmp_path / "a").status("failed")
    made.rank_error(0, "step 7: not finite", kind="TrainingError", known=True, ranks=1)
    done = fusionrun("status", "a", "--runs", tmp_path)
    assert "failed: step 7: not finite\n" in done.stdout
    assert "Traceback" not in done.stdout


def test_what_is_piped_is_plain_and_whole(tmp_path: Path) -> None:
    name = "r" * 150
    Made(tmp_path / name).status("running")
    done = fusionrun("status", "--runs", tmp_path)
    assert name in done.stdout
    assert "\x1b" not in done.stdout
    one = fusionrun("status", name, "--runs", tmp_path).stdout
    assert all(line == line.rstrip() for line in one.splitlines())


def test_no_such_run_ends_with_3(tmp_path: Path) -> None:
    Made(tmp_path / "a")
    for command in ("status", "logs"):
        done = fusionrun(command, "zzz", "--runs", tmp_path)
        assert (done.returncode, "no such run" in done.stderr) == (3, True)


def test_no_runs_is_no_error(tmp_path: Path) -> None:
    for command in ("status", "runs"):
        assert fusionrun(command, "--runs", tmp_path).returncode == 0
    assert json.loads(fusionrun("runs", "--json", "--runs", tmp_path).stdout)["runs"] == []


@pytest.mark.parametrize("command", ["status", "runs"])
def test_a_directory_of_runs_that_is_not_there_is_named(command: str, tmp_path: Path) -> None:
    done = fusionrun(command, "--runs", tmp_path / "gone")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{tmp_path / 'gone'}: no such directory of runs\n")


def test_of_a_directory_that_is_not_there_no_run_can_be_meant(tmp_path: Path) -> None:
    done = fusionrun("status", "a", "--runs", tmp_path / "gone")
    assert done.returncode == 3
    assert f"{tmp_path / 'gone'}: no such directory of runs" in done.stderr


def test_runs_shows_the_headline_of_the_results(tmp_path: Path) -> None:
    made = Made(tmp_path / "a").status("completed")
    paths = {"global": 0.9, "pixels": 0.85, "fourier": 0.7, "mean_of_experts": 0.95}
    results = {"test": {name: {"accuracy": value} for name, value in paths.items()}}
    made.layout.results.write_text(json.dumps(results))
    line = shown(made, 120, "runs")[1]
    # Over the better of best expert and mean of experts, as `train` has it.
    assert re.search(r"90\.00%\s+-5\.00\s+pixels 85\.00%", line)
    listed = listing_as_json(look([made.layout]), tmp_path)["runs"][0]
    assert listed["results"] == results


def test_a_silent_patience_that_is_no_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSIONRUN_HUNG_S", "soon")
    done = fusionrun("status", "--runs", tmp_path)
    assert (done.returncode, "FUSIONRUN_HUNG_S: got 'soon'" in done.stderr) == (2, True)


def test_watching_ends_when_all_have_ended(tmp_path: Path) -> None:
    Made(tmp_path / "a").status("completed")
    done = fusionrun("status", "--watch", "--json", "--runs", tmp_path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)


def test_the_log_of_a_foreground_run_is_explained(tmp_path: Path) -> None:
    Made(tmp_path / "a").status("completed")
    done = fusionrun("logs", "a", "--runs", tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "speaks to its terminal" in done.stderr


def test_the_log_comes_as_it_is(tmp_path: Path) -> None:
    made = Made(tmp_path / "a").status("completed").log("")
    made.layout.log.write_bytes(b"one\n\xff\x1b[1mtwo\n")
    argv = [sys.executable, "-c", PROGRAM, "logs", "a", "-n", "1", "--runs", tmp_path]
    assert subprocess.check_output(argv, stderr=subprocess.PIPE) == b"\xff\x1b[1mtwo\n"


def test_who_watches_by_program_is_told_of_the_interrupt_in_json(tmp_path: Path) -> None:
    Made(tmp_path / "a").status("running")
    argv = [sys.executable, "-c", PROGRAM, "status", "--watch", "--json", "--runs", tmp_path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    told = json.loads(errors.splitlines()[-1])
    assert (told["error"], told["exit_code"], process.returncode) == ("Interrupted", 130, 130)


def test_a_name_that_fits_several_runs_shows_those(tmp_path: Path) -> None:
    for name in ("sw-11111111-s0", "sw-22222222-s0", "other-s0"):
        Made(tmp_path / name).status("completed")
    told = fusionrun("status", "sw", "--runs", tmp_path)
    assert "2 runs: 2 completed" in told.stdout
    assert "other" not in told.stdout
    refused = fusionrun("status", "sw", "--json", "--runs", tmp_path)
    assert (refused.returncode, "such as" in refused.stderr) == (3, True)
