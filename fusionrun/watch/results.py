"""What finished runs are worth, in one number each. Reads `results.json` and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fusionrun.gain import best_expert, gain_of
from fusionrun.store.layout import RunLayout
from fusionrun.watch.files import json_object, number, section

__all__ = ["Result", "result_of"]

_SPLITS: Final = ("test", "val", "train")


@dataclass(frozen=True)
class Result:
    """A run's headline.

    Attributes:
        split: that it was measured on.
        accuracy: of the global head; None where the recipe asks for other metrics.
        best_expert: name and accuracy of the best expert; None where heads were not trained.
        gain: points of accuracy by fusing, as `train` tells it; None with nothing to compare.
        everything: `results.json`: split → path → metric.
    """

    split: str
    accuracy: float | None
    best_expert: tuple[str, float] | None
    gain: float | None
    everything: Mapping[str, Any]


def result_of(layout: RunLayout) -> Result | None:
    """The headline of a run; None where it has no results."""
    content = json_object(layout.results)
    split = next((name for name in _SPLITS if section(content, name)), None)
    if split is None:
        return None
    paths = section(content, split)
    found = {name: number(section(paths, name), "accuracy") for name in paths}
    known = {name: accuracy for name, accuracy in found.items() if accuracy is not None}
    best, gain = best_expert(known), gain_of(known)
    return Result(
        split=split,
        accuracy=known.get("global"),
        best_expert=(best, known[best]) if best else None,
        gain=gain.points if gain else None,
        everything=content,
    )
