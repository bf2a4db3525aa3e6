"""Two plans side by side: what changed, what each change costs, which components can be kept.

The components of a run are trained together: where one change costs a retraining, all of them are
trained anew. What can be kept then is an expert whose weights still mean the same, as a start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fusionrun.plan.leaves import leaves
from fusionrun.plan.plan import Plan
from fusionrun.plan.text import columns, fits, labelled, literal, wrapped

Cost = Literal["nothing", "a new launch", "a resume", "a retraining"]

# What a change below a key costs; the longest key that fits decides, a retraining otherwise.
COSTS: dict[str, Cost] = {
    "name": "nothing",
    "preset": "nothing",  # by itself: what it decided stands among the changes
    "tracking": "nothing",
    "evaluation": "nothing",
    "sweep": "nothing",
    "slurm": "a new launch",
    "data.images.in_memory": "a new launch",
    "training.device": "a new launch",
    "training.threads": "a new launch",
    "training.memory_format": "a new launch",
    "training.deterministic": "a new launch",
    "training.matmul_precision": "a new launch",
    "training.checkpoints": "a new launch",
    "training.early_stopping": "a resume",
}

_JOINT = ("fusion", "global_head")
# Keys of an expert that leave its tensors, and what they mean, as they are.
_TRAINED_BY = ("weights", "freeze", "dropout")


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
        kept: without a retraining all components; with one the experts that the new plan can
            start from, by `weights:`.
        retrained: the others, trained anew.
        pretraining: experts whose run alone is the same in both plans: it is not trained again.
    """

    changes: tuple[Change, ...]
    kept: tuple[str, ...]
    retrained: tuple[str, ...]
    pretraining: tuple[str, ...] = ()

    @property
    def is_another_seed(self) -> bool:
        """Whether nothing but the seed stands against the old run's numbers."""
        return [c.key for c in self.changes if c.cost == "a retraining"] == ["seed"]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "changes": [vars(change) for change in self.changes],
            "kept": list(self.kept),
            "retrained": list(self.retrained),
            **({"pretraining": list(self.pretraining)} if self.pretraining else {}),
        }


def compare(new: Plan, old: Plan) -> Comparison:
    """Hold a plan against an older one."""
    changes = (*_changed_values(new, old), *_changed_files(new, old))
    if all(change.cost != "a retraining" for change in changes):
        return Comparison(changes, tuple(new.components), ())
    everything = Comparison(changes, (), tuple(new.components))
    if everything.is_another_seed:  # (started from the old run's experts it would be no other run)
        return everything
    if new.pretraining:  # (which its experts start from, and from nothing else)
        same = tuple(n for n in new.pretraining if _same_pretraining(n, new, old))
        return replace(everything, pretraining=same)
    kept = tuple(name for name in new.components if _can_start_from(name, new, old))
    return Comparison(changes, kept, tuple(n for n in new.components if n not in kept))


def _same_pretraining(name: str, new: Plan, old: Plan) -> bool:
    before = old.pretraining.get(name)
    return before is not None and before.plan_hash == new.pretraining[name].plan_hash


def _changed_values(new: Plan, old: Plan) -> Iterator[Change]:
    for key in [*new.values, *(key for key in old.values if key not in new.values)]:
        if key == "stages" and len(_value(new, key) or ()) == len(_value(old, key) or ()):
            yield from _changed_stages(new, old)
        elif _value(old, key) != _value(new, key):
            yield Change(key, _value(old, key), _value(new, key), _cost(key, new, old))
    before, after = (tuple(c for c in p.components if "." in c) for p in (old, new))
    if before != after and set(before) == set(after):
        yield Change("experts, in their order", before, after, "a retraining")


def _changed_stages(new: Plan, old: Plan) -> Iterator[Change]:
    """Of stages one by one, each of its keys."""
    for number, pair in enumerate(zip(old["stages"], new["stages"], strict=True)):
        before, after = (dict(leaves(stage, f"stages[{number}]")) for stage in pair)
        for key in {**after, **before}:
            if before.get(key) != after.get(key):
                yield Change(key, before.get(key), after.get(key), "a retraining")


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
        return _cost_of_rates(_moved_by(key), new, old)
    parts = key.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((COSTS[prefix] for prefix in prefixes if prefix in COSTS), "a retraining")


