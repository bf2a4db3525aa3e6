"""What a recipe may say, and this version's training cannot carry out: refused, never ignored."""

from __future__ import annotations

from collections.abc import Iterator

from fusionrun.errors import NotYetError
from fusionrun.plan.plan import Plan
from fusionrun.schema.recipe import Recipe


def refuse_unsupported(plan: Plan) -> None:
    """Raise NotYetError naming every key that training would otherwise have to ignore."""
    keys = list(_unsupported(plan.settings))
    if not keys:
        return
    places = (f"  {key}{_place(plan, key)}" for key in keys)
    raise NotYetError(
        "this recipe is valid, and this version cannot train it yet because of\n"
        + "\n".join(places)
        + "\nremove these keys to train without them; 'fusionrun plan' shows the rest"
    )


def _unsupported(recipe: Recipe) -> Iterator[str]:
    if recipe.evaluation.missing_views != "none":
        yield "evaluation.missing_views"
    if recipe.evaluation.corruption is not None:
        yield "evaluation.corruption"
    for name in type(recipe.tracking).model_fields:
        if getattr(recipe.tracking, name):
            yield f"tracking.{name}"


def _place(plan: Plan, key: str) -> str:
    found = [v for k, v in plan.values.items() if k == key or k.startswith(f"{key}.")]
    places = [v.why for v in found if v.source in {"recipe", "set"}]
    return f"  ({places[0]})" if places else ""
