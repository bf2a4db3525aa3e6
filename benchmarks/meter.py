"""What every engine calls before each of its steps; it holds the engine back between two rounds.

The first `LOSS_STEPS` steps are for the loss that they lead to, and warm the engine up. From there
on the process waits on its standard input for a number of steps, lets the engine take them, and
prints how long they took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from fusionrun.profiling.machine import synchronize

LOSS_STEPS = 100

P = ParamSpec("P")
T = TypeVar("T")


class Meter:
    """Counts steps.

    Args:
        loss: of the network as it is now, on all training rows; None: it is another model.
        device: that is waited for before the clock is read.
    """

    def __init__(self, loss: Callable[[], float] | None, device: torch.device) -> None:
        self._loss, self._device = loss, device
        self._left = LOSS_STEPS
        self._steps = 0  # of the round; 0 in the steps before the first
        self._wall = self._cpu = self._in_steps = 0.0

    def __call__(self) -> None:
        if self._left:
            self._left -= 1
            return
        synchronize(self._device)
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.ended(wall, cpu)
        self._steps = self.wanted()
        self._left = self._steps - 1
        self._in_steps = 0.0
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def of_the_step(self, call: Callable[P, T]) -> Callable[P, T]:
        """`call`, its time counted as one that a bare step takes as well."""

        def counted(*given: P.args, **named: P.kwargs) -> T:
            began = time.perf_counter()
            try:
                return call(*given, **named)
            finally:
                self._in_steps += time.perf_counter() - began

        return counted

    def ended(self, wall_s: float, cpu_s: float) -> None:
        """A round is over, or the steps before the first."""
        if self._steps:
            seconds = {"wall_s": wall_s, "cpu_s": cpu_s, "in_steps_s": self._in_steps}
            say({name: all_of_them / self._steps for name, all_of_them in seconds.items()})
        else:
            say({"loss": None if self._loss is None else self._loss()})

    def wanted(self) -> int:
        """How many steps are to be taken next; the process ends where there are no more."""
        line = sys.stdin.readline().strip()
        if not line:
            say({"peak_bytes": peak_bytes()})
            sys.stdout.flush()
            os._exit(0)  # out of whatever loop this was called in
        return int(line)


def say(what: dict[str, object]) -> None:
    """To the process that leads the rounds."""
    print("\x1e" + json.dumps(what), flush=True)


def peak_bytes() -> int:
    """The most that this process has held resident."""
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
