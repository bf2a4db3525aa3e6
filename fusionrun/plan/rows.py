"""Which rows who sees: what a recipe leaves open about it, and each expert's share."""

from __future__ import annotations

from fusionrun.data.header import ALL, DataSummary
from fusionrun.data.parts import DEFAULT_VAL
from fusionrun.data.shares import FEWEST_CLASSES, plan_shares, too_small
from fusionrun.errors import Problem, RecipeError
from fusionrun.plan.ledger import Ledger
from fusionrun.plan.stage_checks import idle_shares
from fusionrun.recipe.read import Source
from fusionrun.schema.base import AUTO

_SHARES = ("data", "expert_shares")
_IN_MEMORY = "data.images.in_memory"


def with_shares(source: Source, summary: DataSummary) -> DataSummary:
    """The summary with what each expert's pretraining sees, where they do not see the same.

    Raises:
        RecipeError: an expert would see no row, or one class only; or none is trained alone.
    """
    if idle := list(idle_shares(source)):
        raise RecipeError(idle)
    data, experts = source.recipe.data, tuple(source.recipe.experts)
    if data.expert_shares == "shared":
        return summary
    shares = plan_shares(
        data.expert_shares,
        experts,
        rows=summary.sizes["train"],
        num_classes=len(summary.classes),
        class_counts=None if ALL in summary.class_counts else summary.class_counts["train"],
        seed=data.split.seed,
    )
    if small := too_small(shares):
        raise RecipeError([_too_small(source, summary, small)])
    return summary._replace(shares=shares)


def _too_small(source: Source, summary: DataSummary, small: list[str]) -> Problem:
    kind, experts = source.recipe.data.expert_shares, len(source.recipe.experts)
    if kind == "classes":
        got = f"{len(summary.classes)} classes for {experts} experts"
        expected = f"at least {FEWEST_CLASSES} classes an expert: {FEWEST_CLASSES * experts}"
    else:
        got = f"{summary.sizes['train']} training rows for {experts} experts"
        expected = f"rows of at least {FEWEST_CLASSES} classes for each expert"
    return Problem(
        source.document.place(_SHARES),
        ".".join(_SHARES),
        got=f"{kind}: {got}",
        expected=expected,
        fix=f"too little is left for {', '.join(small)}: fewer experts, or expert_shares: shared",
    )


def settle_data(ledger: Ledger, summary: DataSummary) -> None:
    """The share of an official training part to validate on, and where images are held."""
    if ledger.pending(_IN_MEMORY):
        where = "decided where it trains: true where they fit into half of the free memory"
        ledger.settle(_IN_MEMORY, AUTO, "default", where)
    if not ledger.pending("data.split.val"):
        return
    has_val = "val" in summary.found
    why = f"the data has {'a' if has_val else 'no'} validation part of its own"
    ledger.settle("data.split.val", 0.0 if has_val else DEFAULT_VAL, "rule", why)
