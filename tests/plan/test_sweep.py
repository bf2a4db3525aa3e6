"""The points of a sweep: which they are, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusionrun.errors import RecipeError, UserError
from fusionrun.plan.sweep import plan_points

RECIPE = """\
version: 1
name: digits
preset: tuned
data: {source: npz, path: package:handwritten_digits}
experts:
  a: {model: mlp, view: fourier, hidden: [8], features: 8}
fusion: {type: concatenation}
training: {epochs: 2}
"""


def settings(folder: Path, sweep: str, *arguments: str) -> list[dict[str, object]]:
    recipe = folder / "r.yaml"
    recipe.write_text(RECIPE + sweep)
    return [dict(point.settings) for point in plan_points(recipe, arguments, folder)[1]]


def test_a_grid_is_every_combination_the_last_key_moving_fastest(tmp_path: Path) -> None:
    made = settings(
        tmp_path, "sweep: {grid: {training.epochs: [1, 2], training.batch_size: [32, 64]}}"
    )
    assert [tuple(point.values()) for point in made] == [(1, 32), (1, 64), (2, 32), (2, 64)]


def test_a_zip_takes_its_lists_together_and_seeds_multiply(tmp_path: Path) -> None:
    sweep = "sweep: {zip: {training.epochs: [1, 2], training.batch_size: [32, 64]}, seeds: [0, 1]}"
    made = settings(tmp_path, sweep)
    assert [tuple(point.values()) for point in made] == [
        (1, 32, 0),
        (1, 32, 1),
        (2, 64, 0),
        (2, 64, 1),
    ]


def test_every_point_is_a_plan_of_its_own(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE + "sweep: {grid: {experts.a.hidden: [[8], [8, 4]]}, seeds: [3]}")
    source, points = plan_points(recipe, [], tmp_path)
    assert source.text.endswith("seeds: [3]}")
    assert [point.plan["experts.a.hidden"] for point in points] == [(8,), (8, 4)]
    assert {point.plan.seed for point in points} == {3}
    assert len({point.plan.hash for point in points}) == 2
    assert str(points[1]) == "experts.a.hidden=[8, 4], seed=3"


def test_a_point_that_is_no_recipe_is_told_at_the_sweeps_own_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"r\.yaml:9:27  training\.epochs"):
        settings(tmp_path, "sweep: {seeds: [1], zip: {training.epochs: [1, 0]}}")


def test_an_unknown_key_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"r\.yaml:9:16  training\.epoch\n(.*\n)*  did you mean .epochs."
    ):
        settings(tmp_path, "sweep: {grid: {training.epoch: [1]}}")


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two points are the same run"):
        settings(tmp_path, "sweep: {seeds: [1, 1]}")


@pytest.mark.parametrize("sweep", ["sweep: {}", "sweep: {grid: {training.epochs: []}}"])
def test_an_empty_sweep_is_refused(tmp_path: Path, sweep: str) -> None:
    with pytest.raises(UserError, match="a sweep of no points"):
        settings(tmp_path, sweep)


def test_a_recipe_without_a_sweep_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no 'sweep'"):
        settings(tmp_path, "")


def test_a_sweep_beyond_all_reason_is_refused_before_anything_is_planned(tmp_path: Path) -> None:
    seeds = list(range(101))
    sweep = f"sweep: {{grid: {{training.epochs: {[*range(1, 101)]}}}, seeds: {seeds}}}"
    with pytest.raises(UserError, match="10001 points"):
        settings(tmp_path, sweep)


def test_folds_are_points_whose_test_parts_are_all_rows(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE + "sweep: {folds: 3, seeds: [7, 8]}")
    _, points = plan_points(recipe, [], tmp_path)
    settings = [point.settings for point in points]
    assert settings[:2] == [{"data.split.fold": 0, "seed": 7}, {"data.split.fold": 0, "seed": 8}]
    assert len(points) == 6
    assert sum(point.plan.data.sizes["test"] for point in points[::2]) == 2000
    split = {k: v for k, v in points[0].plan.settings.data.split if k != "fold"}
    assert split == {"folds": 3, "val": 0.25, "stratify": True, "seed": 0}


def test_other_splits_of_the_same_folds_are_a_key_of_the_grid(tmp_path: Path) -> None:
    made = settings(tmp_path, "sweep: {folds: 2, grid: {data.split.seed: [1, 2]}}")
    assert [tuple(point.values()) for point in made] == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_parts_that_stand_in_files_have_no_folds(tmp_path: Path) -> None:
    files = "data.split={train: a.npz, test: b.npz}"
    with pytest.raises(RecipeError, match=r"r\.yaml:9:16  sweep\.folds\n(.*\n)*.*shares or folds"):
        settings(tmp_path, "sweep: {folds: 2}", files, "data.path=null")
