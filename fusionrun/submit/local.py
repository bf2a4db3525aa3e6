"""The life of a run without Slurm: a supervisor of its own session, which outlives the terminal.

`python -m fusionrun.submit.local RUN_DIR` leaves one behind and prints its process id. The
supervisor starts the training as Slurm would, with the snapshot's code, appends what it says to
the run's log, and does afterwards what a batch script does (`after`). Its process group is the
run's: nothing else is in it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from fusionrun.errors import FusionrunError, SchedulerError
from fusionrun.slurm.clean import without_slurm
from fusionrun.store.atomic import make_folder, open_appending
from fusionrun.store.disk_errors import in_words, way_out
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status
from fusionrun.submit.journal import Job, Submission, add_event, now, read_submission, record_job
from fusionrun.submit.process import born

__all__ = ["environment", "leave_behind", "start"]

START_TIMEOUT_S: Final = 60
_POLL_S: Final = 1.0

# What another launcher would make several ranks of.
_RANKS: Final = frozenset(
    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
)


def start(layout: RunLayout, submission: Submission, module: str = "fusionrun.submit.local") -> str:
    """Leave a supervisor behind, with this process's environment; returns its process id.

    It has entered itself into the journal by then.

    Args:
        layout: the run, its journal written; of a sweep, the directory of its records.
        submission: that journal.
        module: what the supervisor runs.

    Raises:
        SchedulerError: it did not start.
    """
    argv = [submission.python, "-m", module, str(layout.root.absolute())]
    try:
        done = subprocess.run(
            argv,
            cwd=layout.root,
            env=environment(os.environ, submission),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SchedulerError(f"{layout.root}: the run did not start: {error}") from error
    if done.returncode or not done.stdout.strip():
        said = "\n  ".join(done.stderr.strip().splitlines()) or f"{layout.log} may say why"
        raise SchedulerError(f"{layout.root}: the run did not start\n  {said}")
    return done.stdout.strip()


def environment(around: Mapping[str, str], submission: Submission) -> dict[str, str]:
    """The run's environment: that of whoever submits, the snapshot's code first.

    Args:
        around: of whoever submits. What a Slurm job or another launcher has put there goes: the
            run is one process, and nobody's step.
        submission: says where modules are found.
    """
    kept = {k: v for k, v in without_slurm(around).items() if k not in _RANKS}
    path = os.pathsep.join(submission.pythonpath)
    # Without the flag a log would lie in a buffer until the end.
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def main() -> int:
    """Leave a supervisor behind and print its process id once the journal has it."""
    layout = RunLayout(Path(sys.argv[1]))
    return leave_behind(layout, lambda job: _enter(layout, job), lambda: _supervise(layout))


def _enter(layout: RunLayout, job: Job) -> None:
    record_job(layout, replace(job, attempt=read_status(layout).attempts + 1))


def leave_behind(layout: RunLayout, enter: Callable[[Job], object], work: Callable[[], int]) -> int:
    """Leave a process of its own session behind that does the work; prints its process id.

    Args:
        layout: has the log that the process writes.
        enter: writes the process into the journal; its id is printed after that.
        work: returns the process's exit code.
    """
    try:
        make_folder(layout.logs)
        log = open_appending(layout.log)
    except OSError as error:
        print(f"{in_words(error)}; {way_out(error)}", file=sys.stderr)
        return FusionrunError.exit_code
    ear, mouth = os.pipe()
    if os.fork():
        os.close(mouth)
        with os.fdopen(ear) as told:
            print(told.read(), flush=True)
        return 0
    os.setsid()
    os.close(ear)
    _become_supervisor(log, mouth, enter, work)


def _become_supervisor(
    log: int, mouth: int, enter: Callable[[Job], object], work: Callable[[], int]
) -> NoReturn:
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, stream in ((null, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, stream)
        pid = os.getpid()
        enter(Job(str(pid), now(), 0, socket.gethostname(), born(pid)))
        with os.fdopen(mouth, "w") as file:
            file.write(str(pid))
        code = work()
    except Exception:  # noqa: BLE001 (of a process that nobody waits for; the log has it)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)  # (the parent's exit handlers are the parent's)


def _supervise(layout: RunLayout) -> int:
    """Wait for what the run waits for, train, and do what comes after."""
    from fusionrun.submit.after import after

    try:
        if why := _was_cancelled(layout) or _waited_in_vain(layout) or _code_is_gone(layout):
            return _give_up(layout, why)
        code = _train(layout)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return after(layout, code, cancelled=False)
    except (FusionrunError, OSError) as error:
        print(f"fusionrun: {error}", flush=True)
        return 1


def _train(layout: RunLayout) -> int:
    """Run the training to its end; returns its exit code, 128 and more for a signal."""
    print(f"fusionrun: {layout.id} on {socket.gethostname()}, {now()}", flush=True)
    argv = [sys.executable, "-m", "fusionrun.job", str(layout.root)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:

        def pass_on(number: int, frame: FrameType | None) -> None:
            process.send_signal(number)

        signal.signal(signal.SIGTERM, pass_on)
        code = process.wait()
    return code if code >= 0 else 128 - code


def _was_cancelled(layout: RunLayout) -> str:
    """Whether somebody has cancelled a point of a sweep at the moment when its turn came."""
    submission = read_submission(layout)
    return "it was cancelled" if submission and submission.state == "cancelled" else ""


def _waited_in_vain(layout: RunLayout) -> str:
    """Wait for the runs that this one comes after; returns why it shall not begin, if so."""
    from fusionrun.submit.standing import standing

    submission = read_submission(layout)
    after: Mapping[str, Any] | None = submission.after if submission else None
    if not after:
        return ""
    for name in submission.awaited if submission else ():
        other = RunLayout(layout.root.absolute().parent / name)
        print(f"fusionrun: waits for {other.id}", flush=True)
        while (found := standing(other)).is_living:
            if layout.stop_request.exists():
                return "it was cancelled"
            time.sleep(_POLL_S)
        if after["kind"] == "ok" and not found.is_complete:
            return f"{other.id} did not complete ({found.words}), and this run waited for it"
    return ""


def _code_is_gone(layout: RunLayout) -> str:
    """Why the training would not run the snapshot: Python would take another fusionrun instead."""
    submission = read_submission(layout)
    first = submission.pythonpath[0] if submission and submission.pythonpath else ""
    return "" if os.path.isdir(first) else f"{first}: the snapshot of the code is gone"


def _give_up(layout: RunLayout, why: str) -> int:
    from fusionrun.store.status import mark_status
    from fusionrun.submit.journal import write_submission

    if submission := read_submission(layout):
        write_submission(layout, submission.changed("cancelled", why))
    layout.stop_request.unlink(missing_ok=True)
    mark_status(layout, "stopped")
    add_event(layout, "cancelled", why=why)
    print(f"fusionrun: {why}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
