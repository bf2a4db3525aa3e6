"""The list of runs with their results, on the screen and as JSON."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fusionrun.watch.columns import NOTHING, Justify, fitted
from fusionrun.watch.look import Look, SeenRun, look_as_json
from fusionrun.watch.results import Result, result_of
from fusionrun.watch.screen import STYLES

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["listing", "listing_as_json"]

_COLUMNS: Final[dict[str, Justify]] = {
    "run": "left",
    "state": "left",
    "began": "left",
    "epochs": "right",
    "accuracy": "right",
    "gain": "right",
    "best expert": "left",
}


def listing(seen: Look, width: int) -> Table:
    """All runs, a line each. Accuracy is the global head's; gain is as `train` tells it."""
    rows = [_cells(run, result_of(run.facts.layout)) for run in seen.runs]
    return fitted(rows, _COLUMNS, width, least=("best expert", "began"))


def listing_as_json(seen: Look, runs_dir: Path) -> dict[str, Any]:
    """As `look_as_json`, and of each run its `results`, or null."""
    content = look_as_json(seen, runs_dir)
    for listed, run in zip(content["runs"], seen.runs, strict=True):
        result = result_of(run.facts.layout)
        listed["results"] = result.everything if result else None
    return content


def _cells(run: SeenRun, result: Result | None) -> dict[str, Text]:
    from rich.text import Text

    facts, word = run.facts, run.state.word
    marked = word if run.state.certain else f"{word}*"
    texts = {
        "run": facts.id,
        "began": _moment(facts.started),
        "epochs": f"{facts.epoch}/{facts.epochs}" if facts.epochs else str(facts.epoch),
        **_result_texts(result),
    }
    cells = {name: Text(text) for name, text in texts.items()}
    return cells | {"state": Text(marked, style=STYLES.get(word, ""))}


def _result_texts(result: Result | None) -> dict[str, str]:
    accuracy = result.accuracy if result else None
    best = result.best_expert if result else None
    split = "" if result is None or result.split == "test" else f" ({result.split})"
    return {
        "accuracy": NOTHING if accuracy is None else f"{accuracy:.2%}{split}",
        "gain": NOTHING if result is None or result.gain is None else f"{result.gain:+.2f}",
        "best expert": f"{best[0]} {best[1]:.2%}" if best else NOTHING,
    }


def _moment(seconds: float | None) -> str:
    """Local time, as people think of their runs."""
    try:
        return NOTHING if not seconds else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return NOTHING
