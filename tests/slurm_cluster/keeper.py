"""The process that holds a cluster's daemons and does not outlive whoever asked for them.

It adopts everything its daemons leave behind (job steps detach themselves), so that ending
means: end all that descends from here. It ends when its standard input closes or when its
parent is gone, whichever way the parent went. One JSON request a line, one JSON answer a line.
It knows nothing of Slurm.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import processes

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_END_TIMEOUT_S = 15.0
_libc = ctypes.CDLL(None, use_errno=True)


class Keeper:
    """Starts programs by name, tells how they fare, and ends them."""

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._codes: dict[int, int] = {}

    def answer(self, request: dict[str, Any]) -> Any:
        """Carry out one request and return what JSON can carry."""
        match request:
            case {"do": "spawn", "name": str(name), "argv": argv, "env": env, "console": console}:
                return self._spawn(name, argv, env, console)
            case {"do": "poll", "name": str(name)}:
                self.reap()
                return self._codes.get(self._pids[name])
            case {"do": "end", "name": str(name), "signal": int(signum)}:
                return self._end(self._pids[name], signum)
        raise ValueError(f"unknown request {request!r}")

    def reap(self) -> None:
        """Collect every child that has ended, adopted ones too, lest they stay as zombies."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._pids.values():
                self._codes[pid] = os.waitstatus_to_exitcode(status)

    def end_all(self) -> set[int]:
        """Kill all that descends from here, and return what would not go."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        # The controller goes first of all: it would only start again what is killed here.
        processes.end(pid for pid in self._pids.values() if pid not in self._codes)
        while left := self._living():
            if time.monotonic() > deadline:
                return left
            processes.end(left)
            time.sleep(0.01)
        return set()

    def _living(self) -> set[int]:
        self.reap()
        return processes.descendants([os.getpid()])

    def _spawn(self, name: str, argv: list[str], env: dict[str, str], console: str) -> int:
        with open(console, "ab") as out:
            child = subprocess.Popen(
                argv,
                env=env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        child.returncode = 0  # reap() collects it; this keeps Popen from looking for it
        self._pids[name] = child.pid
        self._codes.pop(child.pid, None)
        return child.pid

    def _end(self, pid: int, signum: int) -> bool:
        """Send a signal and wait; kill what does not heed it in time. True if it heeded."""
        processes.end([pid] if pid not in self._codes else [], signum)
        deadline = time.monotonic() + _END_TIMEOUT_S
        while pid not in self._codes:
            if time.monotonic() > deadline:
                processes.end([pid])
            time.sleep(0.01)
            self.reap()
        return time.monotonic() <= deadline


def _die_with_parent() -> None:
    """Have the kernel end this daemon should the keeper itself be killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _serve(keeper: Keeper, parent: int, wakeup: int) -> None:
    """Answer requests until the parent says so, closes its end or is gone."""
    buffer = b""
    while os.getppid() == parent:
        ready, _, _ = select.select([0, wakeup], [], [], 1.0)
        if wakeup in ready:
            os.read(wakeup, 4096)
        keeper.reap()
        if 0 not in ready:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, buffer = (buffer + chunk).split(b"\n")
        for request in map(json.loads, lines):
            if request == {"do": "finish"}:
                return
            print(json.dumps(keeper.answer(request)), flush=True)


def _wake_on_child() -> int:
    """Return a descriptor that becomes readable whenever a child ends."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def main(root: Path, parent: int, *, remove_root: bool) -> int:
    """Keep the cluster in `root` until the parent lets go; 1 if something would not end."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A handler, for what is ignored here would be ignored by every job too.
        signal.signal(signum, lambda *_: sys.exit(1))
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    keeper = Keeper()
    try:
        _serve(keeper, parent, _wake_on_child())
    finally:
        left = keeper.end_all()
        if remove_root:
            shutil.rmtree(root, ignore_errors=True)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), remove_root="--remove-root" in sys.argv[3:]))
