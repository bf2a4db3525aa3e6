"""Run directories as trainers and submitters leave them, and the program run on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusionrun.slurm.parse import QueuedJob
from fusionrun.store.checkpoints import save_checkpoint
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import digest_of

# The program, with the commands under test whether or not they are in its list yet.
PROGRAM = """\
import sys

from fusionrun.cli import main

for name in ("status", "logs", "runs"):
    main.COMMANDS.setdefault(name, main.Command(f"fusionrun.cli.{name}", name))
main.main()
"""


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class Made:
    """A run directory, written piece by piece."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self.layout = RunLayout(root)
        steps = {"batches_per_epoch": 100, "fusion_steps": 6000}
        plan = {"format": 1, "steps": steps}
        self.layout.plan.write_text(json.dumps({**plan, "sha256": digest_of(plan)}))

    def status(self, state: str, *, age_s: float = 1.0, **more: Any) -> Made:
        now = time.time()
        content: dict[str, Any] = {
            "state": state,
            "epoch": 12,
            "step": 1200,
            "started": now - age_s - 600,
            "heartbeat": now - age_s,
            "attempts": 1,
            "pid": 4194305,  # above what Linux gives out
            "host": "elsewhere",
            "epochs": 60,
            "steps": 6000,
            "step_s": 0.5,
            "save_s": 0.1,
            "job_id": None,
        }
        self.layout.status.write_text(json.dumps({**content, **more}))
        return self

    def journal(
        self,
        state: str = "submitted",
        *,
        executor: str = "slurm",
        job_id: str | None = None,
        age_s: float = 600.0,
        **more: Any,
    ) -> Made:
        when = iso(time.time() - age_s)
        jobs = [{"id": job_id, "time": when, "attempt": 1, "host": "", "born": 0}]
        content = {
            "executor": executor,
            "state": state,
            "time": when,
            "job_id": job_id,
            "jobs": jobs if job_id else [],
            "words": "",
            "slurm": {"time": "04:00:00", "grace": 120},
        }
        self.layout.submission.write_text(json.dumps({**content, **more}))
        return self

    def outcome(self, outcome: str, reason: str | None = None) -> Made:
        content = {"attempt": 1, "outcome": outcome, "reason": reason, "epoch": 12, "step": 1200}
        self.layout.outcome.write_text(json.dumps(content))
        return self

    def event(self, what: str, *, age_s: float = 60.0, **details: Any) -> Made:
        with self.layout.events.open("a") as file:
            file.write(json.dumps({"time": iso(time.time() - age_s), "event": what, **details}))
            file.write("\n")
        return self

    def rank_error(
        self,
        rank: int,
        error: str,
        *,
        kind: str = "RuntimeError",
        age_s: float = 10.0,
        **more: Any,
    ) -> Made:
        self.layout.logs.mkdir(exist_ok=True)
        content = {
            "rank": rank,
            "host": f"n{rank + 1}",
            "time": iso(time.time() - age_s),
            "step": 1200,
            "kind": kind,
            "error": error,
            "traceback": f"Traceback (most recent call last):\n  …\n{kind}: {error}\n",
        }
        self.layout.rank_error(rank).write_text(json.dumps({**content, **more}))
        return self

    def log(self, text: str) -> Made:
        self.layout.logs.mkdir(exist_ok=True)
        self.layout.log.write_text(text)
        return self

    def stop(self, reason: str) -> Made:
        self.layout.stop_request.write_text(json.dumps({"reason": reason}))
        return self

    def checkpoint(self, step: int) -> Made:
        save_checkpoint(self.layout.checkpoints, step, [("weights", b"w" * 100)])
        return self

    def of_plan_aged(self, seconds: float) -> Made:
        then = time.time() - seconds
        os.utime(self.layout.plan, (then, then))
        return self


def job(state: str, **more: Any) -> QueuedJob:
    """A job of Slurm's, number 12."""
    content: dict[str, Any] = {
        "id": "12",
        "array_index": None,
        "state": state,
        "reason": "",
        "run_id": "run",
        "time_left_s": 3600,
        "start": None,
        "nodes": "n1",
        "restarts": 0,
    }
    return QueuedJob(**{**content, **more})


def fusionrun(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    argv = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(
        argv,
        env=dict(os.environ if env is None else env),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )
