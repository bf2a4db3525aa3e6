"""Files that are torn, damaged or of another shape never stop anybody from looking."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusionrun.watch.files import json_lines, tail
from fusionrun.watch.follow import end_of
from fusionrun.watch.look import look, look_as_json, run_as_json
from fusionrun.watch.results import result_of
from fusionrun.watch.screen import run_lines, table
from tests.watch.made import Made

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
