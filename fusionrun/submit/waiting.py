"""What `--after RUN` means: which job to wait for, or that there is nothing to wait for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from fusionrun.errors import UserError
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import typed
from fusionrun.submit.journal import Executor, read_submission
from fusionrun.submit.standing import standing

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["NO_WAIT", "After", "Kind", "Wait", "depends", "listed", "wait_for", "wait_for_all"]

Kind = Literal["ok", "any"]


class After(NamedTuple):
    """What a run shall wait for.

    Attributes:
        layout: the other run.
        kind: ok: until it has completed; any: until it has ended.
    """

    layout: RunLayout
    kind: Kind


class Wait(NamedTuple):
    """What comes of it.

    Attributes:
        after: for the journal; None: there is nothing to wait for.
        arguments: of sbatch.
        words: ready to print.
    """

    after: dict[str, Any] | None
    arguments: tuple[str, ...]
    words: str


NO_WAIT: Final = Wait(None, (), "")
"""There was nothing to wait for from the first."""


def wait_for(
    after: After, executor: Executor, runs_dir: Path, slurm: Slurm | None, *, asked: bool = True
) -> Wait:
    """How to wait for another run, given how it stands.

    Args:
        after: the other run.
        executor: who will carry out the one that waits.
        runs_dir: where the run that waits will lie.
        slurm: the cluster, for runs that were handed to it.
        asked: by `--after`; else by what the run is.

    Raises:
        UserError: it failed, and ok is asked for; or there is no way to wait for it.
    """
    layout, kind = after
    found = standing(layout, slurm)
    if not found.is_living:
        if kind == "ok" and not found.is_complete:
            raise UserError(_has_ended(layout, slurm, asked=asked))
        return Wait(None, (), f"{layout.id} has ended ({found.words}): nothing to wait for")
    if layout.root.resolve().parent != runs_dir.resolve():
        raise UserError(f"{layout.root}: lies elsewhere; --after takes runs beside the new one")
    what = {"run": layout.id, "kind": kind}
    until = "completed" if kind == "ok" else "ended"
    if executor == "local":
        return Wait(what, (), f"starts when {layout.id} has {until} ({found.words})")
    return Wait(what, _dependency(after, found.words), f"starts when {layout.id} has {until}")


def _has_ended(layout: RunLayout, slurm: Slurm | None, *, asked: bool) -> str:
    waits = "--after waits for a run that completes, and this one" if asked else "it"
    others = "; --after-any does not mind" if asked else ", and what waits for it after that"
    return (
        f"{layout.root}: {waits} has ended: {_how_it_ended(layout, slurm)}\n"
        f"  `{typed(layout, 'resume')}` lets it go on{others}"
    )


def _how_it_ended(layout: RunLayout, slurm: Slurm | None) -> str:
    """In the words of `fusionrun status`."""
    from fusionrun.watch.look import look

    (run,) = look([layout], slurm).runs
    return f"{run.state.word}: {run.state.why}" if run.state.why else run.state.word


def wait_for_all(
    layouts: Sequence[RunLayout], executor: Executor, runs_dir: Path, slurm: Slurm | None
) -> Wait:
    """How to wait until several runs have completed; those that have already count as done.

    Raises:
        UserError: one of them failed, or there is no way to wait for it.
    """

    def goes_on(run: RunLayout) -> bool:
        return wait_for(After(run, "ok"), executor, runs_dir, slurm, asked=False).after is not None

    living = [run for run in layouts if goes_on(run)]
    if not living:
        words = f"its {len(layouts)} pretraining runs have completed: nothing to wait for"
        return Wait(None, (), words)
    ids = [run.id for run in living]
    words = f"starts when {listed(ids)} {'have' if len(ids) > 1 else 'has'} completed"
    jobs = [id_ for run in living if (id_ := _job_id(run))] if executor == "slurm" else []
    return Wait({"runs": ids, "kind": "ok"}, depends("ok", jobs) if jobs else (), words)


def listed(ids: Sequence[str], most: int = 3) -> str:
    """The first few of several runs, and how many more there are."""
    shown = ", ".join(ids[:most])
    return shown if len(ids) <= most else f"{shown} and {len(ids) - most} more"


def depends(kind: str, job_ids: Sequence[str]) -> tuple[str, ...]:
    """The options of sbatch that let a job wait for others.

    A job whose dependency can never be met would wait for ever, unless told not to.
    """
    return (f"--dependency=after{kind}:{':'.join(job_ids)}", "--kill-on-invalid-dep=yes")


def _job_id(layout: RunLayout) -> str | None:
    submission = read_submission(layout)
    return submission.job_id if submission else None


def _dependency(after: After, words: str) -> tuple[str, ...]:
    submission = read_submission(after.layout)
    if submission is None or submission.executor != "slurm" or submission.job_id is None:
        raise UserError(
            f"{after.layout.root}: {words}, which is no job of Slurm's that another one could "
            "wait for\n  Submit when it has ended, or with --executor local."
        )
    return depends(after.kind, [submission.job_id])
