"""What finished runs are worth, in one number each. Reads `results.json` and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fusionrun.store.layout import RunLayout
from fusionrun.watch.files import json_object, number, section

__all__ = ["Result", "result_of"]

_SPLITS: Final = ("test", "val", "train")
_JOINT: Final = frozenset({"global", "mean_of_experts"})


@dataclass(frozen=True)
class Result:
    """A run's headline.

    Attributes:
        split: that it was measured on.
        accuracy: of the global head; None where the recipe asks for other metrics.
        best_expert: name and accuracy of the best expert; None where heads were not trained.
        everything: `results.json`: split → path → metric.
    """

    split: str
    accuracy: float | None
    best_expert: tuple[str, float] | None
    everything: Mapping[str, Any]


def result_of(layout: RunLayout) -> Result | None:
    """The headline of a run; None where it has no results."""
    content = json_object(layout.results)
    split = next((name for name in _SPLITS if section(content, name)), None)
    if split is None:
        return None
    paths = section(content, split)
    known = {name: number(section(paths, name), "accuracy") for name in paths}
    experts = [(name, a) for name, a in known.items() if name not in _JOINT and a is not None]
    best = max(experts, key=lambda pair: pair[1], default=None)
    return Result(split, known.get("global"), best, content)
