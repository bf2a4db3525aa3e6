"""A staged recipe in the hands of an executor: an array of one expert a task, then the fused run.

Both are arrays as a sweep's is, so that submitting again submits what is missing, and each run is
one like any other: a failed expert is resumed alone. The fused run waits until every expert that
it starts from has completed; where one fails it is ended, and never waits for ever.

The fused runs of a sweep wait for all pretraining together, which they share where they can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fusionrun.launch import same_data
from fusionrun.plan.sweep import Point
from fusionrun.recipe.read import Source
from fusionrun.store.layout import RunLayout, run_id
from fusionrun.store.pretrained import needs_pretraining
from fusionrun.store.runs import next_free
from fusionrun.submit.array import Array, Queued, hand_over_array, place_array
from fusionrun.submit.array_draft import ArrayDraft, Slot, Terms, draft_array
from fusionrun.submit.waiting import NO_WAIT, After, wait_for

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["Handed", "StagedDraft", "draft_stages", "hand_over_stages"]


class StagedDraft(NamedTuple):
    """All there is to know before anything is written.

    Attributes:
        pretraining: the experts alone, each once; None where no run needs any.
        fused: the runs that start from them.
    """

    pretraining: ArrayDraft | None
    fused: ArrayDraft


class Handed(NamedTuple):
    """What was handed over: the arrays of both parts; none where nothing was missing."""

    pretraining: tuple[Queued, ...]
    fused: tuple[Queued, ...]
    draft: StagedDraft


def draft_stages(
    source: Source,
    points: Sequence[Point],
    runs_dir: Path,
    slurm: Slurm,
    terms: Terms,
) -> StagedDraft:
    """Find out how every run of a staged recipe stands. Nothing is written.

    Args:
        source: the recipe.
        points: its fused runs with the pretraining of each: one, or a sweep's.
        runs_dir: where runs live.
        slurm: the cluster.
        terms: how they shall be handed over; new are fused runs alone: completed pretraining is
            taken.

    Raises:
        As `draft_array`.
    """
    after = terms.after
    fused = draft_array(source, points, runs_dir, slurm, terms._replace(after=None))
    fused = replace(fused, slots=tuple(_on_these_data(slot, runs_dir) for slot in fused.slots))
    before = tuple(_pretraining([s.point for s in fused.submitted if needs_pretraining(s.layout)]))
    if not before:
        wait = wait_for(after, fused.executor, runs_dir, slurm) if after else NO_WAIT
        return StagedDraft(None, replace(fused, wait=wait))
    alone = draft_array(source, before, runs_dir, slurm, terms._replace(new=False))
    slots = tuple(_on_these_data(slot, runs_dir) for slot in alone.slots)
    return StagedDraft(replace(alone, slots=slots, name=f"{alone.name}-pretrain"), fused)


def _pretraining(points: Sequence[Point]) -> Iterator[Point]:
    """The runs of experts alone that points need, each once."""
    seen, seeds = set[str](), {point.plan.seed for point in points}
    for point in points:
        for name, plan in point.pretraining.items():
            identity = run_id(plan.name, plan.hash, plan.seed)
            if identity not in seen:
                seen.add(identity)
                seed = {"seed": plan.seed} if len(seeds) > 1 else {}
                yield Point({"pretrain": name} | seed, plan)


def _on_these_data(slot: Slot, runs_dir: Path) -> Slot:
    """The slot; for a run that was begun with other data than there are now, that of a new one."""
    plan = slot.point.plan
    if slot.fate in ("new", "living") or same_data(slot.layout, plan):
        return slot
    free = next_free(runs_dir, run_id(plan.name, plan.hash, plan.seed))
    return Slot(slot.point, RunLayout((runs_dir / free).absolute()), "new", "new: the data changed")


def hand_over_stages(draft: StagedDraft, slurm: Slurm) -> Handed:
    """Hand over what is missing: the experts, and the fused runs behind them.

    Raises:
        UserError: somebody was faster, or something cannot be written.
        SchedulerError: it is refused. What was handed over before goes on.
    """
    alone, fused = draft
    queued: tuple[Queued, ...] = ()
    if alone is not None:
        queued = _handed(alone, slurm)
        runs = [slot.layout for slot in alone.slots]
        wait = wait_for(After(runs, "ok"), alone.executor, alone.runs_dir, slurm, asked=False)
        fused = replace(fused, wait=wait)
    behind = _handed(fused, slurm)
    return Handed(queued, behind, StagedDraft(alone, fused))


def _handed(draft: ArrayDraft, slurm: Slurm) -> tuple[Queued, ...]:
    made: tuple[Array, ...] = place_array(draft) if draft.submitted else ()
    return tuple(hand_over_array(array, draft, slurm) for array in made)
