"""The processes of one run: which one this is, and the few things they do together.

Owns the process group, the timeout, and the words in which a lost rank is told. Decides nothing
about training. A run of one process never touches torch.distributed: `SINGLE` answers at once.

Every method but `share` is collective: all ranks call it, in the same order, or those that do
wait for the others until the timeout. What the ranks say to each other on the CPU (`any`,
`from_first`) goes through gloo; what they sum on a GPU goes through nccl, in the order of the
device's own work, without the host waiting.

How the epochs use it:

- The order of an epoch's rows is the same on all ranks (`epoch_order`). Of each batch
  `(start, stop)` a rank takes `own = ranks.share(start, stop)`, and calls
  `step(table.batch(order[own[0]:own[1]]), last_in_epoch, batch_rows=stop - start)`.
  An empty share is a step like any other: it must be taken, the others wait for it.
- Validation is the same on all ranks, since weights and BatchNorm's running statistics are: let
  each evaluate the whole split, or rank 0 alone and hand on the score by `from_first`.
- A `StepLog` holds the rank's own rows only. Once an epoch: sum `terms * samples` and `samples`
  over the own logs, hits over the own labels, `ranks.sum_` them, divide. Losses are then those of
  the whole batches. Norms are equal on all ranks already and are never summed.
- A stop is agreed by `ranks.any(stop.requested)`, at step boundaries that are the same on all
  ranks: every one, or those that `from_first` has named.
- Whatever one rank alone knows (the clock, a file, the best score) and all act upon goes through
  `ranks.from_first`, as does "the file is written": a rank that must wait for rank 0's file asks
  for a value that rank 0 gives once it is there.
- Files of the run are written by rank 0 alone, but for `rank_errors.record_error`.
- A checkpoint is taken where `updater.pending_batches` is 0: within a window each rank holds its
  own part of the experts' gradient, and `Updater.state_dict` refuses.
- Dropout draws from each rank's own generator: seed it by rank too, or all ranks drop the same;
  a checkpoint holds the generators' states of all ranks (`from_each`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from fusionrun.errors import TrainingError, UserError
from fusionrun.train.rank_place import RankPlace, name_interface, rank_place
from fusionrun.train.roll_call import absent_ranks

__all__ = [
    "SINGLE",
    "RankError",
    "Ranks",
    "join_ranks",
]

TIMEOUT_VARIABLE: Final = "FUSIONRUN_RANK_TIMEOUT_S"
DEFAULT_TIMEOUT_S: Final = 600.0

T = TypeVar("T")


class RankError(TrainingError):
    """The ranks could not come together, or one of them was lost. Seldom the first cause.

    Attributes:
        absent: the ranks that did not answer when this one had failed; None where nobody knows.
    """

    def __init__(self, what: str, fix: str = "", *, absent: tuple[int, ...] | None = None) -> None:
        super().__init__(what, fix)
        self.absent = absent


_ALONE: Final = RankPlace()


class Ranks:
    """The processes that train one run together; by itself a single one.

    Made by `join_ranks`, and closed by whoever made it.

    Args:
        place: this process among them.
        store: where they met; None for a single one.
    """

    def __init__(self, place: RankPlace = _ALONE, store: Store | None = None) -> None:
        self._place, self._store = place, store
        self._broken = False

    @property
    def rank(self) -> int:
        """This process, counted from 0."""
        return self._place.rank

    @property
    def size(self) -> int:
        """How many there are."""
        return self._place.size

    @property
    def local_rank(self) -> int:
        """This process on its node, counted from 0."""
        return self._place.local_rank

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes what the run leaves behind."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on at least one rank; the same answer on all. Also a barrier.

        Raises:
            RankError: another rank ended, or did not come within the timeout.
        """
        if self.size == 1:
            return flag
        raised = torch.tensor(int(flag))
        with self._named("agreeing on a stop"):
            dist.all_reduce(raised, dist.ReduceOp.MAX)
        return bool(raised.item())

    def sum_(self, tensor: Tensor) -> None:
        """Replaces `tensor`, of one shape on all ranks, by its sum over them, in place.

        All ranks get the same bits.

        Raises:
            RankError: another rank ended, or did not come within the timeout.
        """
        if self.size == 1:
            return
        with self._named(f"summing {tensor.numel()} numbers"):
            dist.all_reduce(tensor, dist.ReduceOp.SUM)

    def from_first(self, value: T) -> T:
        """Rank 0's `value`, on all ranks; what the others pass is not looked at.

        Args:
            value: what JSON can carry: None, a truth value, text, numbers (not finite ones too),
                lists and mappings of those. Of several ranks a tuple comes back as a list.

        Raises:
            RankError: another rank ended, or did not come within the timeout.
            TypeError: rank 0's value is not of that kind.
        """
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_first else b""
        length = torch.tensor(len(text))
        with self._named("handing on a value of rank 0"):
            dist.broadcast(length, 0)
            letters = torch.empty(int(length.item()), dtype=torch.uint8)
            if self.is_first:
                letters = torch.frombuffer(bytearray(text), dtype=torch.uint8)
            dist.broadcast(letters, 0)
        received: T = json.loads(letters.numpy().tobytes())
        return received

    def from_each(self, value: T) -> list[T]:
        """The values of all ranks, in their order, on all ranks: such as what rank 0 is to save.

        Args:
            value: as for `from_first`.

        Raises:
            RankError: another rank ended, or did not come within the timeout.
            TypeError: this rank's value is not of that kind.
        """
        if self.size == 1:
            return [value]
        text = json.dumps(value).encode()
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(text)
        with self._named("bringing the ranks' values together"):
            dist.all_reduce(lengths, dist.ReduceOp.SUM)
            rows = torch.zeros(self.size, int(lengths.max()), dtype=torch.uint8)
            rows[self.rank, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
            dist.all_reduce(rows, dist.ReduceOp.SUM)
        return [
            json.loads(row[:length].numpy().tobytes())
            for row, length in zip(rows, lengths.tolist(), strict=True)
        ]

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """This rank's rows of the batch `start` to `stop`.

        The shares are contiguous, in the order of the ranks, and differ by at most one row; rank
        0's is never smaller than another. A batch with fewer rows than ranks leaves some empty.
        """
        rows, longer = divmod(stop - start, self.size)
        first = start + self.rank * rows + min(self.rank, longer)
        return first, first + rows + (self.rank < longer)

    def close(self) -> None:
        """Leaves the group. Every rank may do so at its own time."""
        # After a failure nccl would wait for the lost rank; the process's end closes it as well.
        if self.size > 1 and dist.is_initialized() and not self._broken:
            dist.destroy_process_group()

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo, nccl and the store have no narrower one
            self._broken = True
            absent = absent_ranks(self._store, self.rank, self.size) if self._store else None
            raise RankError(*_lost(self._place, what, error, absent), absent=absent) from error


SINGLE: Final = Ranks()
"""One process, no group."""


def join_ranks(device: torch.device) -> Ranks:
    """Joins the processes that this one was started with; `SINGLE` where there are no others.

    On a GPU it also makes this rank's own one torch's current device, so that "cuda" means it.

    Args:
        device: where training will be. "cuda" sums by nccl, everything else by gloo.

    Raises:
        UserError: what the launcher left in the environment makes no sense.
        RankError: the others were not all there within FUSIONRUN_RANK_TIMEOUT_S seconds (600 by
            default), or the rendezvous address is out of reach or taken.
    """
    place = rank_place(os.environ)
    if place.size == 1:
        return SINGLE
    timeout = timedelta(seconds=_timeout_s(os.environ))
    own: torch.device | None = None
    backend = "gloo"
    if device.type == "cuda":
        own = torch.device("cuda", place.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(own)
        backend = "cpu:gloo,cuda:nccl"
    name_interface(place.address)
    try:
        store, _, _ = next(rendezvous("env://", place.rank, place.size, timeout=timeout))
        store.set_timeout(timeout)
        dist.init_process_group(
            backend,
            store=store,
            rank=place.rank,
            world_size=place.size,
            timeout=timeout,
            device_id=own,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise RankError(*_not_joined(place, timeout, error)) from error
    return Ranks(place, store)


def _timeout_s(environ: Mapping[str, str]) -> float:
    text = environ.get(TIMEOUT_VARIABLE, str(DEFAULT_TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e7:
        raise UserError(
            f"environment variable {TIMEOUT_VARIABLE}: got {text!r}, expected seconds above 0"
        )
    return seconds


def _lost(
    place: RankPlace, what: str, error: Exception, absent: tuple[int, ...] | None
) -> tuple[str, str]:
    """What to tell of a lost rank, and what to do."""
    found = "All ranks answer by now" if absent == () else "Another rank has ended or hangs"
    if absent:
        listed = ", ".join(map(str, absent))
        found = f"Without an answer: rank{'s' * (len(absent) > 1)} {listed}"
    return (
        f"{place.describe()}: {what} failed: {_first_line(error)}. {found}",
        "look at the earliest rank error in the run's logs; a rank that left none was killed "
        f"(memory, node, scancel) or hangs. If ranks are only slow, raise {TIMEOUT_VARIABLE}",
    )


def _not_joined(place: RankPlace, timeout: timedelta, error: Exception) -> tuple[str, str]:
    reason = _first_line(error)
    if "EADDRINUSE" in reason or "already in use" in reason:
        fix = "the port is taken: start the job again, it will choose another"
    elif place.rank == 0:
        fix = "the other ranks did not come: look at their errors and at the launcher's log"
    else:
        fix = (
            "rank 0 did not answer there: look at its error first, then whether this node "
            "reaches that address and port"
        )
    return (
        f"{place.describe()}: joining the other ranks failed, "
        f"with {timeout.total_seconds():g} s for it: {reason}",
        f"{fix}; {TIMEOUT_VARIABLE} sets how long to wait",
    )


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return line.partition(" This is typically caused by ")[0].rstrip(". ")  # (gloo's own advice)
