"""Which engine carries out the steps of a run: by rule and before the first of them, so that an
attempt that goes on decides as the one before did.
"""

from __future__ import annotations

from collections.abc import Iterator

from fusionrun import rules
from fusionrun.errors import Problem
from fusionrun.plan.ledger import Ledger
from fusionrun.recipe.read import Source
from fusionrun.schema.recipe import Recipe

_KEY = "training.engine"
_QUICK_TO_COMPILE = ("mlp", "cnn")


def settle_engine(ledger: Ledger, recipe: Recipe, num_steps: int) -> None:
    """`auto`: compiled where that pays back what compiling costs, and can be done; else eager."""
    slow = [name for name, e in recipe.experts.items() if e.model not in _QUICK_TO_COMPILE]
    if why := next(_obstacles(ledger), "") or (
        f"experts.{slow[0]} is no mlp or cnn" if slow else ""
    ):
        ledger.settle(_KEY, "eager", "rule", f"compiling a step is for others: {why}")
        return
    engine = "compiled" if num_steps >= rules.COMPILE_FROM_STEPS else "eager"
    pays = f"compiling pays back from {rules.COMPILE_FROM_STEPS:,} on"
    ledger.settle(_KEY, engine, "rule", f"{num_steps:,} steps: {pays}")


def check_engine(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """What a compiled step cannot do in this recipe."""
    engine = ledger[_KEY]
    if engine in {"auto", "eager"}:
        return
    for obstacle in _obstacles(ledger):
        place = source.document.place(("training", "engine"))
        expected = "auto or eager: only they can"
        yield Problem(place, _KEY, got=f"{engine} with {obstacle}", expected=expected)


def _obstacles(ledger: Ledger) -> Iterator[str]:
    if (kind := ledger["knowledge_transfer.gradient_combination"]) != "sum":
        yield f"knowledge_transfer.gradient_combination {kind}"
    if ledger["training.precision"] == "fp16":
        yield "training.precision fp16"
