"""A step compiled ahead of time for the CPU: by a process of its own, into a library that is kept.

The trainer traces the step and looks whether the library of this very program is in the user's
cache; else another process compiles it, so that the compiler and all that it takes of memory are
never in the trainer. Calling the library asks no guards and passes through no Python: with small
experts that is a fifth to a third of a step. Shapes are fixed by whoever calls it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from fusionrun.errors import NotCompiledError
from fusionrun.train.program import Program, library_name, traced
from fusionrun.train.whole_step import StepFunction, StepInputs, StepOutputs, tensors_of
from fusionrun.train.whole_update import Memory

__all__ = ["ahead", "library_of"]

_LONGEST_COMPILE_S: Final = 24 * 3600.0
Values = TypeVar("Values", Memory, StepInputs)
# A list of tensors to a list of tensors.
Library = Callable[[list[Tensor]], list[Tensor]]


def ahead(function: StepFunction, memory: Memory, given: StepInputs, folder: Path) -> StepFunction:
    """The function, compiled for this memory and for inputs of these forms.

    Args:
        function: of one step.
        memory: what it changes: the same tensors at every call.
        given: inputs of the forms that will come.
        folder: of libraries; the user's own.

    Raises:
        NotCompiledError: it cannot be compiled.
    """
    held = list(tensors_of(memory))

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        left = iter(tensors)
        return tuple(function(_filled(memory, left), _filled(given, left)))

    program, own = traced(flat, [*held, *tensors_of(given)])
    call = library_of(program, folder)

    def compiled(memory: Memory, given: StepInputs) -> StepOutputs:
        return StepOutputs(*call([*held, *tensors_of(given), *own]))

    return compiled


def _filled(values: Values, tensors: Iterator[Tensor]) -> Values:
    """The same with the next tensors in the places of its own, in the order of `tensors_of`."""

    def filled(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(next(tensors) for _ in value)
        return None if value is None else next(tensors)

    return type(values)(*map(filled, values))


def library_of(program: Program, folder: Path) -> Library:
    """What carries the program out; compiled here, or by an earlier run."""
    path = _kept(program, folder)
    if path is None:
        _compile(program, folder)
        path = _kept(program, folder)
    if path is None:
        raise NotCompiledError(f"what has just been compiled is not in {folder}")
    # Not by torch._inductor.aoti_load_package: it imports the compiler, and unpacks into a folder
    # that a killed process leaves behind.
    run: Library = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
    return run


def _kept(program: Program, folder: Path) -> Path | None:
    """Its library, if every byte is as it was written: a damaged one may kill who loads it."""
    for path in folder.glob(f"{program.key}-*.so"):
        if path.name == library_name(program, path):
            return path
        path.unlink(missing_ok=True)
    return None


def _compile(program: Program, folder: Path) -> None:
    """In another process; the library takes its place when it is whole."""
    _remove_leftovers(folder)
    command = [sys.executable, "-m", "fusionrun.train.compile_ahead", str(folder)]
    done = subprocess.run(
        command, input=program.to_json(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or f"it ended with {done.returncode}").splitlines()[-1]
        killer = signal.Signals(-done.returncode).name if done.returncode < 0 else ""
        raise NotCompiledError(said, killer)


def _remove_leftovers(folder: Path) -> None:
    """What compilers that were killed have left there, and not what others work in now."""
    for aside in folder.glob(".*"):
        with suppress(FileNotFoundError):  # (another process has removed it)
            if time.time() - aside.stat().st_mtime > _LONGEST_COMPILE_S:
                shutil.rmtree(aside, ignore_errors=True)
