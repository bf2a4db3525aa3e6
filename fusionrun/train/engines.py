"""How a step is carried out: call by call, as one compiled graph, or as that graph captured.

Owns which engine a run takes, and what the compiled ones need besides the function itself: one
graph for each kind of batch, a cache in the user's directory, a way back to the plain step for a
batch of another shape. The engine is part of what an exact resume compares.

On a CPU a graph is compiled ahead of time, by another process (`train.ahead`); on a GPU by
`torch.compile`, here. All that these import is touched only where a compiled engine is asked for.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from fusionrun.errors import NotCompiledError, UserError
from fusionrun.outside import cache_dir
from fusionrun.plan.plan import Plan
from fusionrun.train.ahead import ahead
from fusionrun.train.captured import Captured
from fusionrun.train.norms import StepRecord
from fusionrun.train.ranks import Ranks
from fusionrun.train.step import Ask, Step, StepLog, TakeStep
from fusionrun.train.whole_step import StepFunction, StepInputs, memory_of, tensors_of, whole_step
from fusionrun.train.whole_update import Memory

__all__ = [
    "TOGETHER",
    "CapturedStep",
    "CompiledStep",
    "engine_of",
    "take_step",
    "why_engine",
]

TOGETHER: Final = "eager, several runs together"
"""Of a run whose steps are computed together with those of others: see `train.several`."""


# Whether a batch opens its window, whether it closes it, whose features come with it.
Kind = tuple[bool, bool, tuple[str, ...]]

_CACHE: Final = "TORCHINDUCTOR_CACHE_DIR"
_COMPILERS: Final = ("torch._dynamo", "torch._inductor", "torch._subclasses", "torch.fx")


def engine_of(plan: Plan, device: torch.device, ranks: Ranks) -> str:
    """The engine that carries out a plan's steps here: `eager`, `compiled` or `cudagraph`.

    One that the plan has by rule is left for eager where this machine cannot do it; one that a
    person asked for is not.

    Raises:
        UserError: it was asked for, and cannot be had here.
    """
    engine, decided = plan["training.engine"], plan.values["training.engine"].source
    if engine == "eager" or not (missing := _missing(engine, device, ranks)):
        return str(engine)
    if decided == "rule":
        return "eager"
    raise UserError(
        f"training.engine: got {engine!r}, which needs {missing}; expected auto or eager here"
    )


def why_engine(plan: Plan, engine: str, device: torch.device, ranks: Ranks) -> str:
    """Why a run has its engine: the plan's reason, or what the plan's engine lacks here."""
    wanted = plan["training.engine"]
    if engine in (wanted, TOGETHER):
        return plan.values["training.engine"].why
    return f"auto: {wanted} needs {_missing(wanted, device, ranks)}"


def _missing(engine: str, device: torch.device, ranks: Ranks) -> str:
    """What an engine needs and this run does not have, or nothing."""
    if ranks.size > 1:
        return f"a run of one process, and this one has {ranks.size}"
    if engine == "cudagraph" and device.type != "cuda":
        return "a CUDA device"
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        return f"a C++ compiler, and there is no {compiler} on PATH"
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    if not headers.exists():
        return f"Python's headers, and there is no {headers}"
    return _no_cache()


def _no_cache() -> str:
    """Why the libraries of compiled steps cannot be kept, or nothing."""
    where = "a cache to write to (FUSIONRUN_CACHE says where)"
    try:
        folder = _own_cache()
    except OSError as error:
        return f"{where}: {error.filename}: {error.strerror}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{where}, and {folder} is none"


def take_step(engine: str, step: Step, rows: int) -> TakeStep:
    """What takes the batches of a run.

    Args:
        engine: as `engine_of` gives it.
        step: the run's.
        rows: of a full batch.
    """
    if engine == "eager":
        return lambda ask: step(*ask)
    _own_cache()
    return (CapturedStep if engine == "cudagraph" else CompiledStep)(step, rows)


def _own_cache() -> Path:
    """Compiled code goes to the user's cache, where nobody else can put any; by default torch
    takes a folder in /tmp, whose name anyone can guess.
    """
    folder = cache_dir() / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # (it may have been there before, of another mode)
    os.environ.setdefault(_CACHE, str(folder))
    return folder


def _told(error: Exception) -> Exception:
    """The error of a step; one of the compiler's, or of who traces for it, in words of ours."""
    if not type(error).__module__.startswith(_COMPILERS):
        return error
    return NotCompiledError(str(error).strip().partition("\n")[0])


