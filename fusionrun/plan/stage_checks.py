"""Stages that do not fit each other, or the rest of the recipe. Each a `Problem` with its place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from fusionrun.errors import Problem
from fusionrun.plan.ledger import Ledger
from fusionrun.recipe.keys import Path, dotted
from fusionrun.recipe.read import Source
from fusionrun.schema.base import MAX_EPOCHS
from fusionrun.schema.recipe import Recipe

ORDER = ("pretrain", "warmup", "joint")
_STAGES: Path = ("stages",)


def stage_problems(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """Everything that is wrong about a recipe's stages."""
    if source.recipe.stages:
        for check in (_order, _fused, _epochs, _pretraining):
            yield from check(source, ledger)


def pretrains(recipe: Recipe) -> bool:
    """Whether every expert is trained alone before."""
    return any(stage.stage == "pretrain" for stage in recipe.stages)


def _order(source: Source, ledger: Ledger) -> Iterator[Problem]:
    kinds = [stage.stage for stage in source.recipe.stages]
    for number, (before, kind) in enumerate(pairwise(kinds), 1):
        again = kind == before == "pretrain"
        if again or ORDER.index(kind) < ORDER.index(before):
            yield _problem(
                source,
                (*_STAGES, number, "stage"),
                got=f"{kind} after {before}",
                expected="pretrain once, then warmup, then joint; these two as often as need be",
            )


def _fused(source: Source, ledger: Ledger) -> Iterator[Problem]:
    if all(stage.stage == "pretrain" for stage in source.recipe.stages):
        yield _problem(
            source,
            _STAGES,
            got="pretrain alone, which trains no fusion",
            expected="a warmup or a joint stage after it",
            fix="add {stage: joint, epochs: …}",
        )


def _epochs(source: Source, ledger: Ledger) -> Iterator[Problem]:
    stages = [stage for stage in source.recipe.stages if stage.stage != "pretrain"]
    total = sum(stage.epochs for stage in stages)
    if total > MAX_EPOCHS:
        got, expected = f"{total:,} epochs in all", f"at most {MAX_EPOCHS:,}"
        yield _problem(source, _STAGES, got=got, expected=expected)
    written = ledger["training.epochs"]
    if stages and ledger.given_number("training.epochs") and written != total:
        yield _problem(
            source,
            ("training", "epochs"),
            got=str(written),
            expected=f"{total}, the epochs of the stages of the fused run together",
            fix="remove it: the stages say how long they are",
        )


def _pretraining(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """What a pretrain stage leaves no room for."""
    recipe = source.recipe
    if not pretrains(recipe):
        return
    for name, expert in recipe.experts.items():
        if expert.weights is not None:
            yield _problem(
                source,
                ("experts", name, "weights"),
                got=f"weights beside a pretrain stage, which trains {name} from scratch",
                expected="one of the two",
            )
    for number, stage in enumerate(recipe.stages):
        where = (*_STAGES, number)
        if stage.stage == "pretrain" and stage.losses is not None:
            got = "losses of an expert that is trained alone"
            expected = "nothing: its own cross-entropy is all it has"
            yield _problem(source, (*where, "losses"), got=got, expected=expected)
        rates = stage.learning_rates
        if stage.stage == "pretrain" and rates and rates.head_lr is not None:
            yield _problem(
                source,
                (*where, "learning_rates", "head_lr"),
                got="a rate of fusion and global head, which pretraining has not",
                expected="base_lr: the rate of each expert and its head",
            )


def idle_shares(source: Source) -> Iterator[Problem]:
    """What a recipe says of the rows that pretraining sees, where it has none.

    Not for the recipe of a stage, or of an expert alone, which names the rows and no stages.
    """
    data = source.recipe.data
    if pretrains(source.recipe):
        return
    first = "add {stage: pretrain, epochs: …} as the first stage"
    both = "add stages: [{stage: pretrain, epochs: …}, {stage: joint, epochs: …}]"
    said = {"expert_shares": data.expert_shares != "shared", "fusion_holdout": data.fusion_holdout}
    for key in (key for key, is_said in said.items() if is_said):
        yield _problem(
            source,
            ("data", key),
            got=str(getattr(data, key)),
            expected="a pretrain stage beside it: it says what each expert's pretraining sees",
            fix=f"{first if source.recipe.stages else both}, or remove it",
        )


def _problem(source: Source, path: Path, *, got: str, expected: str, fix: str = "") -> Problem:
    return Problem(source.document.place(path), dotted(path), got, expected, fix)
