"""What is said of numbers that are not finite."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.train.nonfinite import bad_outputs, bad_step
from tests.small_runs import SMALL

UNCLIPPED = (
    "knowledge_transfer.expert_gradient_clipping=null",
    "knowledge_transfer.fusion_gradient_clipping=null",
)


def planned(folder: Path, *settings: str) -> Plan:
    path = folder / "small.yaml"
    path.write_text(SMALL)
    return make_plan(read_recipe(path, list(settings)), folder / "runs")


def test_of_many_names_a_few_are_told(tmp_path: Path) -> None:
    groups = [f"experts.{n}" for n in range(10)]
    error = bad_step(planned(tmp_path), 7, ["total", "global"], groups, 0)
    assert error.what.startswith(
        "step 7: not finite: loss total, global; "
        "gradient of experts.0, experts.1, experts.2 and 7 more; the weights are"
    )


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ((), "try a lower learning rate. The changed"),
        (UNCLIPPED, "try a lower learning rate or a gradient clip. "),
        (
            (*UNCLIPPED, "training.precision=bf16"),
            "try a lower learning rate, a gradient clip, or precision float32. ",
        ),
    ],
)
def test_what_the_run_has_already_is_not_advised(
    tmp_path: Path, settings: tuple[str, ...], advice: str
) -> None:
    assert bad_outputs(planned(tmp_path, *settings), ["global"]).fix.startswith(advice)
