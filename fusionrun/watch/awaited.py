"""The runs that a run waits for, by its journal's `after`, whatever may stand there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fusionrun.store.layout import RunLayout
from fusionrun.watch.files import json_object, text

__all__ = ["awaited", "needed"]


def awaited(after: Mapping[str, Any]) -> list[str]:
    """Their ids."""
    runs = after.get("runs")
    ids = runs if isinstance(runs, list) else [after.get("run")]
    return [id_ for id_ in ids if isinstance(id_, str)]


def needed(layout: RunLayout, after: Mapping[str, Any]) -> Iterator[str]:
    """Ids of those without which the run cannot begin, and that have not completed."""
    if text(after, "kind") != "ok":
        return
    for id_ in awaited(after):
        other = RunLayout(layout.root.absolute().parent / id_)
        if text(json_object(other.status), "state") != "completed":
            yield id_
