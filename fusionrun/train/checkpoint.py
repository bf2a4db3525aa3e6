"""Exact resume: everything that the next step depends on, out of a run and back into it.

A snapshot is taken between two steps, as a copy, and becomes a checkpoint while training goes on
(`saver`). It holds the weights, the best weights so far, moments and counters of the optimizer with
an open window's gradient and the loss scale, what the loss weights have learned, the open epoch's
losses and norms, every rank's generators, and where the run stands. The order of samples follows
from seed and epoch, and is not saved. Safetensors and JSON, never pickle. A run that goes on from
it ends with the same bits as one that was never stopped.

Files are written by the first rank alone, and read by all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from fusionrun import __version__
from fusionrun.errors import InexactError, TrainingError
from fusionrun.regular import read_regular
from fusionrun.store.checkpoints import PLACE, Checkpoint, Damaged, list_checkpoints
from fusionrun.store.layout import RunLayout
from fusionrun.train.epoch_log import Tally
from fusionrun.train.epochs import Epochs
from fusionrun.train.ranks import Ranks
from fusionrun.train.recorder import Recorder
from fusionrun.train.step import Step
from fusionrun.train.tensor_file import TensorFile

__all__ = ["Loaded", "Origin", "Snapshot", "Snapshots", "engine_before", "newest_whole"]

_WEIGHTS: Final = "weights.safetensors"
_BEST: Final = "best.safetensors"
_UPDATER: Final = "updater.safetensors"
_EPOCH: Final = "epoch.safetensors"
# What the loss weights have learned stands beside the updater's components.
_LOSS_WEIGHTS: Final = "loss_weights"

Components = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Origin:
    """What a checkpoint must share with the run that goes on from it.

    Attributes:
        plan: the plan's hash.
        data: SHA-256 of each of the data's files.
        circumstances: what else its bits depend on; see `train.circumstances`.
    """

    plan: str
    data: Mapping[str, str]
    circumstances: Mapping[str, str]


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
    def engine(self) -> str:
        """What carried out its steps."""
        return str(self.place["circumstances"].get("engine"))

    @property
    def weights(self) -> Components:
        """The weights of all components."""
        return _parts(self.tensors[_WEIGHTS])

    def restore(self, step: Step, epochs: Epochs, ranks: Ranks) -> None:
        """Put everything back, the generators last: nothing must be drawn from them afterwards.

        Raises:
            TrainingError: the plan is the same and the network is not: another version wrote it.
        """
        tally = Tally.unpacked(self.tensors[_EPOCH], self.place["groups"]) if self._open else None
        try:
            _load_weights(step, _parts(self.tensors[_WEIGHTS]))
            # (a component whose optimizer remembers nothing has no tensors here)
            parts: dict[str, Mapping[str, Tensor]] = {n: {} for n in step.updater.state_dict()}
            parts |= _parts(self.tensors[_UPDATER])
            step.weights.load_state_dict(parts.pop(_LOSS_WEIGHTS, {}))
            step.updater.load_state_dict(parts)
            best = self._best(step) if ranks.is_first else {}
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingError(
                f"{self.checkpoint.path}: written by fusionrun {self._version}, and does "
                f"not fit the network that {__version__} builds from the same plan: {error}",
                "go on with that version, or train anew with `fusionrun train --new`",
                repeats=True,
            ) from error
        epochs.take_back(self.place, best, tally)
        generators = self.place["generators"]
        # More ranks than there were: theirs begin anew, and the run is sound but not to the bit.
        if ranks.rank < len(generators):
            _set_generators(generators[ranks.rank], step)

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
    def _version(self) -> str:
        return str(self.place["circumstances"].get("fusionrun"))

    @property
    def _open(self) -> bool:
        return bool(self.tensors[_EPOCH])

    def differences(self, now: Origin) -> list[str]:
        """What is not as it was, a line each: the run would not end with the same bits."""
        before = {**self.place["data"], **self.place["circumstances"]}
        found = []
        for name in {**self.place["data"], **now.data}:
            if now.data.get(name) != self.place["data"].get(name):
                found.append(f"data, {name} rows: the file's content has changed")
        for name in {**self.place["circumstances"], **now.circumstances}:
            was, is_now = before.get(name), now.circumstances.get(name)
            if was != is_now:
                found.append(f"{name}: was {was or 'not recorded'}, is {is_now or 'not recorded'}")
        return found

    def refuse_other(self, now: Origin) -> None:
        """Raise InexactError where the run would not end with the same bits."""
        if found := self.differences(now):
            raise InexactError(self.checkpoint.path, found)


def newest_whole(
    layout: RunLayout, plan_hash: str, ranks: Ranks, recorder: Recorder, say: Callable[[str], None]
) -> Loaded | None:
    """The newest checkpoint of which every byte is as it was written; None where there is none.

    The first rank chooses, and records and says of every newer one what is wrong with it.

    Raises:
        TrainingError: another rank cannot read what the first one could; or there is something
            else where checkpoints should be, so that none could be written either.
    """
    folder = layout.checkpoints
    if ranks.from_first(os.path.lexists(folder) and not folder.is_dir()):
        raise TrainingError(
            f"{folder}: not a directory, expected the one of the run's checkpoints: none can be "
            "read from there, or written",
            "put the directory back, or remove this to begin again",
        )
    loaded = _choose(layout, plan_hash, recorder, say) if ranks.is_first else None
    name = ranks.from_first(None if loaded is None else loaded.checkpoint.name)
    if name is None or loaded is not None:
        return loaded
    (chosen,) = (c for c in list_checkpoints(layout.checkpoints) if c.name == name)
    try:
        return _load(chosen, plan_hash)
    except Damaged as error:
        raise TrainingError(f"{chosen.path}: whole for rank 0, and here not: {error}") from error


def engine_before(layout: RunLayout) -> str | None:
    """What carried out a run's steps up to its newest checkpoint; None: there is nothing to go by.

    Not verified: who goes on reads it all, and refuses what does not fit.
    """
    for checkpoint in list_checkpoints(layout.checkpoints)[:1]:
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            place = json.loads(read_regular(checkpoint.path / PLACE))
            return str(place["circumstances"]["engine"])
    return None


def _choose(
    layout: RunLayout, plan_hash: str, recorder: Recorder, say: Callable[[str], None]
) -> Loaded | None:
    for checkpoint in list_checkpoints(layout.checkpoints):
        try:
            return _load(checkpoint, plan_hash)
        except Damaged as error:
            recorder.event("checkpoint_skipped", checkpoint=checkpoint.name, why=str(error))
            say(f"checkpoint {checkpoint.name} is skipped: {error}")
    return None


def _load(checkpoint: Checkpoint, plan_hash: str) -> Loaded:
    files = checkpoint.read()
    try:
        place = json.loads(files.pop(PLACE))
        tensors = {name: load(content) for name, content in files.items()}
        known = place["plan"] == plan_hash and tensors.keys() == {_WEIGHTS, _BEST, _UPDATER, _EPOCH}
    except (KeyError, SafetensorError, TypeError, ValueError) as error:
        raise Damaged(f"not the files of a checkpoint: {error!r}") from error
    if not known:
        raise Damaged("it is of another plan than this run's: changed, or from another run")
    return Loaded(checkpoint, place, tensors)


class Snapshots:
    """Takes copies of one run, each into the memory of the one before.

    Args:
        step: of the run.
        ranks: those that train together.
        origin: what the run is made from.
    """

    def __init__(self, step: Step, ranks: Ranks, origin: Origin) -> None:
        self._step, self._ranks, self._origin = step, ranks, origin
        self._files: dict[str, TensorFile] = {}

    def take(self, epochs: Epochs) -> Snapshot | None:
        """A copy of the run as it is now; on the first rank, though all take part.

        The one before must have been written.

        Args:
            epochs: between two steps; with several ranks at the end of a window.
        """
        step = self._step
        generators = self._ranks.from_each(_generators(step))
        tally = epochs.log.tally(self._ranks)
        if not self._ranks.is_first:
            return None
        open_epoch, groups = ({}, []) if tally is None else tally.packed()
        place = {
            **epochs.plain(),
            "plan": self._origin.plan,
            "data": dict(self._origin.data),
            "circumstances": dict(self._origin.circumstances),
            "generators": generators,
            "groups": groups,
        }
        weights = {name: module.state_dict() for name, module in step.network.components().items()}
        updater = {**step.updater.state_dict(), _LOSS_WEIGHTS: step.weights.state_dict()}
        for name, own in {_WEIGHTS: weights, _UPDATER: updater}.items():
            self._file(name, flat := _flat(own)).fill(flat)
        unchanging = {_BEST: _flat(epochs.best.state), _EPOCH: open_epoch}
        for name, flat in unchanging.items():
            self._file(name, flat)
        return Snapshot(epochs.steps, epochs.best.step, place, dict(self._files), unchanging)

    def _file(self, name: str, tensors: Mapping[str, Tensor]) -> TensorFile:
        file = self._files.get(name)
        if file is None or not file.fits(tensors):
            file = self._files[name] = TensorFile(tensors)
        return file


@dataclass(frozen=True)
class Snapshot:
    """A copy of a run between two steps, in memory: its device's, where there is room.

    Attributes:
        step: steps taken.
        best_step: steps taken when the best weights so far were; 0 before there are any.
        place: where the run stands: plain JSON.
        tensors: by file.
        unchanging: by file, tensors that nobody changes: copied when they are written.
    """

    step: int
    best_step: int
    place: Mapping[str, Any]
    tensors: Mapping[str, TensorFile]
    unchanging: Mapping[str, Mapping[str, Tensor]]

    @property
    def size(self) -> int:
        """Bytes that its files take, but for the last."""
        return sum(file.size for file in self.tensors.values())

    def files(self) -> Iterator[tuple[str, bytes | memoryview]]:
        """Name and content of each file, one at a time: not all of them need be in memory."""
        for name, file in self.tensors.items():
            if name in self.unchanging:
                file.fill(self.unchanging[name])
            yield name, file.content()
        yield PLACE, json.dumps(self.place, allow_nan=False).encode()


def _flat(state: Components) -> dict[str, Tensor]:
    """One level of names: safetensors knows no other. No component has a slash in its name."""
    return {
        f"{component}/{key}": tensor
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


def _generators(step: Step) -> dict[str, str]:
    """The states of the generators that dropout draws from, in hexadecimal."""
    own = step.generator
    states = {"cpu": torch.get_rng_state() if own is None else own.get_state()}
    if step.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(step.device)
    return {name: state.numpy().tobytes().hex() for name, state in states.items()}


def _set_generators(states: Mapping[str, str], step: Step) -> None:
    cpu = _bytes_tensor(states["cpu"])
    if step.generator is None:
        torch.set_rng_state(cpu)
    else:
        step.generator.set_state(cpu)
    if step.device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(_bytes_tensor(states["cuda"]), step.device)


def _bytes_tensor(hexadecimal: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(hexadecimal), dtype=torch.uint8)
