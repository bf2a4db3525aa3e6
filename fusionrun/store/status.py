"""`status.json`: how a run stands, replaced atomically; readable without torch."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from typing import Literal

from fusionrun.store.atomic import write_json
from fusionrun.store.layout import RunLayout

State = Literal["prepared", "running", "completed", "failed", "interrupted"]


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Attributes:
        state: prepared, running, completed, failed or interrupted.
        epoch: epochs done.
        step: steps done.
        started: seconds since 1970 when the first attempt began.
        heartbeat: likewise when this was written.
        attempts: how often the run was started.
        pid: the process that trains.
        host: the machine it trains on.
    """

    state: State
    epoch: int = 0
    step: int = 0
    started: float = 0.0
    heartbeat: float = 0.0
    attempts: int = 0
    pid: int = 0
    host: str = ""

    def is_alive(self) -> bool:
        """Whether the training process still exists, as far as this machine can see."""
        if self.state != "running" or self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def write_status(layout: RunLayout, state: State, *, epoch: int, step: int, attempts: int) -> None:
    """Record how the run stands now, by this process."""
    now, before = time.time(), read_status(layout).started
    host = socket.gethostname()
    status = Status(state, epoch, step, before or now, now, attempts, os.getpid(), host)
    write_json(layout.status, asdict(status))


def read_status(layout: RunLayout) -> Status:
    """How a run stands; `prepared` where no process has begun it, or the file is unreadable."""
    try:
        return Status(**json.loads(layout.status.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Status("prepared")
