"""What `--after RUN` means: which jobs to wait for, or that there is nothing to wait for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from fusionrun.errors import UserError
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import typed
from fusionrun.submit.journal import Executor, read_submission
from fusionrun.submit.standing import Standing, standing

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["NO_WAIT", "After", "Kind", "Wait", "depends", "listed", "wait_for"]

Kind = Literal["ok", "any"]


class After(NamedTuple):
    """What a run shall wait for.

    Attributes:
        layouts: the other run, or all of a sweep.
        kind: ok: until they have completed; any: until they have ended.
    """

    layouts: Sequence[RunLayout]
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
    """How to wait for other runs, given how they stand; those that have ended count as done.

    Args:
        after: the other runs.
        executor: who will carry out the one that waits.
        runs_dir: where the run that waits will lie.
        slurm: the cluster, for runs that were handed to it.
        asked: by `--after`; else by what the run is.

    Raises:
        UserError: one failed, and ok is asked for; or there is no way to wait for it.
    """
    found = [(run, standing(run, slurm)) for run in after.layouts]
    for run, stands in found:
        if after.kind == "ok" and not (stands.is_living or stands.is_complete):
            raise UserError(_has_ended(run, slurm, asked=asked))
    living = [(run, stands.words) for run, stands in found if stands.is_living]
    if not living:
        return Wait(None, (), f"{_ended_words(found)}: nothing to wait for")
    jobs = [_job(run, words, executor, runs_dir) for run, words in living]
    ids = [run.id for run, _ in living]
    what = {"run": ids[0]} if len(after.layouts) == 1 else {"runs": ids}
    has = "has" if len(ids) == 1 else "have"
    until = f"{has} {'completed' if after.kind == 'ok' else 'ended'}"
    here = f" ({living[0][1]})" if executor == "local" and len(ids) == 1 else ""
    arguments = depends(after.kind, jobs) if executor == "slurm" else ()
    return Wait({**what, "kind": after.kind}, arguments, f"starts when {listed(ids)} {until}{here}")


def _ended_words(found: Sequence[tuple[RunLayout, Standing]]) -> str:
    if len(found) == 1:
        ((run, stands),) = found
        return f"{run.id} has ended ({stands.words})"
    done = all(stands.is_complete for _, stands in found)
    return f"its {len(found)} runs have {'completed' if done else 'ended'}"


def _job(layout: RunLayout, words: str, executor: Executor, runs_dir: Path) -> str:
    """The job to wait for; without Slurm the run itself is watched."""
    if layout.root.resolve().parent != runs_dir.resolve():
        raise UserError(f"{layout.root}: lies elsewhere; --after takes runs beside the new one")
    if executor == "local":
        return ""
    submission = read_submission(layout)
    if submission is None or submission.executor != "slurm" or submission.job_id is None:
        raise UserError(
            f"{layout.root}: {words}, which is no job of Slurm's that another one could "
            "wait for\n  Submit when it has ended, or with --executor local."
        )
    return submission.job_id


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


def listed(ids: Sequence[str], most: int = 3) -> str:
    """The first few of several runs, and how many more there are."""
    shown = ", ".join(ids[:most])
    return shown if len(ids) <= most else f"{shown} and {len(ids) - most} more"


def depends(kind: str, job_ids: Sequence[str]) -> tuple[str, ...]:
    """The options of sbatch that let a job wait for others.

    A job whose dependency can never be met would wait for ever, unless told not to.
    """
    return (f"--dependency=after{kind}:{':'.join(job_ids)}", "--kill-on-invalid-dep=yes")
