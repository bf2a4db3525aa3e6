"""Making a run's directory: all of it, or nothing that somebody else would have to wait for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.store.checkpoints import list_checkpoints, save_checkpoint
from fusionrun.store.layout import RunLayout, run_id
from fusionrun.submit.trainer import announce

RECIPE = Path(__file__).parents[1] / "recipes" / "handwritten-digits.yaml"


@pytest.mark.parametrize("error", [KeyboardInterrupt("Ctrl-C"), OSError(28, "disk full")])
def test_what_is_interrupted_leaves_no_directory_behind(
    error: BaseException, tmp_path: Path
) -> None:
    source = read_recipe(RECIPE)
    plan = make_plan(source, tmp_path)

    def fails(layout: RunLayout) -> None:
        layout.submission.touch()
        raise error

    with pytest.raises(type(error), match=r"Ctrl-C|disk full"):
        prepare(plan, source.text, tmp_path, new=False, first=fails)
    assert list(tmp_path.iterdir()) == []
    assert prepare(plan, source.text, tmp_path, new=False).layout.plan.exists()


def cut_short(root: Path) -> RunLayout:
    """What a process leaves that was killed before its run was one."""
    layout = RunLayout(root)
    root.mkdir()
    announce(layout)
    content = json.loads(layout.training_lock.read_text())
    layout.training_lock.write_text(json.dumps({**content, "born": content["born"] + 1}))
    return layout


def test_what_a_killed_process_left_before_it_was_a_run_is_taken_away(tmp_path: Path) -> None:
    source = read_recipe(RECIPE)
    plan = make_plan(source, tmp_path)
    made = cut_short(tmp_path / run_id(plan.name, plan.hash, plan.seed))
    assert prepare(plan, source.text, tmp_path, new=False).layout.root == made.root
    assert made.plan.exists()


def test_a_run_that_has_lost_its_plan_is_not_taken_away(tmp_path: Path) -> None:
    source = read_recipe(RECIPE)
    plan = make_plan(source, tmp_path)
    made = cut_short(tmp_path / run_id(plan.name, plan.hash, plan.seed))
    save_checkpoint(made.checkpoints, 4, [("weights", b"w")])
    start = prepare(plan, source.text, tmp_path, new=True)
    assert start.layout.id == f"{made.id}-2"
    assert list_checkpoints(made.checkpoints)
    assert "resume" not in start.note


def test_who_trains_anew_learns_that_the_run_before_could_go_on(tmp_path: Path) -> None:
    source = read_recipe(RECIPE)
    plan = make_plan(source, tmp_path)
    made = prepare(plan, source.text, tmp_path, new=True).layout
    save_checkpoint(made.checkpoints, 4, [("weights", b"w")])
    note = prepare(plan, source.text, tmp_path, new=True).note
    assert f"`fusionrun resume {made.id} --runs {tmp_path}` goes on with it" in note
