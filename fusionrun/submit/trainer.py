"""Who trains a run, or is about to: what stands in the file that it locks while it does. No torch.

The lock itself is the kernel's (`lock`), and only who trains takes it. What is written there stays,
so that those who merely look learn who it was without touching the lock.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from fusionrun.regular import read_regular
from fusionrun.slurm.clean import own_handle
from fusionrun.store.layout import RunLayout
from fusionrun.store.lock import Held, locked
from fusionrun.store.status import MOST_PID
from fusionrun.submit.process import born

__all__ = ["Trainer", "announce", "last_trainer", "myself"]

_MOST_BYTES: Final = 4096


class Trainer(NamedTuple):
    """A process that trains a run, or did.

    Attributes:
        pid: its id.
        host: its machine.
        born: when it began, in the kernel's ticks; 0 when not known.
    """

    pid: int
    host: str
    born: int


def myself() -> Mapping[str, Any]:
    """What this process writes about itself."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "born": born(os.getpid()),
        "job_id": own_handle(os.environ) if "SLURM_JOB_ID" in os.environ else None,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def announce(layout: RunLayout) -> None:
    """This process is about to train the run: it only has to import torch, which takes seconds."""
    with suppress(Held, OSError), locked(layout.training_lock, myself()):
        pass


def last_trainer(layout: RunLayout) -> Trainer | None:
    """Who trained the run last, or announced it; None where nobody did, or it is not legible."""
    try:
        content = json.loads(read_regular(layout.training_lock, _MOST_BYTES))
        pid, host, born_at = content["pid"], content["host"], content.get("born", 0)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if type(pid) is not int or type(born_at) is not int or not isinstance(host, str):
        return None
    return Trainer(pid, host, born_at) if 0 < pid <= MOST_PID else None
