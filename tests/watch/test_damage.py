"""Files that are torn, damaged or of another shape never stop anybody from looking."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusionrun.watch.files import json_lines, tail
from fusionrun.watch.follow import end_of
from fusionrun.watch.look import look, look_as_json, run_as_json
from fusionrun.watch.results import result_of
from fusionrun.watch.screen import run_lines, table
from tests.watch.made import Made, fusionrun

FILES = ("status", "submission", "outcome", "stop_request", "events", "results", "plan")
DAMAGE = {
    "empty": b"",
    "half": b'{"state": "runn',
    "no JSON": b"\x00\xff\xfe not json",
    "a list": b"[1, 2, 3]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "wrong types": b'{"state": 7, "epoch": "x", "step": -5, "heartbeat": "soon", "jobs": [3, {}],'
    b' "job_id": {}, "pid": 1e999, "slurm": [], "time": 12, "reason": [], "attempts": true,'
    b' "steps": {}, "test": {"global": 3}, "events": 1, "event": {}, "executor": "slurmy"}',
    "huge numbers": b'{"state": "running", "heartbeat": 1e308, "epoch": 1e300, "pid": 99999999999,'
    b' "steps": 10, "step": 1e18, "step_s": 1e300, "started": 1e300}',
}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def seen_whole(made: Made) -> None:
    """Everything that any command would do with what it reads."""
    seen = look([made.layout])
    json.dumps(look_as_json(seen, made.layout.root.parent), allow_nan=False)
    json.dumps(run_as_json(seen, 5), allow_nan=False)
    list(run_lines(seen))
    table(seen, 80)
    result_of(made.layout)


def whole_run(root: Path) -> Made:
    made = Made(root).status("failed").journal(executor="local", job_id="4194305")
    made.outcome("failed", "boom").event("started").rank_error(0, "boom").log("boom\n")
    return made


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_looked_past(tmp_path: Path, name: str, damage: str) -> None:
    made = whole_run(tmp_path / "run")
    getattr(made.layout, name).write_bytes(DAMAGE[damage])
    seen_whole(made)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_rank_error_is_looked_past(tmp_path: Path, damage: str) -> None:
    made = whole_run(tmp_path / "run")
    made.layout.rank_error(0).write_bytes(DAMAGE[damage])
    made.layout.log.write_bytes(DAMAGE[damage])
    seen_whole(made)


@pytest.mark.parametrize("name", [*FILES, "logs", "checkpoints"])
def test_a_folder_or_file_in_the_wrong_place_is_looked_past(tmp_path: Path, name: str) -> None:
    made = Made(tmp_path / "run").status("running")
    path = getattr(made.layout, name)
    path.unlink(missing_ok=True)
    if name in FILES:
        path.mkdir()
    else:
        path.write_text("not a folder")
    seen_whole(made)


UNREADABLE = ("status", "events", "metrics", "results", "submission", "outcome", "environment")


def pipes_and_devices(made: Made) -> None:
    """In the place of every record: what blocks, never ends, or fills the memory."""
    for number, name in enumerate(UNREADABLE):
        path = getattr(made.layout, name)
        path.unlink(missing_ok=True)
        match number % 3:
            case 0:
                os.mkfifo(path)
            case 1:
                path.symlink_to("/dev/zero")
            case _:
                with path.open("wb") as file:
                    file.truncate(1 << 40)
    made.layout.log.unlink(missing_ok=True)
    os.mkfifo(made.layout.log)


def test_pipes_devices_and_endless_files_neither_block_nor_fill_the_memory(tmp_path: Path) -> None:
    made = whole_run(tmp_path / "run")
    pipes_and_devices(made)
    seen_whole(made)
    limited = "ulimit -v 4000000; exec "
    for command in ("status", "status run", "runs", "logs run"):
        argv = ["bash", "-c", f"{limited}{sys.executable} -m fusionrun {command} --runs {tmp_path}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        assert "not a regular file" in done.stdout + done.stderr


STORIES = {
    "completed": ((), "completed"),
    "interrupted": (("interrupted",), "stopped"),
    "killed": ((), "lost"),
    "queued again": (("stopped", "requeued"), "lost"),
}


@pytest.mark.parametrize("story", STORIES)
def test_a_damaged_status_is_told_from_the_other_records(tmp_path: Path, story: str) -> None:
    events, word = STORIES[story]
    made = Made(tmp_path / "run")
    made.event("started", attempt=2, pid=4194305, host=socket.gethostname(), resumed_from=100)
    made.event("checkpoint", step=1300)
    made.layout.metrics.write_text('{"epoch": 11, "step": 1200}\n{"epoch": 12, "st')
    for event in events:
        made.event(event, step=1250)
    if story == "completed":
        made.event("completed", epochs=60).outcome("completed")
    if story == "queued again":
        made.outcome("stopped", "time_limit").journal(executor="local", job_id="4194305")
    made.layout.status.write_text("{")
    (run,) = look([made.layout]).runs
    assert run.state.word == word
    assert (run.facts.epoch, run.facts.step, run.facts.attempts) == (13, 1300, 2)
    assert ("damaged", "status.json: not JSON; how it stands is told from its other records") in [
        *run_lines(look([made.layout]))
    ]
    assert "run: status.json: not JSON" in fusionrun("runs", "--runs", tmp_path).stderr


def test_what_resume_will_do_goes_by_what_is_whole(tmp_path: Path) -> None:
    made = Made(tmp_path / "run").status("failed").outcome("failed", "boom")
    made.checkpoint(1300).checkpoint(1400)
    newest = made.layout.checkpoints / "step-000001400" / "weights"
    newest.write_bytes(b"v" * 100)
    told = fusionrun("status", "run", "--runs", tmp_path).stdout
    assert "goes on from step 1,300, past what is damaged (step-000001400)." in told
    assert "damaged     step-000001400: weights: sha256 " in told
    assert "step 1,300/6,000" in told
    (made.layout.checkpoints / "step-000001300" / "weights").unlink()
    told = fusionrun("status", "run", "--runs", tmp_path).stdout
    assert "starts it again from the beginning: no checkpoint is whole" in told
    assert "checkpoint  of step" not in told


def test_a_resume_that_will_be_refused_is_not_promised(tmp_path: Path) -> None:
    gone = {"snapshot": {"id": "0123456789abcdef"}}
    made = Made(tmp_path / "run").status("failed").outcome("failed", "boom").checkpoint(1300)
    made.journal(executor="local", **gone)
    told = fusionrun("status", "run", "--runs", tmp_path).stdout
    assert "will be refused: snapshot 0123456789abcdef: the code it began with is gone" in told
    made.layout.plan.write_text(made.layout.plan.read_text().replace("6000", "7000"))
    told = fusionrun("status", "run", "--runs", tmp_path).stdout
    assert "will be refused: plan.json: damaged, or edited since it was written" in told
    assert "Put back what was written" in told


def test_a_run_without_its_plan_is_told_and_not_taken_for_nothing(tmp_path: Path) -> None:
    made = Made(tmp_path / "run").status("failed")
    made.layout.plan.unlink()
    for wanted in ((), ("run",), ("ru",)):
        done = fusionrun("status", *wanted, "--runs", tmp_path)
        assert "run: its plan.json is gone" in done.stderr
        assert "Put it back" in done.stderr
        assert done.returncode == (3 if wanted else 0)
    for command in ("status", "runs"):
        told = json.loads(fusionrun(command, "--json", "--runs", tmp_path).stdout)
        assert (told["without_plan"], told["runs"]) == ([str(made.layout.root)], [])


def test_a_file_in_the_place_of_the_checkpoints_is_told(tmp_path: Path) -> None:
    made = Made(tmp_path / "run").status("failed")
    made.layout.checkpoints.write_text("what was here?")
    told = fusionrun("status", "run", "--runs", tmp_path).stdout
    assert "damaged     checkpoints: not a directory" in told
    assert "checkpoints is a directory again; now it is none." in told


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    state=st.sampled_from(["running", "failed", "stopped", "queued", "completed", "?"]),
    key=st.sampled_from(["epoch", "step", "steps", "heartbeat", "started", "attempts", "pid",
                         "host", "step_s", "save_s", "job_id", "epochs"]),
    value=values,
    handed=st.dictionaries(
        st.sampled_from(["state", "time", "words", "jobs", "job_id", "after", "slurm"]), values
    ),
)  # fmt: skip
def test_any_value_anywhere_is_looked_past(
    tmp_path: Path, state: str, key: str, value: object, handed: dict[str, object]
) -> None:
    number = sum(1 for _ in tmp_path.iterdir())
    made = Made(tmp_path / f"run-{number}").status(state, **{key: value})
    made.journal(executor="local", **handed)
    seen_whole(made)


def test_a_torn_line_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "started"}\n{"event": "che\n\n{"event": "stopped"}\n{"ev')
    assert [line["event"] for line in json_lines(path, 1000)] == ["started", "stopped"]


def test_of_a_long_file_whole_lines_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {n}\n" for n in range(10_000)))
    assert tail(path, 2) == ["line 9998", "line 9999"]
    assert tail(path, 50, most_bytes=25) == ["line 9998", "line 9999"]


@pytest.mark.parametrize("lines", [0, 1, 3, 100_000])
@pytest.mark.parametrize("content", [b"", b"a", b"a\nb\nc\nd\n", b"a\n\n\n", b"x\r y\r\nz\n\nlast"])
def test_the_end_of_a_log_is_as_tail_says(tmp_path: Path, content: bytes, lines: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    told = subprocess.check_output(["tail", "-n", str(lines), path])
    assert end_of(path, lines) == (told, len(content))


def test_the_end_of_a_long_log_is_as_tail_says(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%d " % n * 30 + b"\n" for n in range(5000)))
    told = subprocess.check_output(["tail", "-n", "2500", path])
    assert end_of(path, 2500)[0] == told
