"""What a submission would be, for `fusionrun plan`: nobody is asked, no code is read.

Refuses and warns as `submit` does. Which code will run is decided when it is submitted: until then
`CODE` stands in the script in the place of the snapshot's id.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from fusionrun.plan.plan import Plan
from fusionrun.recipe.read import Source
from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm
from fusionrun.store.layout import RunLayout, run_id
from fusionrun.submit.asked import limit_s, refuse_misread, script_of
from fusionrun.submit.forecast import Forecast, forecast, measured

__all__ = ["CODE", "Preview", "preview"]

CODE: Final = "CODE"


class Preview(NamedTuple):
    """A submission that nobody has asked for yet.

    Attributes:
        script: the batch script.
        of: what it is the script of.
        forecast: how long the run will take; None where nobody has measured.
    """

    script: str
    of: str
    forecast: Forecast | None

    def rows(self) -> list[tuple[str, str]]:
        """What is said above the script, each with its label."""
        said = self.forecast
        rows = [("forecast", said.words)] if said else []
        rows += [("warning", warning) for warning in (said.warnings if said else ())]
        return [*rows, ("script", f"of {self.of}; {CODE} stands for the copy of the code")]

    def to_json(self) -> dict[str, Any]:
        """`script`, and `forecast` or null."""
        return {"script": self.script, "forecast": self.forecast and self.forecast._asdict()}


def _of(source: Source) -> str:
    if any(stage.stage == "pretrain" for stage in source.recipe.stages):
        return "the fused run, without the array of pretraining before it"
    return "the job" if source.recipe.sweep is None else "this one run, not of the sweep's array"


def preview(source: Source, section: Slurm, plan: Plan, runs_dir: Path) -> Preview:
    """What submitting a plan to Slurm would come to.

    Args:
        source: the recipe.
        section: its `slurm`.
        plan: what comes of the recipe.
        runs_dir: where the run would lie.

    Raises:
        RecipeError: settings that Slurm would accept in silence.
        UserError: a template that cannot be used, or a name that no script can hold.
    """
    settings = plain(section)
    refuse_misread(settings, source)
    root = runs_dir.absolute()
    layout = RunLayout(root / run_id(plan.name, plan.hash, plan.seed))
    code = tuple(str(root / ".snapshots" / CODE / part) for part in ("package", "project"))
    seen = measured(plan, runs_dir)
    return Preview(
        script_of(layout, plan, sys.executable, code, settings),
        _of(source),
        forecast(plan.steps.fusion_steps, seen, settings, limit_s(settings)) if seen else None,
    )