def _moved_by(key: str) -> tuple[str, ...]:
    """The components whose rates a key can move, or what their names begin with."""
    _, _, rest = key.partition(".")
    if key in {"learning_rates.base_lr", "learning_rates.experts"}:
        return ("experts.",)
    if key == "learning_rates.head_lr":
        return ("fusion", "global_head")
    if key.startswith("learning_rates.experts."):
        return (rest,)
    part = rest.split(".")[0]
    return ("experts.",) if part == "experts" else (part,) if part in _JOINT else ("",)


def _cost_of_rates(moved: tuple[str, ...], new: Plan, old: Plan) -> Cost:
    """Nothing where every rate stays; a resume where the new run only goes on after the old one."""
    # (A head's rates are its expert's.)
    names = {n for plan in (new, old) for n in plan.components if n.startswith(moved)}
    if any(name not in plan.components for plan in (new, old) for name in names):
        return "a retraining"
    if any(_spread(name, new) != _spread(name, old) for name in names):
        return "a retraining"
    pairs = [(new.components[name].rates, old.components[name].rates) for name in names]
    if all(after == before for after, before in pairs):
        return "nothing"
    goes_on = all(after[: len(before)] == before for after, before in pairs)
    return "a resume" if goes_on else "a retraining"


def _spread(name: str, plan: Plan) -> tuple[Any, ...]:
    """How a component's rate is spread over its tensors."""
    component = plan.components[name]
    return (component.layer_decay, component.num_layers, component.base_width)


def _can_start_from(name: str, new: Plan, old: Plan) -> bool:
    """Whether an expert of the old run fits the new plan, and its features mean the same there.

    Only experts can be started from (`experts.NAME.weights`): no head, fusion or global head.
    """
    if not name.startswith("experts.") or name not in old.components:
        return False
    return (
        _below("data", new) == _below("data", old)
        and new.data_content() == old.data_content()
        and _value(new, "fusion.feature_norm") == _value(old, "fusion.feature_norm")
        and _architecture(name, new) == _architecture(name, old)
        and _weights(new, name) in {None, _weights(old, name)}
    )


def _architecture(name: str, plan: Plan) -> dict[str, Any]:
    """What an expert is, whatever it starts from and however it is trained."""
    own = _below(name, plan)
    return {k: v for k, v in own.items() if k.removeprefix(f"{name}.") not in _TRAINED_BY}


def _below(prefix: str, plan: Plan) -> dict[str, Any]:
    return {k: v.value for k, v in plan.values.items() if k.startswith(f"{prefix}.")}


def render(comparison: Comparison, old_name: str) -> str:
    """The comparison as a screen."""
    if not comparison.changes:
        return f"nothing changed against {old_name}: the same plan"
    return "\n".join(
        [f"against {old_name}", "", *_table(comparison.changes), "", *_verdict(comparison)]
    )


def _table(changes: Sequence[Change]) -> list[str]:
    """A row a change; where that is too wide, a line or two a change."""
    rows = [(c.key, literal(c.old), literal(c.new), c.cost) for c in changes]
    table = list(columns([("changed", "was", "is", "costs"), *rows]))
    if fits(table):
        return table
    return [
        line
        for key, old, new, cost in rows
        for line in wrapped(f"{key}: {old} → {new}  costs {cost}", "  ")
    ]


def _verdict(comparison: Comparison) -> Iterator[str]:
    if not comparison.retrained:
        yield "all components can be kept"
    elif comparison.is_another_seed:
        yield from wrapped("another run of the same plan: every component is trained anew")
    else:
        rows = [("to train anew", ", ".join(comparison.retrained))]
        if comparison.pretraining:
            names = ", ".join(comparison.pretraining)
            rows.append(("to keep", f"the pretraining of {names}: the same runs"))
        if comparison.kept:
            start = "as a start: 'weights: run:ID#experts.NAME' for each"
            rows.append(("to keep", f"{', '.join(comparison.kept)}, {start}"))
        yield from labelled(rows)
