"""What would have `fusionrun resume` refuse a run, seen before anybody asks it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from fusionrun.errors import UserError
from fusionrun.plan.stored import damage_of
from fusionrun.store.layout import RunLayout
from fusionrun.submit.snapshot import find_snapshot, snapshots_dir

__all__ = ["Obstacle", "obstacles"]

_NEW = "or begin a new run of the recipe with --new"


class Obstacle(NamedTuple):
    """A record without which a run cannot go on.

    Attributes:
        record: its file or folder.
        wrong: what is wrong with it.
        fix: what to do about it, as an order.
    """

    record: str
    wrong: str
    fix: str


def obstacles(layout: RunLayout, snapshot_id: str, *, thorough: bool) -> Iterator[Obstacle]:
    """All that stand in a run's way.

    Args:
        layout: the run.
        snapshot_id: of its code; empty where its journal names none.
        thorough: read the snapshot's files, and not only look whether it is there.
    """
    if wrong := damage_of(layout.plan):
        yield Obstacle(layout.plan.name, wrong, f"Put back what was written, {_NEW}")
    if snapshot_id and (wrong := _wrong_with_code(layout, snapshot_id, thorough)):
        yield Obstacle(f"snapshot {snapshot_id}", wrong, f"Put it back as it was, {_NEW}")


def _wrong_with_code(layout: RunLayout, snapshot_id: str, thorough: bool) -> str:
    folder = snapshots_dir(layout.root.parent)
    if not os.path.isdir(folder / snapshot_id):
        return f"the code it began with is gone from {folder}"
    try:
        if thorough:
            find_snapshot(folder, snapshot_id)
    except UserError as error:
        return str(error).partition("\n")[0]
    return ""
