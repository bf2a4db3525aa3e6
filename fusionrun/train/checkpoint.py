"""Exact resume: everything that the next step depends on, out of a run and back into it.

A checkpoint is taken between two steps, as a copy; it is written while training goes on. It holds
the weights, the best weights so far, moments and counters of the optimizer with an open window's
gradient and the loss scale, the open epoch's losses and norms, every rank's generators, and where
the run stands. Safetensors and JSON, never pickle. A run that goes on from it ends with the same
bits as one that was never stopped.

Files are written by the first rank alone, and read by all.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fusionrun import __version__
from fusionrun.errors import DataError, TrainingError
from fusionrun.store.checkpoints import (
    Checkpoint,
    Damaged,
    list_checkpoints,
    remove_checkpoints,
    save_checkpoint,
)
from fusionrun.store.layout import RunLayout
from fusionrun.train.epoch_log import Tally
from fusionrun.train.epochs import Epochs, copied_state
from fusionrun.train.ranks import Ranks
from fusionrun.train.recorder import Recorder
from fusionrun.train.step import Step

__all__ = ["CHECKPOINT_EVERY_S", "KEPT", "Loaded", "Origin", "Saver", "newest_whole"]

CHECKPOINT_EVERY_S: Final = 60.0
"""Seconds of work that a killed run loses at most; FUSIONRUN_CHECKPOINT_S says otherwise."""

KEPT: Final = 2
"""So that there is one before, should the newest turn out damaged."""

_PLACE: Final = "run.json"
_WEIGHTS: Final = "weights.safetensors"
_BEST: Final = "best.safetensors"
_UPDATER: Final = "updater.safetensors"
_EPOCH: Final = "epoch.safetensors"

Components = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Origin:
    """What a checkpoint must share with the run that goes on from it.

    Attributes:
        plan: the plan's hash.
        data: SHA-256 of each of the data's files.
    """

    plan: str
    data: Mapping[str, str]


@dataclass(frozen=True)
class Loaded:
    """A whole checkpoint, read.

    Attributes:
        checkpoint: which.
        place: where the run stood: plain JSON.
        tensors: by file and then by name, on the CPU.
    """

    checkpoint: Checkpoint
    place: Mapping[str, Any]
    tensors: Mapping[str, Mapping[str, Tensor]]

    @property
    def step(self) -> int:
        """Steps that the run had taken."""
        return self.checkpoint.step

    @property
    def epoch(self) -> int:
        """Epochs that the run had done."""
        return int(self.place["where"]["epoch"])

    @property
    def metrics_bytes(self) -> int:
        """How long the metrics were: what came behind will come again."""
        return int(self.place["metrics_bytes"])

    def restore(self, step: Step, epochs: Epochs, ranks: Ranks) -> None:
        """Put everything back, the generators last: nothing must be drawn from them afterwards.

        Raises:
            TrainingError: the plan is the same and the network is not: another version wrote it.
        """
        tally = Tally.unpacked(self.tensors[_EPOCH], self.place["groups"]) if self._open else None
        try:
            _load_weights(step, _parts(self.tensors[_WEIGHTS]))
            # (a component whose optimizer remembers nothing has no tensors here)
            parts: Components = {name: {} for name in step.updater.state_dict()}
            step.updater.load_state_dict({**parts, **_parts(self.tensors[_UPDATER])})
            best = self._best(step) if ranks.is_first else {}
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"{self.checkpoint.path}: written by fusionrun {self.place['fusionrun']}, and does "
                f"not fit the network that {__version__} builds from the same plan: {error}. "
                "Fix: go on with that version, or begin again with --fresh"
            ) from error
        epochs.take_back(self.place, best, tally)
        generators = self.place["generators"]
        # More ranks than there were: theirs begin anew, and the run is sound but not to the bit.
        if ranks.rank < len(generators):
            _set_generators(generators[ranks.rank], step.device)

    def _best(self, step: Step) -> Components:
        """The best weights, in the network's order, components without weights among them."""
        if not self.tensors[_BEST]:
            return {}
        parts = _parts(self.tensors[_BEST])
        return {
            name: {key: parts[name][key] for key in module.state_dict()}
            for name, module in step.network.components().items()
        }

    @property
    def _open(self) -> bool:
        return bool(self.tensors[_EPOCH])

    def refuse_other_data(self, now: Mapping[str, str]) -> None:
        """Raise DataError where the data's files are not those that the run began with."""
        before = self.place["data"]
        changed = [name for name in now if now[name] != before.get(name)]
        if changed:
            raise DataError(
                f"{', '.join(changed)}: changed since this run began, so it cannot go on from "
                f"step {self.step}. Fix: put the old file back, or begin again with --fresh"
            )


def newest_whole(
    layout: RunLayout, plan_hash: str, ranks: Ranks, recorder: Recorder
) -> Loaded | None:
    """The newest checkpoint of which every byte is as it was written; None where there is none.

    The first rank chooses, and records every newer one with what is wrong with it.

    Raises:
        TrainingError: another rank cannot read what the first one could.
    """
    loaded = _choose(layout, plan_hash, recorder) if ranks.is_first else None
    name = ranks.from_first(None if loaded is None else loaded.checkpoint.name)
    if name is None or loaded is not None:
        return loaded
    (chosen,) = (c for c in list_checkpoints(layout.checkpoints) if c.name == name)
    try:
        return _load(chosen, plan_hash)
    except Damaged as error:
        raise TrainingError(f"{chosen.path}: whole for rank 0, and here not: {error}") from error


