"""The end of a sweep on the screen: its points side by side, and what they come to together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from fusionrun.gain import gain_of
from fusionrun.report import HEADINGS, number_in_words, results_as_json, verified
from fusionrun.store.layout import RunLayout

__all__ = ["points_as_json", "show_points"]

Done = Sequence[tuple[str, RunLayout]]
"""Of each run that has completed: its settings in words, and where it is."""


def show_points(done: Done) -> None:
    """Verify the components of finished runs; print the fused path of each, and their mean.

    Raises:
        FusionrunError: a run has no results.
        ComponentError: a component is damaged.
    """
    if not done:
        return
    found = [verified(layout)[0] for _, layout in done]
    split, rows = _rows(found)
    print(f"\n{split} split, the global path with the best weights of each run")
    table = Table()
    for heading in ("point", *(HEADINGS.get(m, m) for m in rows[0])):
        justify: Literal["left", "right"] = "left" if heading == "point" else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    for (point, _), row in zip(done, rows, strict=True):
        table.add_row(point, *_cells(row))
    if len(rows) > 1:
        table.add_section()
        for name, values in _together(rows):
            table.add_row(name, *_cells(values), style="bold")
    Console().print(table)
    print(f"\nruns         {len(done)}, the components of all of them verified")
    print(f"next         fusionrun export --component fusion --run {done[0][1].root}")


def _rows(found: Sequence[Mapping[str, Any]]) -> tuple[str, list[dict[str, float]]]:
    """The split that is shown, and every run's numbers on it."""
    split = "test" if all("test" in results for results in found) else next(iter(found[0]))
    return split, [_row(results[split]) for results in found]


def _row(paths: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    row = dict(paths["global"])
    gain = None
    if "accuracy" in row:
        gain = gain_of({name: metrics["accuracy"] for name, metrics in paths.items()})
    return row if gain is None else {**row, "fusion gain": gain.points}


def _together(rows: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Mean and standard deviation (of a sample) over the runs."""
    common = [name for name in rows[0] if all(name in row for row in rows)]
    yield "mean", {name: fmean(row[name] for row in rows) for name in common}
    yield "deviation", {name: stdev(row[name] for row in rows) for name in common}


def _cells(row: Mapping[str, float]) -> list[str]:
    return [f"{v:+.2f}" if m == "fusion gain" else number_in_words(m, v) for m, v in row.items()]


def points_as_json(
    points: Sequence[tuple[Mapping[str, Any], RunLayout]], errors: Mapping[str, Exception]
) -> str:
    """Every point: its settings, and its results or what ended it; mean and deviation of the
    global path over those that have completed, as in the table. Raises as `show_points`.
    """
    told = []
    for settings, layout in points:
        error = errors.get(layout.id)
        own = {"error": str(error)} if error else json.loads(results_as_json(layout))
        told.append({"settings": dict(settings), "run": layout.id, **own})
    whole: dict[str, Any] = {"points": told}
    if len(found := [own["results"] for own in told if "results" in own]) > 1:
        split, rows = _rows(found)
        whole["together"] = {"split": split, "runs": len(rows), **dict(_together(rows))}
    return json.dumps(whole, indent=2, ensure_ascii=False)
