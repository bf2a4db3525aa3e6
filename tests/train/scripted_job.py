"""Jobs that meet their fate at an exact step: killed, asked to stop, killed in mid-save.

The job is the real one; only its step boundaries are told when to save and what to do. `started`
runs it in a process of its own, forked from a server that has imported torch once.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import fusionrun.job
from fusionrun.slurm.rendezvous import meeting_port
from fusionrun.store import checkpoints
from fusionrun.store.layout import RunLayout
from fusionrun.train import attempt, boundary, stop
from fusionrun.train.epochs import Epochs

_port_seeds = count(os.getpid() * 37)


class Script(NamedTuple):
    """What happens before which step.

    Attributes:
        saves: a checkpoint is due, and written before the step is taken.
        kill: SIGKILL.
        kill_in_save: SIGKILL when the checkpoint of that step is half written.
        stop: someone writes the stop file.
        reason: into it.
        signals: the process sends itself this signal.
        fail: an error is raised.
        poison: the gradient gets a number that is none.
        block: from then on a file stands where checkpoints have to go, so that none can.
    """

    saves: tuple[int, ...] = ()
    kill: int | None = None
    kill_in_save: int | None = None
    stop: int | None = None
    reason: str = "time_limit"
    signals: tuple[int, int] | None = None
    fail: int | None = None
    poison: tuple[int, ...] = ()
    block: int | None = None


@contextmanager
def obeyed(script: Script, layout: RunLayout) -> Iterator[None]:
    """Jobs in this process follow the script while the block runs."""

    class Scripted(boundary.Boundary):
        def __call__(self, epochs: Epochs) -> None:
            at = epochs.steps
            if at == script.fail:
                raise RuntimeError("told to fail")
            if at in script.poison:
                self._step.updater.grad[0] = float("nan")
            if at == script.block:
                layout.checkpoints.write_text("a file where the directory has to go")
            if at == script.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if at == script.stop and self._ranks.is_first:
                layout.stop_request.write_text(json.dumps({"reason": script.reason}))
            if script.signals and at == script.signals[0]:
                os.kill(os.getpid(), script.signals[1])
            saves = at in script.saves or at == script.kill_in_save
            due = saves and self._ranks.is_first
            self._saver.is_due = lambda steps: due  # type: ignore[method-assign]
            dying = half_written() if at == script.kill_in_save else mock.Mock(**NOTHING)
            with dying:
                super().__call__(epochs)
                self._saver.wait()

    with (
        mock.patch.object(attempt, "Boundary", Scripted),
        mock.patch.object(boundary, "LOOK_EVERY_S", 0.0),
        mock.patch.object(stop, "LOOK_EVERY_S", 0.0),
    ):
        yield


NOTHING = {"__enter__": mock.Mock(), "__exit__": mock.Mock(return_value=False)}


@contextmanager
def half_written() -> Iterator[None]:
    """The third file of a checkpoint is the process's end."""
    written = count()
    whole = checkpoints._write

    def write(path: Path, content: bytes) -> object:
        if next(written) == 2:
            path.write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(path, content)

    with mock.patch.object(checkpoints, "_write", write):
        yield


UNDISTURBED = Script()


def started(layout: RunLayout, script: Script = UNDISTURBED, *, size: int = 1) -> list[int | None]:
    """Run `python -m fusionrun.job` in processes of their own; returns their exit codes.

    Args:
        layout: the run.
        script: what happens to it; with several ranks, to each.
        size: how many ranks.
    """
    context = multiprocessing.get_context("forkserver")
    # (this module too, where the server finds it: it has not our search path before Python 3.12)
    context.set_forkserver_preload(["fusionrun.train.job", "fusionrun.job", __name__])
    port = str(meeting_port({"SLURM_JOB_ID": str(next(_port_seeds))}))
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "FUSIONRUN_RANK_TIMEOUT_S": "60"}
    places = [{"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(size)} for r in range(size)]
    processes = [
        context.Process(target=_enter, args=(layout, script, {**group, **place}))
        for place in places
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _enter(layout: RunLayout, script: Script, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with obeyed(script, layout):
        code = fusionrun.job.main([str(layout.root)])
    os._exit(code)
