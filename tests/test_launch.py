"""Making a run's directory: all of it, or nothing that somebody else would have to wait for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.store.layout import RunLayout

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
