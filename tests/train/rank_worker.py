"""What the rank tests run in processes of their own: each function here is one rank's part.

`together` starts them from a fork server that has imported torch once, so that a rank costs a
fork and not an import.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fusionrun.data.load import load_data
from fusionrun.errors import FusionrunError
from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.slurm.rendezvous import meeting_port
from fusionrun.store.layout import RunLayout
from fusionrun.train.assemble import loss_settings, make_network, make_updater
from fusionrun.train.augment import BatchPart, augmenter_of, batches_of
from fusionrun.train.buffers import ClipGroup
from fusionrun.train.optimizer import OptimizerSettings
from fusionrun.train.rank_errors import record_error
from fusionrun.train.rank_place import rank_place
from fusionrun.train.ranks import (
    SINGLE,
    RankError,
    Ranks,
    join_ranks,
)
from fusionrun.train.step import Step
from fusionrun.train.tables import Table, epoch_order, spans
from fusionrun.train.updates import Updater

CPU = torch.device("cpu")
RECIPE = Path(__file__).parents[2] / "recipes" / "handwritten-digits.yaml"
SETTINGS = [
    "training.device=cpu",
    "knowledge_transfer.expert_gradient_accumulation=2",
    "knowledge_transfer.knowledge_distillation_weight=0.1",
    "fusion.dropout=0.0",
]
AUGMENTED = [
    "augmentation.mixup={alpha: 0.5}",
    "augmentation.noise=0.1",
    "augmentation.modality_dropout=0.3",
    "augmentation.label_smoothing=0.1",
]
JOINED = [
    "knowledge_transfer.gradient_combination=mmpareto",
    "knowledge_transfer.loss_weighting=uncertainty",
]
CONVOLUTIONS = """
version: 1
name: convolutions
seed: 0
data:
  source: npz
  path: package:handwritten_digits
  label: label
  split: {train: 0.6, val: 0.2, test: 0.2, stratify: true, seed: 0}
experts:
  wide: {model: wideresnet, view: pixel_averages, shape: [15, 16], depth: 10, width: 1}
  pixels: {model: cnn, view: pixel_averages, shape: [15, 16], channels: [4], features: 8}
  moments: {model: mlp, view: zernike, hidden: [8], features: 8}
fusion: {type: simpleAddition, dropout: 0.0}
training: {device: cpu, optimizer: {type: SGD}}
"""
Part = Callable[[Path], Any]

_port_seeds = count(os.getpid() * 31)


def together(
    part: Part, folder: Path, size: int = 2, only: int | None = None, **environment: str
) -> tuple[list[int | None], list[Any]]:
    """Run a part on every rank, or on `only` one; returns exit codes, and what each left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    port = meeting_port({"SLURM_JOB_ID": str(next(_port_seeds))})
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    shared |= {"FUSIONRUN_RANK_TIMEOUT_S": "60", **environment}
    ranks = range(size) if only is None else [only]
    processes = [
        context.Process(
            target=_enter,
            args=(part, folder, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}),
        )
        for rank in ranks
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        if process.is_alive():
            process.kill()
            process.join()
    found = [folder / f"{rank}.pt" for rank in ranks]
    return (
        [process.exitcode for process in processes],
        [torch.load(path, weights_only=True) if path.exists() else None for path in found],
    )


