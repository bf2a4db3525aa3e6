"""Some steps of a recipe's trainer: first undisturbed, for the pace; then under torch's profiler.

Nothing is written but the trace, where one is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch.profiler import ProfilerActivity, schedule
from torch.profiler import profile as torch_profile
from torch.utils.flop_counter import FlopCounterMode

from fusionrun.plan.plan import Plan
from fusionrun.profiling.machine import PeakMemory, matmul_peak, synchronize
from fusionrun.profiling.ranges import Ranges, parts_of
from fusionrun.profiling.timeline import PHASES, PHASES_OF_WHOLE, Timeline, timeline
from fusionrun.train.bare import BareTrainer, bare_trainer
from fusionrun.train.engines import CompiledStep
from fusionrun.train.epochs import Epochs
from fusionrun.train.step import DTYPES
from fusionrun.train.where import Where

__all__ = ["ComponentTime", "PhaseTime", "Profile", "profile"]

WARM_STEPS: Final = 10
"""Until memory is allocated and kernels are chosen (assumed)."""

WARM_PROFILED_STEPS: Final = 2
"""The first steps under the profiler pay for its own start."""


@dataclass(frozen=True)
class PhaseTime:
    """One phase of a step.

    Attributes:
        phase: its name.
        ms: of the host, a step.
        share: of the step's time.
        device_ms: of the GPU, a step; None where there is none.
    """

    phase: str
    ms: float
    share: float
    device_ms: float | None


@dataclass(frozen=True)
class ComponentTime:
    """One component's part of forward and backward.

    Attributes:
        component: its name; also the losses, and what the network does around its components.
        forward_ms: a step; on a GPU the device's time, else the host's.
        backward_ms: likewise.
        share: of forward and backward of all of them.
    """

    component: str
    forward_ms: float
    backward_ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What a profile found.

    Attributes:
        name: of the recipe.
        device: where it trained, in words.
        threads: of the host.
        engine: how steps are carried out.
        precision: of the forward pass.
        stage: the last one of the recipe's; None: it has none.
        steps: that were timed, and as many were profiled.
        batch_rows: samples a step.
        epoch_ends_included: an epoch has one batch, so that its end is in the time of a step.
        step_ms: a step, undisturbed.
        steps_per_s: likewise.
        samples_per_s: likewise.
        profiled_step_ms: a step under the profiler; shares are of it.
        step_flop: of the matrix products and convolutions of forward and backward.
        flop_per_s: of the undisturbed steps.
        peak_flop_per_s: of a matrix product of the precision's type, measured here.
        share_of_peak: the one by the other.
        peak_memory_growth: bytes, over what the process held before it loaded the data.
        phases: in a step's order.
        components: in the recipe's order; none where the step is one graph.
        trace: the file that was written; None: none was asked for.
    """

    name: str
    device: str
    threads: int
    engine: str
    precision: str
    stage: str | None
    steps: int
    batch_rows: int
    epoch_ends_included: bool
    step_ms: float
    steps_per_s: float
    samples_per_s: float
    profiled_step_ms: float
    step_flop: int
    flop_per_s: float
    peak_flop_per_s: float
    share_of_peak: float
    peak_memory_growth: int
    phases: tuple[PhaseTime, ...]
    components: tuple[ComponentTime, ...]
    trace: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def profile(plan: Plan, steps: int, trace: Path | None = None) -> Profile:
    """Profile a plan's trainer on this machine.

    Args:
        plan: what to train; it trains here, in one process.
        steps: so many are timed, and as many more are profiled.
        trace: the Chrome trace to write, for Perfetto.

    Raises:
        UserError: the device is not there.
        DataError: the data cannot be read.
        TrainingError: a loss or a gradient is not finite.
    """
    before = PeakMemory(_device(plan))
    trainer = bare_trainer(plan)
    script = _Script(trainer, steps, before)
    script.run()
    if trace is not None:
        script.profiler.export_chrome_trace(str(trace))
    on_cuda = trainer.device.type == "cuda"
    components = tuple(parts_of(trainer.step.network))
    events = script.profiler.events()  # type: ignore[no-untyped-call]
    found = timeline(events, components, on_cuda=on_cuda)
    return _profile(trainer, script, found, trace)


def _device(plan: Plan) -> torch.device:
    from fusionrun.train.assemble import choose_device

    return choose_device(plan.settings.training.device)


class _Enough(Exception):
    """All steps were taken."""


class _Pace(NamedTuple):
    steps: int
    seconds: float
    whole_epochs: bool


