"""A run is found by what a person types, or the error says what there is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fusionrun.errors import RunNotFoundError, UserError
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import create_run, find_run, list_runs, next_free, runs_dir, runs_named


def make(runs: Path, name: str, *, age: float, started: object = None) -> RunLayout:
    run = create_run(runs, name)
    run.plan.write_text("{}")
    os.utime(run.plan, (1_700_000_000 - age,) * 2)
    if started is not None:
        run.status.write_text(json.dumps({"started": started}))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    directory = tmp_path / "runs"
    make(directory, "digits-1a2b3c4d-s0", age=30)
    make(directory, "digits-1a2b3c4d-s1", age=10)
    make(directory, "cifar-99999999-s0", age=20)
    (directory / "notes").mkdir()
    (directory / "readme.txt").touch()
    make(directory, ".hidden-1a2b3c4d-s0", age=0)
    return directory


def test_runs_are_listed_the_newest_first_and_nothing_else_is(runs: Path) -> None:
    ids = [run.id for run in list_runs(runs)]
    assert ids == ["digits-1a2b3c4d-s1", "cifar-99999999-s0", "digits-1a2b3c4d-s0"]


def test_no_directory_holds_no_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "gone") == []


def test_without_a_name_the_newest_run_is_meant(runs: Path) -> None:
    assert find_run(runs, None).id == "digits-1a2b3c4d-s1"


def test_the_runs_of_a_recipe_by_its_name_are_the_newest_of_each_plan_and_seed(runs: Path) -> None:
    for name in ("digits-1a2b3c4d-s1-2", "digits-1a2b3c4d-s1-10", "digits-2-1a2b3c4d-s0"):
        make(runs, name, age=0)
    named = ["digits-1a2b3c4d-s0", "digits-1a2b3c4d-s1-10"]
    assert [run.id for run in runs_named(runs, "digits")] == named
    assert [run.id for run in runs_named(runs, "digits 2")] == ["digits-2-1a2b3c4d-s0"]
    assert runs_named(runs, "digit") == []


@pytest.mark.parametrize("started", [1_800_000_000.5, "2027-01-01T00:00:00+00:00"])
def test_a_recorded_start_counts_more_than_the_plans_age(runs: Path, started: object) -> None:
    make(runs, "copied-00000000-s0", age=1000, started=started)
    assert find_run(runs, None).id == "copied-00000000-s0"


@pytest.mark.parametrize("text", ["", "[", "[]", "null", '{"started": "soon"}', "{}"])
def test_a_status_that_cannot_be_read_falls_back_to_the_plans_age(runs: Path, text: str) -> None:
    RunLayout(runs / "digits-1a2b3c4d-s0").status.write_text(text)
    assert find_run(runs, None).id == "digits-1a2b3c4d-s1"


@pytest.mark.parametrize("wanted", ["cifar-99999999-s0", "cifar", "c", "9999", "9-s0"])
def test_a_run_is_found_by_its_id_or_a_unique_part(runs: Path, wanted: str) -> None:
    assert find_run(runs, wanted).root == runs / "cifar-99999999-s0"


def test_a_beginning_counts_more_than_a_part(runs: Path) -> None:
    make(runs, "old-cifar-00000000-s0", age=5)
    assert find_run(runs, "cifar").id == "cifar-99999999-s0"


def test_a_whole_id_counts_more_than_a_beginning(runs: Path) -> None:
    make(runs, "cifar-99999999-s0-2", age=5)
    assert find_run(runs, "cifar-99999999-s0").id == "cifar-99999999-s0"


def test_a_run_is_found_by_the_path_of_its_directory(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs / "cifar-99999999-s0")
    assert find_run(tmp_path / "elsewhere", ".").id == "cifar-99999999-s0"
    assert find_run(runs, str(runs / "cifar-99999999-s0") + "/").id == "cifar-99999999-s0"


def test_more_than_one_fitting_run_lists_them_all(runs: Path) -> None:
    with pytest.raises(RunNotFoundError, match="'1a2b' fits 2 runs; say which") as caught:
        find_run(runs, "1a2b")
    assert str(caught.value).splitlines()[1:] == [
        "  digits-1a2b3c4d-s1",
        "  digits-1a2b3c4d-s0",
        "  A part of the id that no other has is enough, such as s1",
    ]


def test_an_unknown_run_names_the_nearest(runs: Path) -> None:
    with pytest.raises(RunNotFoundError, match="did you mean:\n  digits-1a2b3c4d-s1"):
        find_run(runs, "digit-1a2b3c4d-s1")


@pytest.mark.parametrize("wanted", ["", "zzz", "../..", "/", "~nobody-here"])
def test_a_name_that_is_near_nothing_lists_the_newest_runs(runs: Path, wanted: str) -> None:
    with pytest.raises(RunNotFoundError, match="the newest runs:\n  digits-1a2b3c4d-s1\n"):
        find_run(runs, wanted)


@pytest.mark.parametrize("wanted", [None, "x"])
def test_no_directory_of_runs_says_where_it_looked_and_how_to_look_elsewhere(
    tmp_path: Path, wanted: str | None
) -> None:
    with pytest.raises(RunNotFoundError, match="no such directory of runs") as caught:
        find_run(tmp_path / "gone", wanted)
    assert str(tmp_path / "gone") in str(caught.value)
    assert "--runs DIR or the environment variable FUSIONRUN_RUNS" in str(caught.value)


def test_an_empty_directory_of_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="no runs there"):
        find_run(tmp_path, None)


def test_the_option_counts_more_than_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONRUN_RUNS", "/from/env")
    assert runs_dir("/from/option") == Path("/from/option")
    assert runs_dir(None) == Path("/from/env")


@pytest.mark.parametrize("value", [None, ""])
def test_runs_live_in_runs_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("FUSIONRUN_RUNS", raising=False)
    if value is not None:
        monkeypatch.setenv("FUSIONRUN_RUNS", value)
    assert runs_dir(None) == Path("runs")


def test_a_run_is_created_with_the_directory_of_runs(tmp_path: Path) -> None:
    run = create_run(tmp_path / "deep" / "runs", "x-0-s0")
    assert run.root == tmp_path / "deep" / "runs" / "x-0-s0"
    assert list(run.root.iterdir()) == []


def test_a_run_that_exists_is_never_created_again(tmp_path: Path) -> None:
    create_run(tmp_path, "x")
    create_run(tmp_path, "x-2")
    with pytest.raises(UserError, match="there is such a run already\n  x-3 is free"):
        create_run(tmp_path, "x")


def test_a_file_in_the_place_of_the_runs_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match=r"no run can be made there: File exists\n.*--runs DIR"):
        create_run(tmp_path / "runs", "x")


def test_the_next_free_id_counts_from_two(tmp_path: Path) -> None:
    assert next_free(tmp_path, "x") == "x"
    create_run(tmp_path, "x")
    assert next_free(tmp_path, "x") == "x-2"
    create_run(tmp_path, "x-2")
    assert next_free(tmp_path, "x") == "x-3"
