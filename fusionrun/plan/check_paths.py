"""Checks of how the two paths meet: what combines gradients or weighs losses needs two of them."""

from __future__ import annotations

from collections.abc import Iterator

from fusionrun.errors import Problem
from fusionrun.plan.ledger import Ledger
from fusionrun.recipe.read import Source

_SECTION = "knowledge_transfer"


def check_paths(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """What `gradient_combination` and `loss_weighting` cannot do in this recipe."""
    yield from _combination(source, ledger)
    yield from _weighting(source, ledger)


def _combination(source: Source, ledger: Ledger) -> Iterator[Problem]:
    kind = ledger[f"{_SECTION}.gradient_combination"]
    if kind == "sum":
        return
    experts = source.recipe.experts.values()
    if not _individual_path(ledger):
        yield _problem(
            source,
            "gradient_combination",
            got=f"{kind} with lambda_loss 0",
            expected="sum: no head learns, so only the collaborative path reaches the experts",
            fix="give lambda_loss a value above 0",
        )
    elif len(experts) == 1 and not source.recipe.fusion.uses_features:
        yield _problem(
            source,
            "gradient_combination",
            got=f"{kind} with one expert and fusion type {source.recipe.fusion.type}",
            expected="sum: both paths are the same head's, so their gradients are the same",
        )
    if all(expert.freeze is True for expert in experts):
        yield _problem(
            source,
            "gradient_combination",
            got=f"{kind}, and every expert is frozen throughout",
            expected="sum: there is no gradient on an expert to combine",
        )


def _individual_path(ledger: Ledger) -> bool:
    """Whether the experts' heads learn anything that an expert could learn from."""
    if ledger[f"{_SECTION}.lambda_loss"] > 0:
        return True
    distils = ledger[f"{_SECTION}.knowledge_distillation_weight"] > 0
    return bool(distils and ledger[f"{_SECTION}.teacher"] == "global")


def _weighting(source: Source, ledger: Ledger) -> Iterator[Problem]:
    kind = ledger[f"{_SECTION}.loss_weighting"]
    if kind != "static" and not ledger[f"{_SECTION}.lambda_loss"]:
        yield _problem(
            source,
            "loss_weighting",
            got=f"{kind} with lambda_loss 0",
            expected="static: only the global head's cross-entropy is left, with nothing beside it",
            fix="give lambda_loss a value above 0",
        )
    if kind != "uncertainty" and ledger.given_number(f"{_SECTION}.log_variance_lr"):
        if ledger[f"{_SECTION}.log_variance_lr"] is None:  # (null: there is none, as here)
            return
        yield _problem(
            source,
            "log_variance_lr",
            got=f"log_variance_lr with loss_weighting {kind}",
            expected="log_variance_lr only with uncertainty",
            fix="remove 'log_variance_lr', or change 'loss_weighting'",
        )


def _problem(source: Source, key: str, got: str, expected: str, fix: str = "") -> Problem:
    place = source.document.place((_SECTION, key))
    return Problem(place, f"{_SECTION}.{key}", got, expected, fix)