def _enter(part: Part, folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        left = part(folder)
    except FusionrunError as error:
        left = {"error": str(error), "kind": type(error).__name__}
    torch.save(left, folder / f"{os.environ['RANK']}.pt")


def collectives(_: Path) -> dict[str, Any]:
    """Every method once."""
    ranks = join_ranks(CPU)
    numbers = torch.tensor([1.0, 10.0], dtype=torch.float64) * (ranks.rank + 1)
    ranks.sum_(numbers)
    left = {
        "identity": [ranks.rank, ranks.size, ranks.local_rank, ranks.is_first],
        "any": [
            ranks.any(False),
            ranks.any(ranks.rank == 0),
            ranks.any(ranks.rank == 1),
            ranks.any(True),
        ],
        "from_first": ranks.from_first({"rank": ranks.rank, "text": "é" * 3, "none": None}),
        "from_first_inf": ranks.from_first(float("inf") if ranks.is_first else 0.0),
        "from_each": ranks.from_each(["x" * ranks.rank, ranks.rank]),
        "sum": numbers,
    }
    ranks.close()
    return left


def epoch_alone(batch_size: int) -> dict[str, Any]:
    """An epoch on one rank with whole batches."""
    return _epoch(SINGLE, batch_size)


def epoch_128(_: Path) -> dict[str, Any]:
    """An epoch on this rank; 1,200 rows: the last batch has 48."""
    return _epoch(join_ranks(CPU), 128)


def epoch_109(_: Path) -> dict[str, Any]:
    """An epoch on this rank; 1,200 rows: odd batches, the last of one row, and an open window."""
    return _epoch(join_ranks(CPU), 109)


def augmented_alone(batch_size: int) -> dict[str, Any]:
    """An epoch on one rank with whole batches, mixed and with views missing."""
    return _epoch(SINGLE, batch_size, *AUGMENTED)


def augmented_109(_: Path) -> dict[str, Any]:
    """As `epoch_109`, mixed and with views missing."""
    return _epoch(join_ranks(CPU), 109, *AUGMENTED)


def joined_alone(batch_size: int) -> dict[str, Any]:
    """An epoch on one rank with both paths' gradients joined, and weights that are learned."""
    return _epoch(SINGLE, batch_size, *JOINED)


def joined_109(_: Path) -> dict[str, Any]:
    """As `epoch_109`, likewise."""
    return _epoch(join_ranks(CPU), 109, *JOINED)


def _epoch(ranks: Ranks, batch_size: int, *settings: str) -> dict[str, Any]:
    """One epoch in float64 as `Epochs` goes about it; losses are summed over the ranks."""
    step, table, plan = _begin(ranks, RECIPE, *SETTINGS, *settings)
    order = epoch_order(len(table), plan.seed, 0, CPU)
    parts = [
        BatchPart(n, *span, *ranks.share(*span))
        for n, span in enumerate(spans(len(table), batch_size))
    ]
    augmenter = augmenter_of(plan, table, step.network.experts_by_name)
    batches = batches_of(table, order, parts, augmenter)
    logs, sizes = [], []
    for part, batch in zip(parts, batches, strict=True):
        sizes.append(part.stop - part.start)
        logs.append(step(batch, part.stop == len(order), sizes[-1]))
    losses = torch.stack([log.terms * log.samples for log in logs])
    ranks.sum_(losses)
    ranks.close()
    return {
        "losses": losses / torch.tensor(sizes)[:, None],
        "norms": torch.cat([log.record.norms for log in logs if log.record]),
        "weights": step.updater.flat,
        "loss_weights": step.weights.tensor,
        "samples": [log.samples for log in logs],
    }


def _begin(ranks: Ranks, recipe: Path, *settings: str) -> tuple[Step, Table, Plan]:
    """A recipe's step and training table in float64, and its plan."""
    plan = make_plan(read_recipe(recipe, settings), recipe.parent)
    rows = load_data(plan.settings.data, plan.data)["train"]
    network = make_network(plan, rows)
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    table = Table(rows, network.experts_by_name, views, CPU)
    table.matrix = table.matrix.double()
    network.double()
    updater = make_updater(plan, network, CPU, ranks)
    updater.set_rates({name: c.rates[0] for name, c in plan.components.items()})
    return Step(network, updater, loss_settings(plan), "float32", CPU), table, plan


def convolutions(folder: Path) -> dict[str, Any]:
    """Steps of networks with BatchNorm; the last batch leaves rank 1 without a row."""
    return convolutions_of(join_ranks(CPU), folder)


def joined_convolutions(folder: Path) -> dict[str, Any]:
    """The same, with two backward passes through every BatchNorm."""
    return convolutions_of(join_ranks(CPU), folder, "pcgrad")


def convolutions_of(ranks: Ranks, folder: Path, combination: str = "sum") -> dict[str, Any]:
    """The same on the given ranks."""
    recipe = folder / f"{ranks.rank} of {ranks.size}.yaml"
    recipe.write_text(CONVOLUTIONS)
    step, table, _ = _begin(ranks, recipe, f"knowledge_transfer.gradient_combination={combination}")
    logs, sizes = [], []
    for start, stop in ((0, 7), (7, 16), (16, 17)):
        first, end = ranks.share(start, stop)
        rows = torch.arange(first, end)
        logs.append(step(table.batch(rows), stop == 17, stop - start))
        sizes.append(stop - start)
    losses = torch.stack([log.terms * log.samples for log in logs])
    ranks.sum_(losses)
    ranks.close()
    return {
        "samples": [log.samples for log in logs],
        "losses": losses / torch.tensor(sizes)[:, None],
        "state": {name: t.clone() for name, t in step.network.state_dict().items()},
    }


def open_window(_: Path) -> Any:
    """Ask for the updater's state where each rank holds a part of the gradient."""
    ranks = join_ranks(CPU)
    updater, parts = small_updater(ranks)
    parts["experts.a"](torch.ones(1, 2)).sum().backward()
    updater.after_backward()
    updater.state_dict()


def small_updater(ranks: Ranks) -> tuple[Updater, dict[str, nn.Module]]:
    """Two batches in a window, and nothing that steps at every batch."""
    parts: dict[str, nn.Module] = {"experts.a": nn.Linear(2, 2)}
    groups = [ClipGroup("experts.a", ("experts.a",), 1.0, accumulates=True)]
    decay = {"experts.a": 0.0}
    updater = Updater(parts, groups, OptimizerSettings("SGD"), decay, 2, ranks=ranks)
    updater.set_rates({"experts.a": 0.1})
    return updater, parts


def one_is_killed(folder: Path) -> None:
    """Rank 1 dies as by the kernel's hand; rank 0 goes on, and records what becomes of it."""
    ranks = join_ranks(CPU)
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _goes_on(ranks, folder)


def one_hangs(folder: Path) -> None:
    """Rank 1 stays away for longer than rank 0 waits."""
    ranks = join_ranks(CPU)
    if ranks.rank == 1:
        waited_for = RunLayout(folder).rank_error(0)
        deadline = time.monotonic() + 60
        while not waited_for.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return
    _goes_on(ranks, folder)


def first_is_killed(folder: Path) -> None:
    """Rank 0 dies, and with it the place where the ranks met."""
    ranks = join_ranks(CPU)
    ranks.any(False)  # (joining, too, takes both)
    if ranks.rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    _goes_on(ranks, folder)


def first_stands(folder: Path) -> None:
    """Rank 0 stands still as a whole until rank 1 has left its word."""
    ranks = join_ranks(CPU)
    ranks.any(False)  # (joining, too, takes both)
    if ranks.rank == 0:
        (folder / "pid").write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    try:
        _goes_on(ranks, folder)
    finally:
        os.kill(int((folder / "pid").read_text()), signal.SIGCONT)


def _goes_on(ranks: Ranks, folder: Path) -> None:
    try:
        ranks.sum_(torch.ones(1000))
    except RankError as error:
        record_error(RunLayout(folder), rank_place(os.environ), 12, error)
        raise
    finally:
        ranks.close()
