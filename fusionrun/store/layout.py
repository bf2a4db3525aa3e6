"""Every path of a run directory, decided in one place. Nothing here touches the disk.

No other module may spell a file name of a run: it asks a `RunLayout`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal, TypeAlias

from fusionrun.errors import ComponentError, Problem

__all__ = ["MANIFEST", "RunLayout", "Which", "component_path", "run_id", "slug"]

Which: TypeAlias = Literal["best", "last"]
"""The epoch chosen on the validation split, or the one training ended with."""

MANIFEST: Final = "manifest.json"
SLUG_LENGTH: Final = 64

# The schema's NAME_PATTERN, restated because importing it would import pydantic; a test compares.
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
_COMPONENT: Final = re.compile(rf"{_NAME}(\.{_NAME})?")


@dataclass(frozen=True)
class RunLayout:
    """The paths of one run.

    Attributes:
        root: the run's directory. It need not exist.
    """

    root: Path

    @property
    def id(self) -> str:
        """The run's id: the name of its directory."""
        return os.path.basename(os.path.abspath(self.root))

    @property
    def recipe(self) -> Path:
        """The user's text, unchanged."""
        return self.root / "recipe.yaml"

    @property
    def plan(self) -> Path:
        """Every resolved value with its reason. A directory that has one is a run."""
        return self.root / "plan.json"

    @property
    def start(self) -> Path:
        """Which weights of other runs its experts began with, and what these were worth alone."""
        return self.root / "start.json"

    @property
    def environment(self) -> Path:
        """Versions, commit, host and devices."""
        return self.root / "environment.json"

    @property
    def status(self) -> Path:
        """State, epoch, heartbeat; replaced atomically."""
        return self.root / "status.json"

    @property
    def events(self) -> Path:
        """One JSON line for each thing that happened."""
        return self.root / "events.jsonl"

    @property
    def metrics(self) -> Path:
        """One JSON line for each epoch."""
        return self.root / "metrics.jsonl"

    @property
    def results(self) -> Path:
        """The final table."""
        return self.root / "results.json"

    @property
    def job_script(self) -> Path:
        """What was queued."""
        return self.root / "job.sbatch"

    @property
    def logs(self) -> Path:
        """Directory of what the job said."""
        return self.root / "logs"

    @property
    def log(self) -> Path:
        """What the job printed, all attempts one after the other."""
        return self.logs / "job.log"

    def rank_error(self, rank: int) -> Path:
        """The first error of one rank, of the attempt that goes on or has ended last."""
        return self.logs / f"rank-{rank}.error.json"

    @property
    def submission(self) -> Path:
        """Who was asked to run it, as which job, from which snapshot: the submitter's journal."""
        return self.root / "submission.json"

    @property
    def points(self) -> Path:
        """Of an array's directory: the run directories of its tasks, one a line."""
        return self.root / "points.txt"

    @property
    def handing_lock(self) -> Path:
        """Held by whoever hands the run to Slurm or a supervisor."""
        return self.root / ".handing"

    @property
    def training_lock(self) -> Path:
        """Held by the process that trains the run, for as long as it lives."""
        return self.root / ".training"

    @property
    def inexact_allowed(self) -> Path:
        """There while the run may go on under circumstances that change its bits."""
        return self.root / "inexact.json"

    @property
    def stop_request(self) -> Path:
        """There while the run is asked to save and stop at its next step."""
        return self.root / "stop.json"

    @property
    def outcome(self) -> Path:
        """How the last attempt ended, by the trainer's own word."""
        return self.root / "outcome.json"

    @property
    def checkpoints(self) -> Path:
        """Directory of what an exact resume needs."""
        return self.root / "checkpoints"

    @property
    def all_components(self) -> Path:
        """Directory that holds `best` and `last`."""
        return self.root / "components"

    def components(self, which: Which) -> Path:
        """Directory of one set of component files with its manifest."""
        return self.all_components / which

    def component(self, which: Which, name: str) -> Path:
        """File of one component. Raises ComponentError when no component can bear the name."""
        return self.components(which) / component_path(name)

    def manifest(self, which: Which) -> Path:
        """What `components(which)` holds, with hashes."""
        return self.components(which) / MANIFEST


def component_path(name: str) -> PurePosixPath:
    """A component's file, relative to its components directory.

    `experts.fourier` is `experts/fourier.safetensors`, `fusion` is `fusion.safetensors`.

    Raises:
        ComponentError: the name could lead out of the directory, or is not a component's.
    """
    if not _COMPONENT.fullmatch(name):
        expected = "experts.NAME, heads.NAME, fusion or global_head"
        raise ComponentError(Problem(None, "component", repr(name), expected))
    return PurePosixPath(name.replace(".", "/") + ".safetensors")


def slug(name: str) -> str:
    """A recipe's name as a part of a file name that no shell and no path can misread.

    Letters, digits, `.` and `_` stay, accents are dropped, and any other stretch becomes one `-`.
    Never empty, hidden, longer than 64 characters, nor like an option. A name without a
    single Latin letter or digit becomes `run`: the plan's hash in the id still tells it apart.
    """
    ascii_only = unicodedata.normalize("NFKD", name)
    ascii_only = "".join(c for c in ascii_only if not unicodedata.combining(c))
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", ascii_only).lstrip("-._")
    return safe[:SLUG_LENGTH].rstrip("-._") or "run"


def run_id(name: str, plan_hash: str, seed: int) -> str:
    """`<slug>-<8 hex of the plan's content>-s<seed>`.

    Args:
        name: the recipe's name, any text.
        plan_hash: hexadecimal digest of the plan, at least 8 digits.
        seed: the run's seed.
    """
    if not re.fullmatch(r"[0-9a-f]{8,}", plan_hash):
        raise ValueError(f"a plan's hash is 8 or more hexadecimal digits, not {plan_hash!r}")
    return f"{slug(name)}-{plan_hash[:8]}-s{seed}"