class _Script:
    """What happens before each step: called by the epochs, it goes on to the next `yield`."""

    def __init__(self, trainer: BareTrainer, steps: int, memory: PeakMemory) -> None:
        self._trainer, self._steps, self._memory = trainer, steps, memory
        self._ranges = Ranges(trainer)
        self._epochs: Epochs | None = None
        activities = [ProfilerActivity.CPU]
        if trainer.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        turns = schedule(wait=0, warmup=WARM_PROFILED_STEPS, active=steps, repeat=1)
        self.profiler = torch_profile(activities=activities, schedule=turns, acc_events=True)
        self.pace = _Pace(0, 0.0, False)
        self.memory_growth = 0

    def run(self) -> None:
        """Take all steps: those that are timed, then, with ranges, those that are profiled."""
        self._take(self._undisturbed())
        with self._ranges.on(), self.profiler:
            self._take(self._profiled())

    def _take(self, script: Iterator[None]) -> None:
        """Train until a script is over: over again, where the recipe has fewer steps."""

        def between_steps(epochs: Epochs) -> None:
            self._epochs = epochs
            if next(script, "over") == "over":
                raise _Enough

        stages = self._trainer.plan.stages
        with suppress(_Enough):
            while True:
                epochs = self._trainer.epochs(between_steps)
                epochs.where = Where(stages[-1].first_epoch if stages else 0)
                epochs.run()

    def _undisturbed(self) -> Iterator[None]:
        for _ in range(WARM_STEPS):
            yield
        yield from self._timed()
        self.memory_growth = self._memory.growth()

    def _profiled(self) -> Iterator[None]:
        for _ in range(WARM_PROFILED_STEPS + self._steps):
            self._ranges.around_log(self._now.log)
            yield
            synchronize(self._trainer.device)
            self.profiler.step()

    def _timed(self) -> Iterator[None]:
        """Time stretches of steps within an epoch, as wholes: a GPU works behind our back.

        Begins again where a step was the first of its kind, and compiled: of a window, or of an
        epoch, which may have more batches than were taken to warm up.
        """
        last, graphs = self._trainer.num_batches - 1, self._num_graphs
        steps, seconds, began, start = 0, 0.0, self._clock(), self._batch
        while steps < self._steps:
            yield
            batch = self._batch
            if self._num_graphs > graphs:
                graphs = self._num_graphs
                steps, seconds, began, start = 0, 0.0, self._clock(), batch
            elif last == 0:  # every step ends an epoch, and there is nothing else to time
                steps, seconds = steps + 1, self._clock() - began
            elif batch == 0:
                began, start = self._clock(), 0
            elif batch == last or steps + batch - start == self._steps:
                now = self._clock()
                steps, seconds = steps + batch - start, seconds + now - began
                began, start = now, batch
        self.pace = _Pace(steps, seconds, last == 0)

    @property
    def _now(self) -> Epochs:
        assert self._epochs is not None
        return self._epochs

    @property
    def _batch(self) -> int:
        """Batches done of the epoch."""
        return self._now.where.batch

    @property
    def _num_graphs(self) -> int:
        """Kinds of steps that were compiled so far."""
        take = self._trainer.take
        return take.num_graphs if isinstance(take, CompiledStep) else 0

    def _clock(self) -> float:
        synchronize(self._trainer.device)
        return time.perf_counter()


def _profile(trainer: BareTrainer, script: _Script, found: Timeline, trace: Path | None) -> Profile:
    settings, device = trainer.plan.settings.training, trainer.device
    steps, seconds, whole_epochs = script.pace
    eager = trainer.engine == "eager"
    step_flop = _step_flop(trainer)
    dtype = DTYPES.get(settings.precision, torch.float32)
    peak = matmul_peak(device, dtype)
    flop_per_s = step_flop * steps / seconds
    return Profile(
        name=trainer.plan.name,
        device=_in_words(device),
        threads=torch.get_num_threads(),
        engine=trainer.engine,
        precision=settings.precision,
        stage=trainer.plan.stages[-1].stage if trainer.plan.stages else None,
        steps=steps,
        batch_rows=trainer.batch_rows,
        epoch_ends_included=whole_epochs,
        step_ms=1e3 * seconds / steps,
        steps_per_s=steps / seconds,
        samples_per_s=steps * trainer.batch_rows / seconds,
        profiled_step_ms=found.total / found.steps / 1e3,
        step_flop=step_flop,
        flop_per_s=flop_per_s,
        peak_flop_per_s=peak,
        share_of_peak=flop_per_s / peak,
        peak_memory_growth=script.memory_growth,
        phases=tuple(_phases(found, on_cuda=device.type == "cuda", eager=eager)),
        components=tuple(_components(found)) if eager else (),
        trace=None if trace is None else str(trace),
    )


def _step_flop(trainer: BareTrainer) -> int:
    """Counted in one step of a full batch."""
    batch = trainer.train.batch(trainer.first_rows())
    with FlopCounterMode(display=False) as counter:
        trainer.step(batch, True)
    return int(counter.get_total_flops())


def _in_words(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _phases(found: Timeline, *, on_cuda: bool, eager: bool) -> Iterator[PhaseTime]:
    for name in PHASES if eager else PHASES_OF_WHOLE:
        us, device_us = found.phases[name], found.device[name]
        device_ms = device_us / found.steps / 1e3 if on_cuda else None
        yield PhaseTime(name, us / found.steps / 1e3, us / found.total, device_ms)


def _components(found: Timeline) -> Iterator[ComponentTime]:
    whole = sum(found.forward.values()) + sum(found.backward.values())
    for name, forward in found.forward.items():
        backward = found.backward[name]
        share = (forward + backward) / whole if whole else 0.0
        yield ComponentTime(name, forward / found.steps / 1e3, backward / found.steps / 1e3, share)
