"""Whatever stands in a run's files, a reader gives a right answer or a known error."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusionrun.errors import ComponentError, UserError
from fusionrun.plan.plan import Plan
from fusionrun.plan.stored import read_plan
from fusionrun.store.components import load_component, load_file, save_components, verify
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import digest_of, read_manifest
from fusionrun.store.safetensors_header import parse_header, read_header
from fusionrun.store.status import Status, mark_status, read_status
from fusionrun.submit.after import Ended, decide
from fusionrun.submit.journal import read_events, read_submission
from fusionrun.submit.standing import standing
from tests.program import fusionrun

some = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(some, max_examples=30)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "..", "../../x", "fusion", "auto", "running", "slurm", "1e400", "\ud800"]),
    st.sampled_from([-1, 0, 1, 2**31, 2**63, 10**400]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=5,
)
GONE = object()

Path_ = tuple[str | int, ...]


def paths(content: Any, path: Path_ = ()) -> Iterator[Path_]:
    yield path
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content[:3])
    for key, value in items:
        yield from paths(value, (*path, key))


def changed(content: Any, changes: list[tuple[Path_, Any]]) -> Any:
    """The content with other values in some places, or none."""
    content = copy.deepcopy(content)
    for path, value in changes:
        here = content
        try:
            for key in path[:-1]:
                here = here[key]
            if not path:
                content = None if value is GONE else value
            elif value is GONE:
                del here[path[-1]]
            else:
                here[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            pass  # (an earlier change has taken it away)
    return content


def changes_of(content: Any) -> st.SearchStrategy[list[tuple[Path_, Any]]]:
    one = st.tuples(st.sampled_from(list(paths(content))), values | st.just(GONE))
    return st.lists(one, min_size=1, max_size=3)


def dumped(content: Any) -> bytes:
    return json.dumps(content).encode("utf-8", "surrogatepass")


# A cut, a flipped byte, a piece that is doubled, a piece that is put in.
edits = st.lists(
    st.tuples(
        st.sampled_from(["cut", "flip", "double", "put"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=12) | st.sampled_from([b"[" * 5000, b"9" * 5000, b"\0"]),
    ),
    min_size=1,
    max_size=3,
)


def edited(data: bytes, by: list[tuple[str, float, bytes]], within: int | None = None) -> bytes:
    for kind, place, piece in by:
        at = int(place * min(len(data), within or len(data)))
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ piece[0]]) + data[at + 1 :]
        elif kind == "double":
            data = data[:at] + data[at : at + 40] + data[at:]
        else:
            data = data[:at] + piece + data[at:]
    return data


# ------------------------------------------------------------------ components


COMPONENTS = {
    "experts.a": {"weight": torch.arange(6.0).view(2, 3), "seen": torch.tensor(7)},
    "heads.a": {"weight": torch.ones(4).bfloat16(), "empty": torch.zeros(0, 3)},
    "fusion": {},
    "global_head": {"bias": torch.tensor([True, False])},
}
RECORD = {
    "run_id": "x-0123abcd-s0",
    "plan_hash": "0123abcd",
    "which": "best",
    "epoch": 3,
    "step": 40,
    "chosen_on": {"split": "val", "path": "global", "metric": "accuracy", "value": 0.5},
    "test_split": "touched once",
    "classes": ["0", "1"],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("components") / "best"
    save_components(folder, COMPONENTS, record=RECORD)
    return folder


def used(folder: Path) -> None:
    """Everything that is done with components: read, verified, loaded."""
    with suppress(ComponentError):
        manifest = read_manifest(folder)
        assert isinstance(manifest.components, Mapping)
        verify(folder)
        for name in manifest.components:
            load_component(folder, name)


@some
@given(edits)
def test_any_bytes_of_a_manifest(saved: Path, tmp_path: Path, by: Any) -> None:
    whole = (saved / "manifest.json").read_bytes()
    folder = tmp_path / "best"
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    data = edited(whole, by)
    (folder / "manifest.json").write_bytes(data)
    used(folder)
    with suppress(ComponentError):
        assert read_manifest(folder) == read_manifest(saved)  # (it vouches for what it says)


@some
@given(st.data())
def test_any_values_of_a_manifest_that_vouches_for_itself(
    saved: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = json.loads((saved / "manifest.json").read_bytes())
    del content["sha256"]
    content = changed(content, data.draw(changes_of(content)))
    if isinstance(content, dict):
        content["sha256"] = digest_of(content)
    folder = tmp_path / "best"
    shutil.copytree(saved, folder, dirs_exist_ok=True)
    (folder / "manifest.json").write_bytes(dumped(content))
    used(folder)


@some
@given(edits, st.booleans(), st.sampled_from(sorted(COMPONENTS)))
def test_any_bytes_of_a_component(
    saved: Path, tmp_path: Path, by: Any, in_header: bool, name: str
) -> None:
    source = saved / f"{name.replace('.', '/')}.safetensors"
    whole = source.read_bytes()
    within = read_header(source).header_bytes if in_header else None
    data = edited(whole, by, within)
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    try:
        header = parse_header(data, "x")
    except ComponentError:
        with pytest.raises(ComponentError, match=r"x\.safetensors"):
            load_file(path)
        return
    assert read_header(path) == header
    shapes = {tensor: info.shape for tensor, info in header.tensors.items()}
    with suppress(ComponentError):  # (a type that torch does not have)
        tensors = load_file(path)
        assert {tensor: tuple(found.shape) for tensor, found in tensors.items()} == shapes


@some
@given(st.data())
def test_any_values_of_a_components_header(
    saved: Path, tmp_path: Path, data: st.DataObject
) -> None:
    whole = (saved / "experts" / "a.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    content = json.loads(whole[8:end])
    text = dumped(changed(content, data.draw(changes_of(content))))
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[end:])
    with suppress(ComponentError):
        assert load_file(path).keys() == read_header(path).tensors.keys()


# ------------------------------------------------------------------ the plan


@some
@given(st.data())
def test_any_values_of_a_plan(trained_once: RunLayout, data: st.DataObject) -> None:
    content = json.loads(trained_once.plan.read_bytes())
    top = data.draw(st.sampled_from(sorted(content)))
    content[top] = changed(content[top], data.draw(changes_of(content[top])))
    with suppress(UserError):
        plan = Plan.from_json(json.loads(dumped(content)), "plan.json")
        assert (plan.settings.name, len(plan.hash)) == (plan.name, 64)


@few
@given(edits)
def test_any_bytes_of_a_plan(trained_once: RunLayout, tmp_path: Path, by: Any) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(edited(trained_once.plan.read_bytes(), by))
    with suppress(UserError):
        assert read_plan(path).settings


# ------------------------------------------------------------------ how a run stands


STATUS = {
    "state": "running", "epoch": 1, "step": 10, "started": 1.7e9, "heartbeat": 1.7e9,
    "attempts": 1, "pid": 4_000_000, "host": "elsewhere", "epochs": 2, "steps": 20,
    "step_s": 0.1, "save_s": None, "job_id": None,
}  # fmt: skip
SUBMISSION = {
    "executor": "local", "state": "submitted", "time": "2026-01-02T03:04:05+00:00",
    "job_id": "4000000", "snapshot": {"id": "0" * 16, "commit": None, "left_out": [["x", "y"]]},
    "jobs": [{"id": "4000000", "time": "2026-01-02T03:04:05+00:00", "attempt": 1,
              "host": "elsewhere", "born": 5}],
    "words": "", "slurm": {"requeue": True, "max_requeues": 3}, "python": "/x",
    "pythonpath": ["/y"], "after": {"run": "other", "kind": "ok"}, "host": "here",
}  # fmt: skip
OUTCOME = {"attempt": 1, "outcome": "stopped", "reason": "time_limit", "epoch": 1, "step": 10}
EVENTS = [
    {"time": "2026-01-02T03:04:05+00:00", "event": "submitted"},
    {"event": "started", "resumed_from": 3},
    {"event": "requeued", "step": 5},
    {"event": "started"},
]


@some
@given(st.data())
def test_any_values_of_a_status(tmp_path: Path, data: st.DataObject) -> None:
    layout = RunLayout(tmp_path)
    layout.status.write_bytes(dumped(changed(STATUS, data.draw(changes_of(STATUS)))))
    layout.outcome.write_bytes(dumped(changed(OUTCOME, data.draw(changes_of(OUTCOME)))))
    status = read_status(layout)
    assert isinstance(status, Status)
    assert status.is_alive() in (True, False)
    assert status.attempts + status.epoch + status.step + status.heartbeat >= 0
    mark_status(layout, "stopped")
    assert read_status(layout).state == "stopped"


@some
@given(st.data())
def test_any_values_of_a_journal(tmp_path: Path, data: st.DataObject) -> None:
    layout = RunLayout(tmp_path)
    content = changed(SUBMISSION, data.draw(changes_of(SUBMISSION)))
    layout.submission.write_bytes(dumped(content))
    with suppress(UserError):
        submission = read_submission(layout)
        assert submission is not None
        if submission.executor == "local":
            assert standing(layout).words


@some
@given(st.data())
def test_any_values_of_an_outcome_and_events_lead_to_a_decision(
    tmp_path: Path, data: st.DataObject
) -> None:
    layout = RunLayout(tmp_path)
    events = changed(EVENTS, data.draw(changes_of(EVENTS)))
    lines = events if isinstance(events, list) else [events]
    layout.events.write_bytes(b"\n".join(map(dumped, lines)))
    outcome = changed(OUTCOME, data.draw(changes_of(OUTCOME)))
    ended = Ended(
        code=0,
        outcome=outcome if isinstance(outcome, dict) else None,
        events=read_events(layout),
    )
    action = decide(ended)
    assert action.kind in ("none", "requeue", "chain")
    assert isinstance(action.why, str)


# ------------------------------------------------------------------ the program


FILES = ["plan", "status", "submission", "outcome", "events", "metrics", "results", "environment"]
COMMANDS = [
    ("status", "RUN"), ("status", "RUN", "--json"), ("status",), ("runs",), ("runs", "--json"),
    ("logs", "RUN"), ("export", "--component", "all", "--run", "RUN", "-o", "OUT", "--force"),
    ("export", "--component", "fusion", "-o", "OUT2", "--force"),
    ("plan", "RECIPE", "--against", "RUN"), ("cancel", "RUN"),
]  # fmt: skip


@few
@given(st.lists(st.sampled_from([*FILES, "manifest"]), min_size=1, max_size=4), edits, st.data())
def test_no_command_ends_in_a_traceback_on_a_damaged_run(
    trained_once: RunLayout, tmp_path: Path, names: list[str], by: Any, data: st.DataObject
) -> None:
    root = tmp_path / "runs" / trained_once.id
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(trained_once.root, root)
    layout = RunLayout(root)
    layout.submission.write_bytes(dumped({**SUBMISSION, "after": None}))
    for name in names:
        path = layout.manifest("best") if name == "manifest" else getattr(layout, name)
        path.write_bytes(edited(path.read_bytes(), by))
    places = {
        "RUN": str(root), "OUT": str(tmp_path / "out"), "OUT2": str(tmp_path / "f.safetensors"),
        "RECIPE": str(layout.recipe),
    }  # fmt: skip
    command = data.draw(st.sampled_from(COMMANDS))
    words = [places.get(word, word) for word in command]
    done = fusionrun(*words, "--runs", root.parent)
    if done.exception is not None:
        assert isinstance(done.exception, SystemExit), (command, done.exception)
    assert done.exit_code in (0, 1, 2, 3, 4), done.output
    assert "Traceback" not in done.output


def test_the_commands_above_work_on_a_sound_run(trained: RunLayout, tmp_path: Path) -> None:
    for command in COMMANDS[:-1]:
        places = {"RUN": trained.id, "OUT": str(tmp_path / "o"), "OUT2": str(tmp_path / "f"),
                  "RECIPE": str(trained.recipe)}  # fmt: skip
        words = [places.get(word, word) for word in command]
        done = fusionrun(*words, "--runs", trained.root.parent)
        assert done.exit_code == 0, (command, done.output)
