"""What `--after RUN` means: which job to wait for, or that there is nothing to wait for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fusionrun.errors import UserError
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import typed
from fusionrun.submit.journal import Executor, read_submission
from fusionrun.submit.standing import standing

if TYPE_CHECKING:
    from fusionrun.slurm.client import Slurm

__all__ = ["NO_WAIT", "After", "Kind", "Wait", "wait_for"]

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

    after: dict[str, str] | None
    arguments: tuple[str, ...]
    words: str


NO_WAIT: Final = Wait(None, (), "")
"""There was nothing to wait for from the first."""


def wait_for(after: After, executor: Executor, runs_dir: Path, slurm: Slurm | None) -> Wait:
    """How to wait for another run, given how it stands.

    Args:
        after: the other run.
        executor: who will carry out the one that waits.
        runs_dir: where the run that waits will lie.
        slurm: the cluster, for runs that were handed to it.

    Raises:
        UserError: it failed, and ok is asked for; or there is no way to wait for it.
    """
    layout, kind = after
    found = standing(layout, slurm)
    if not found.is_living:
        if kind == "ok" and not found.is_complete:
            raise UserError(
                f"{layout.root}: --after waits for a run that completes, and this one has ended: "
                f"{found.words}\n  `{typed(layout, 'resume')}` lets it go on; "
                "--after-any does not mind"
            )
        return Wait(None, (), f"{layout.id} has ended ({found.words}): nothing to wait for")
    if layout.root.resolve().parent != runs_dir.resolve():
        raise UserError(f"{layout.root}: lies elsewhere; --after takes runs beside the new one")
    what = {"run": layout.id, "kind": kind}
    until = "completed" if kind == "ok" else "ended"
    if executor == "local":
        return Wait(what, (), f"starts when {layout.id} has {until} ({found.words})")
    return Wait(what, _dependency(after, found.words), f"starts when {layout.id} has {until}")


def _dependency(after: After, words: str) -> tuple[str, ...]:
    submission = read_submission(after.layout)
    if submission is None or submission.executor != "slurm" or submission.job_id is None:
        raise UserError(
            f"{after.layout.root}: {words}, which is no job of Slurm's that another one could "
            "wait for\n  Submit when it has ended, or with --executor local."
        )
    # A job whose dependency can never be met would wait for ever, unless told not to.
    return (f"--dependency=after{after.kind}:{submission.job_id}", "--kill-on-invalid-dep=yes")