def _choose(layout: RunLayout, plan_hash: str, recorder: Recorder) -> Loaded | None:
    for checkpoint in list_checkpoints(layout.checkpoints):
        try:
            return _load(checkpoint, plan_hash)
        except Damaged as error:
            recorder.event("checkpoint_skipped", checkpoint=checkpoint.name, why=str(error))
            print(f"checkpoint {checkpoint.name} is skipped: {error}", flush=True)
    return None


def _load(checkpoint: Checkpoint, plan_hash: str) -> Loaded:
    files = checkpoint.read()
    try:
        place = json.loads(files.pop(_PLACE))
        tensors = {name: load(content) for name, content in files.items()}
        known = place["plan"] == plan_hash and tensors.keys() == {_WEIGHTS, _BEST, _UPDATER, _EPOCH}
    except (KeyError, SafetensorError, TypeError, ValueError) as error:
        raise Damaged(f"not the files of a checkpoint: {error!r}") from error
    if not known:
        raise Damaged("it is of another plan")
    return Loaded(checkpoint, place, tensors)


class Saver:
    """Takes checkpoints of one attempt.

    Args:
        layout: the run's.
        origin: what the run is made from.
        step: holds network and updater.
        ranks: those that train together.
        recorder: is told of each checkpoint.
        loaded: what the attempt went on from.
    """

    def __init__(
        self,
        layout: RunLayout,
        origin: Origin,
        step: Step,
        ranks: Ranks,
        recorder: Recorder,
        loaded: Loaded | None,
    ) -> None:
        self._folder, self._origin, self._step = layout.checkpoints, origin, step
        self._ranks, self._recorder = ranks, recorder
        self._kept = [] if loaded is None else [loaded.checkpoint]
        self._every_s = float(os.environ.get("FUSIONRUN_CHECKPOINT_S", CHECKPOINT_EVERY_S))
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def is_due(self) -> bool:
        """Whether this rank, the first, wants a checkpoint now.

        Raises:
            OSError: the one before could not be written.
        """
        if not self._ranks.is_first or time.monotonic() - self._last < self._every_s:
            return False
        if self._writing is not None and not self._writing.done():
            return False
        self.wait()
        return True

    def save(self, epochs: Epochs) -> None:
        """Copy the run, on all ranks together, and begin to write the copy; `wait` ends that.

        Raises:
            OSError: the one before could not be written.
        """
        began = time.monotonic()
        self.wait()
        generators = self._ranks.from_each(_generators(self._step.device))
        tally = epochs.log.tally(self._ranks)
        if self._ranks.is_first and not self._has(epochs.steps):
            files = self._copied(epochs, tally, generators)
            self._writing = self._thread.submit(self._write, epochs.steps, files, began)
        self._last = time.monotonic()

    def wait(self) -> None:
        """Until the last checkpoint is on disk. Raises OSError where it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """End the thread, after what it has begun."""
        self._thread.shutdown()

    def _has(self, step: int) -> bool:
        """Whether this very moment is saved already: a run that stops where it went on from."""
        return bool(self._kept) and self._kept[-1].step == step

    def _copied(
        self, epochs: Epochs, tally: Tally | None, generators: list[dict[str, str]]
    ) -> Iterator[tuple[str, bytes]]:
        """The files of a checkpoint, from copies made here and now."""
        open_epoch, groups = ({}, []) if tally is None else tally.packed()
        place = {
            **epochs.plain(),
            "plan": self._origin.plan,
            "data": dict(self._origin.data),
            "metrics_bytes": self._recorder.metrics_bytes(),
            "generators": generators,
            "groups": groups,
            "fusionrun": __version__,
            "torch": torch.__version__,
        }
        tensors = {
            _WEIGHTS: _flat(copied_state(self._step)),
            _BEST: _flat(epochs.best.state),
            _UPDATER: _flat(_copy(self._step.updater.state_dict())),
            _EPOCH: open_epoch,
        }
        return _serialized(place, tensors)

    def _write(self, step: int, files: Iterable[tuple[str, bytes]], began: float) -> None:
        """In the thread: write, keep the last two, tell."""
        checkpoint = save_checkpoint(self._folder, step, files)
        self._kept = [*self._kept, checkpoint][-KEPT:]
        remove_checkpoints(self._folder, keep=self._kept)
        seconds = time.monotonic() - began
        self._recorder.save_s = seconds
        self._recorder.event("checkpoint", step=step, seconds=seconds)


def _serialized(
    place: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, one at a time: not all of them need be in memory."""
    for name, own in tensors.items():
        yield name, save(dict(own))
    yield _PLACE, json.dumps(place, allow_nan=False).encode()


def _copy(state: Components) -> Components:
    return {
        name: {key: tensor.detach().to("cpu", copy=True) for key, tensor in own.items()}
        for name, own in state.items()
    }


def _flat(state: Components) -> dict[str, Tensor]:
    """One level of names: safetensors knows no other. No component has a slash in its name."""
    return {
        f"{component}/{key}": tensor.contiguous()
        for component, own in state.items()
        for key, tensor in own.items()
    }


def _parts(flat: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    state: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        component, _, key = name.partition("/")
        state.setdefault(component, {})[key] = tensor
    return state


def _load_weights(step: Step, weights: Components) -> None:
    for name, module in step.network.components().items():
        module.load_state_dict(weights.get(name, {}))


def _generators(device: torch.device) -> dict[str, str]:
    """The states of torch's generators, in hexadecimal."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return {name: state.numpy().tobytes().hex() for name, state in states.items()}


def _set_generators(states: Mapping[str, str], device: torch.device) -> None:
    torch.set_rng_state(_bytes_tensor(states["cpu"]))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(_bytes_tensor(states["cuda"]), device)


def _bytes_tensor(hexadecimal: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(hexadecimal), dtype=torch.uint8)
