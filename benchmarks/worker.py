"""One engine in a process of its own: `python -m benchmarks.worker ENGINE RECIPE [KEY=VALUE …]`.

See `benchmarks.meter` for what it reads and prints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import ours, peers
from benchmarks.meter import Meter, say
from benchmarks.task import Task, plan_of, task_of
from fusionrun.errors import RecipeError, UserError
from fusionrun.plan.plan import Plan
from fusionrun.train.assemble import choose_device
from fusionrun.train.bare import BareTrainer, bare_trainer


def main(engine: str, recipe: str, *settings: str) -> None:
    try:
        plan = plan_of(Path(recipe), [*settings, f"training.threads={torch.get_num_threads()}"])
        work(engine, plan)
    except RecipeError:
        raise  # (no engine's fault: it is told as a failure)
    except UserError as error:
        say({"missing": str(error)})
    except ImportError as error:
        say({"missing": f"not installed: {error}"})


def work(engine: str, plan: Plan) -> None:
    torch.set_flush_denormal(True)
    device = choose_device(plan.settings.training.device)
    if engine == "runner":
        ours.runner(plan, Meter(None, device))
    elif engine == "fusionrun":
        trainer = bare_trainer(plan)
        ours.steps(trainer, Meter(whole_loss_of(trainer), device))
    else:
        task = task_of(plan)
        loss = None if engine == "scikit-learn" else task.whole_loss
        peers.PEERS[engine](task, Meter(loss, device))


def whole_loss_of(trainer: BareTrainer) -> Callable[[], float]:
    """Of fusionrun's own network, by the same words as the peers'."""
    table = trainer.train
    batch = table.batch(torch.arange(len(table), device=trainer.device))
    task = Task(trainer.plan, trainer.step.network, batch.inputs, batch.labels)
    return task.whole_loss


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
