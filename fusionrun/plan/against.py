"""Two plans side by side: what changed, what each change costs, which components can be kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fusionrun.plan.plan import Plan
from fusionrun.plan.screen import columns, literal

Cost = Literal["nothing", "a new launch", "a resume", "a retraining"]

# What a change below a key costs; the longest key that fits decides, a retraining otherwise.
COSTS: dict[str, Cost] = {
    "name": "nothing",
    "preset": "nothing",  # by itself: what it decided stands among the changes
    "tracking": "nothing",
    "evaluation": "nothing",
    "sweep": "nothing",
    "slurm": "a new launch",
    "training.device": "a new launch",
    "training.threads": "a new launch",
    "training.early_stopping": "a resume",
}


@dataclass(frozen=True)
class Change:
    """One value that differs. `old` or `new` is None where a plan has no such value."""

    key: str
    old: Any
    new: Any
    cost: Cost


@dataclass(frozen=True)
class Comparison:
    """What lies between two plans.

    Attributes:
        changes: in the new plan's order.
        kept: components whose weights fit the new plan and mean the same in it.
        retrained: the others.
    """

    changes: tuple[Change, ...]
    kept: tuple[str, ...]
    retrained: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "changes": [vars(change) for change in self.changes],
            "kept": list(self.kept),
            "retrained": list(self.retrained),
        }


def compare(new: Plan, old: Plan) -> Comparison:
    """Hold a plan against an older one."""
    changes = (*_changed_values(new, old), *_changed_files(new, old))
    if all(change.cost != "a retraining" for change in changes):
        return Comparison(changes, tuple(new.components), ())
    kept = tuple(name for name in new.components if _can_keep(name, new, old))
    return Comparison(changes, kept, tuple(n for n in new.components if n not in kept))


def _changed_values(new: Plan, old: Plan) -> Iterator[Change]:
    for key in [*new.values, *(key for key in old.values if key not in new.values)]:
        if _value(old, key) != _value(new, key):
            yield Change(key, _value(old, key), _value(new, key), _cost(key, new, old))
    before, after = (tuple(c for c in p.components if "." in c) for p in (old, new))
    if before != after and set(before) == set(after):
        yield Change("experts, in their order", before, after, "a retraining")


def _changed_files(new: Plan, old: Plan) -> Iterator[Change]:
    """What other files hold although the recipe names the same ones."""
    if _below("data", new) == _below("data", old):
        before, after = old.data_content(), new.data_content()
        for part in after:
            if before[part] != after[part]:
                yield Change(f"data, its {part}", before[part], after[part], "a retraining")
    for name in new.components:
        key, hashes = f"{name}.weights", (_weights(old, name), _weights(new, name))
        if _value(old, key) == _value(new, key) and hashes[0] != hashes[1]:
            yield Change(f"{key}, their SHA-256", *hashes, "a retraining")


def _weights(plan: Plan, name: str) -> str | None:
    component = plan.components.get(name)
    return component.weights.sha256 if component and component.weights else None


def _value(plan: Plan, key: str) -> Any:
    return plan.get(key)


def _cost(key: str, new: Plan, old: Plan) -> Cost:
    if key == "training.epochs" or key.startswith(("schedulers.", "learning_rates.")):
        return _cost_of_rates(new, old)
    parts = key.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((COSTS[prefix] for prefix in prefixes if prefix in COSTS), "a retraining")


def _cost_of_rates(new: Plan, old: Plan) -> Cost:
    """Nothing where every rate stays; a resume where the new run only goes on after the old one."""
    if new.components.keys() != old.components.keys():
        return "a retraining"
    pairs = [(new.components[name].rates, c.rates) for name, c in old.components.items()]
    if all(after == before for after, before in pairs):
        return "nothing"
    goes_on = all(after[: len(before)] == before for after, before in pairs)
    return "a resume" if goes_on else "a retraining"


def _can_keep(name: str, new: Plan, old: Plan) -> bool:
    """An expert or head is kept where its own section, its view and the data are as they were."""
    if name in {"fusion", "global_head"} or name not in old.components:
        return False
    own = f"experts.{name.partition('.')[2]}"
    return (
        _below("data", new) == _below("data", old)
        and new.data_content() == old.data_content()
        and _value(new, "fusion.feature_norm") == _value(old, "fusion.feature_norm")
        and _below(own, new) == _below(own, old)
        and _weights(new, own) == _weights(old, own)
    )


def _below(prefix: str, plan: Plan) -> dict[str, Any]:
    return {k: v.value for k, v in plan.values.items() if k.startswith(f"{prefix}.")}


def render(comparison: Comparison, old_name: str) -> str:
    """The comparison as a screen."""
    if not comparison.changes:
        return f"nothing changed against {old_name}: the same plan"
    rows = [("changed", "was", "is", "costs")]
    rows += [(c.key, literal(c.old), literal(c.new), c.cost) for c in comparison.changes]
    return "\n".join([f"against {old_name}", "", *columns(rows), "", *_verdict(comparison)])


def _verdict(comparison: Comparison) -> Iterator[str]:
    if not comparison.retrained:
        yield "all components can be kept"
        return
    yield f"to retrain  {', '.join(comparison.retrained)}"
    if comparison.kept:
        yield f"to keep     {', '.join(comparison.kept)}"
        yield "            (as a start: 'weights: run:ID#experts.NAME')"
