"""The rate of each component: a base rate, rule by rule, unless the recipe gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusionrun import rules
from fusionrun.plan.ledger import Ledger
from fusionrun.presets import Preset
from fusionrun.schema.base import AUTO, plain
from fusionrun.schema.recipe import Recipe


@dataclass(frozen=True)
class Facts:
    """What rules may ask of each component; a head is its expert."""

    by_component: Mapping[str, Mapping[str, rules.Fact]]

    def __getitem__(self, component: str) -> Mapping[str, rules.Fact]:
        return self.by_component[component.replace("heads.", "experts.")]


def facts_of(ledger: Ledger, recipe: Recipe, input_dims: Mapping[str, int]) -> Facts:
    """What is known of each component once its width is."""
    common: dict[str, rules.Fact] = {
        "fusion_type": recipe.fusion.type,
        "num_experts": len(recipe.experts),
        "batch_size": recipe.training.batch_size,
    }
    pretrained = {n: ledger.is_pretrained(n, expert) for n, expert in recipe.experts.items()}
    dim = ledger.get("fusion.dim", rules.fusion_dim(tuple(input_dims.values())))
    joint = {**common, "input_dim": dim, "pretrained": all(pretrained.values())}
    experts = {
        f"experts.{name}": {**common, "input_dim": width, "pretrained": pretrained[name]}
        for name, width in input_dims.items()
    }
    return Facts({**experts, "fusion": joint, "global_head": joint})


def settle_rates(
    ledger: Ledger, preset: Preset, recipe: Recipe, facts: Facts
) -> dict[str, tuple[rules.Applied, ...]]:
    """Settle both base rates and each component's; returns the rules that shaped each."""
    _settle_rules(ledger, preset)
    ledger.open_names("learning_rates.experts", tuple(recipe.experts))
    table = preset.rates_for(recipe.fusion.type)
    base = {"base_lr": table.base_lr, "head_lr": table.head_lr}
    chains = _Chains(ledger, preset, recipe, base)
    chains.settle_bases()
    keys = {f"experts.{name}": "base_lr" for name in recipe.experts}
    keys |= {"fusion": "head_lr", "global_head": "head_lr"}
    return {name: chains.settle(name, rate, facts[name]) for name, rate in keys.items()}


def _settle_rules(ledger: Ledger, preset: Preset) -> None:
    written = plain(preset.rules)
    why = f"preset {preset.name}: {preset.source}"
    ledger.settle("learning_rates.rules", written, "preset", why)


class _Chains:
    """The chain behind each rate: number, then rule by rule, unless the user gave the rate."""

    def __init__(
        self, ledger: Ledger, preset: Preset, recipe: Recipe, base: Mapping[str, float]
    ) -> None:
        self._ledger = ledger
        self._base = base
        self._table = f"preset {preset.name}: {preset.source}, {{}} of {recipe.fusion.type}"
        own = recipe.learning_rates.rules
        self._rules = preset.rules if own == AUTO else own
        self._rules_from = f"preset {preset.name}" if own == AUTO else "recipe"
        self._final = {rate for rate in base if ledger.given_number(f"learning_rates.{rate}")}

    def settle_bases(self) -> None:
        """The two base rates, before any rule."""
        for rate, number in self._base.items():
            why = self._table.format(rate) + ", before the rules"
            self._ledger.settle(f"learning_rates.{rate}", number, "preset", why)

    def settle(
        self, component: str, rate: str, facts: Mapping[str, rules.Fact]
    ) -> tuple[rules.Applied, ...]:
        """One component's rate; returns the rules that applied to it."""
        key = f"learning_rates.{component}"
        if self._ledger.given_number(key):
            return ()
        base = self._ledger[f"learning_rates.{rate}"]
        if rate in self._final:
            place = self._ledger.place(f"learning_rates.{rate}")
            why = f"{rate} at {place}: a given rate is final, no rule touches it"
            self._ledger.settle(key, base, self._ledger.entry(f"learning_rates.{rate}").source, why)
            return ()
        applied = rules.applied_rules(self._rules, rate, facts)
        number = base
        for rule in applied:
            number = rules.times(number, rule.factor)
        self._ledger.settle(
            key,
            number,
            "rule",
            self._why(rate, base, applied),
            self._steps(rate, base, applied, number),
        )
        return applied

    def _why(self, rate: str, base: float, applied: tuple[rules.Applied, ...]) -> str:
        factors = "".join(f" × {rule.factor:g} ({rule.because})" for rule in applied)
        return f"{rate} {base:g}{factors or ', no rule applies'}"

    def _steps(
        self, rate: str, base: float, applied: tuple[rules.Applied, ...], number: float
    ) -> tuple[str, ...]:
        rows = [f"  {base:<8g} {self._table.format(rate)}"]
        rows += [f"× {r.factor:<8g} {self._rule_place(r.number)}: {r.because}" for r in applied]
        return (*rows, f"= {number:g}")

    def _rule_place(self, number: int) -> str:
        if self._rules_from == "recipe":
            place = self._ledger.document.place(("learning_rates", "rules", number - 1))
            return f"rule {number} at {place}"
        return f"rule {number} of {self._rules_from}"