class CompiledStep:
    """Steps through compiled graphs of one batch size; batches of another go call by call.

    A graph is compiled when the first batch of its kind comes, by taking that batch: there is no
    warm-up, and so nothing to undo.

    Args:
        step: what is compiled, and what takes the other batches.
        rows: of a batch.
    """

    def __init__(self, step: Step, rows: int) -> None:
        self._step, self._rows = step, rows
        self._memory = memory_of(step)
        self._graphs: dict[tuple[Any, ...], StepFunction] = {}
        self._shares: dict[int, Tensor] = {}

    def __call__(self, ask: Ask) -> StepLog:
        """Take one batch."""
        updater, batch, known = self._step.updater, ask.batch, ask.known or {}
        # (a batch after which nothing steps is for the plain step, too)
        if len(batch.labels) != self._rows or not updater.due(updater.closes(ask.last_in_epoch)):
            return self._step(*ask)
        opens, closes, number = updater.takes(ask.last_in_epoch)
        given = StepInputs(
            tuple(batch.inputs),
            batch.goal,
            batch.present,
            batch.weights,
            tuple(known.values()),
            self._step.weights.tensor,
            updater.calls.scales(),
            self._share(number),
        )
        memory = self._memory
        try:
            graph = self._graph((opens, closes, tuple(known)), memory, given)
            terms, experts, overall, norms, updater.left_out = graph(memory, given)
        except Exception as error:
            raise _told(error) from error
        self._step.weights.learn(terms, 1.0, updater.left_out)
        if ask.last_in_epoch:
            updater.check()
        record = StepRecord(tuple(group.name for group in updater.due(closes)), norms)
        return StepLog(terms, experts, overall, record, self._rows)

    def _share(self, batches: int) -> Tensor:
        """One over the batches in the window, () on the device, made once for each number."""
        if batches not in self._shares:
            self._shares[batches] = self._step.updater.flat.new_tensor(1.0 / batches)
        return self._shares[batches]

    @property
    def num_graphs(self) -> int:
        """Kinds of batches that came so far, but for those that go call by call."""
        return len(self._graphs)

    def _graph(self, batch: Kind, memory: Memory, given: StepInputs) -> StepFunction:
        """The graph of such a batch, as long as the same components move."""
        moves = self._step.updater.calls.moves
        forms = [(t.shape, t.stride(), t.dtype) for t in tensors_of(given)]
        key = (batch, self._step.losses, self._step.network.frozen, moves, *forms)
        if key not in self._graphs:
            self._graphs[key] = self._made(whole_step(self._step, *batch), memory, given)
        return self._graphs[key]

    def _made(self, function: StepFunction, memory: Memory, given: StepInputs) -> StepFunction:
        if self._step.device.type == "cpu":
            return ahead(function, memory, given, _own_cache())
        # Dropout draws as the plain step does; a graph of this one shape.
        options: dict[str, Any] = {"fallback_random": True}
        return torch.compile(function, fullgraph=True, dynamic=False, options=options)


class CapturedStep(CompiledStep):
    """The same, each graph captured on the device when its first batch comes."""

    def _made(self, function: StepFunction, memory: Memory, given: StepInputs) -> StepFunction:
        return Captured(super()._made(function, memory, given), memory, given)
