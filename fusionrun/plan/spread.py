"""How a component's rate is spread over its tensors: by layer from the output back, by width.

The component's own rate stays the number that everything else speaks of; what is told here are
factors on it, each with its reason behind the rate's chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from fusionrun import rules
from fusionrun.data.header import DataSummary
from fusionrun.errors import Problem
from fusionrun.layers import layers_of, mup
from fusionrun.plan.ledger import Ledger
from fusionrun.recipe.keys import Path, dotted
from fusionrun.recipe.read import Source
from fusionrun.schema.base import AUTO
from fusionrun.schema.experts import Expert
from fusionrun.schema.recipe import Recipe

_KEY = "learning_rates.layer_decay"


class Spread(NamedTuple):
    """What one component's rate is multiplied by, tensor by tensor.

    Attributes:
        layer_decay: factor for each layer from the output back; 1: none.
        num_layers: of the backbone, where there is such a factor; else 0.
        base_width: the `input_dim` at which muP leaves rates as they are; None: no muP.
    """

    layer_decay: float = 1.0
    num_layers: int = 0
    base_width: int | None = None


def spreads(
    recipe: Recipe,
    summary: DataSummary,
    ledger: Ledger,
    facts: Mapping[str, Mapping[str, rules.Fact]],
) -> dict[str, Spread]:
    """The spread of each component's rate; adds the reason to the rate's chain.

    Args:
        recipe: whose rules of widths and layer decay these are.
        summary: of the data: a backbone's layers may depend on its view.
        ledger: all rates settled.
        facts: what rules may ask, by component name; heads follow their experts.
    """
    own = recipe.learning_rates.rules
    asked = () if own == AUTO else own
    decays = decays_of(recipe, ledger)
    found = {}
    for component, known in facts.items():
        key, spread = f"learning_rates.{component}", Spread()
        name = component.removeprefix("experts.")
        if name in decays and component != name:
            expert = recipe.experts[name]
            layers = len(layers_of(expert.blueprint(summary.views[expert.view])))
            spread = spread._replace(layer_decay=decays[name], num_layers=layers)
            ledger.note(key, _decay_note(decays[name], layers, ledger[key]))
        if holding := rules.width_rule(asked, known):
            number, base = holding
            spread = spread._replace(base_width=base)
            words = mup_words(component, ledger["training.optimizer.type"], known, base)
            place = ledger.document.place(("learning_rates", "rules", number - 1))
            ledger.note(key, f"tensors  {words}, by rule {number} at {place}")
        found[component] = spread
    return found


def decays_of(recipe: Recipe, ledger: Ledger) -> dict[str, float]:
    """The factor of each expert whose layers have rates of their own."""
    written = recipe.learning_rates.layer_decay
    if written is None:
        return {}
    if isinstance(written, Mapping):
        return {name: factor for name, factor in written.items() if name in recipe.experts}
    return {name: written for name, e in recipe.experts.items() if ledger.is_pretrained(name, e)}


def _decay_note(decay: float, layers: int, lr: float) -> str:
    first = lr * decay ** (layers - 1)
    return f"layers   × {decay:g} for each layer from the output back: {first:.3g} at the first"


def mup_words(
    component: str, optimizer: str, facts: Mapping[str, rules.Fact], base_width: int
) -> str:
    """What muP does to a component's rates, in short: `mup × 0.125 (hidden matrices: …)`."""
    width = int(facts["input_dim"])
    factors = mup(optimizer, width, base_width)
    part = component.partition(".")[0]
    if optimizer == "SGD":
        what = {"experts": "first matrix, biases and norms", "fusion": "biases and norms"}
        by = factors.vectors if part in what else factors.outputs
    else:
        what = {"experts": "hidden matrices", "fusion": "matrices"}
        by = factors.outputs
    tensors = what.get(part, "its matrix")
    return f"mup × {by:g} ({tensors}: width {width}, base width {base_width})"


def check_spread(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """Layer decay where there is nothing for it: an expert that starts fresh, or never trains."""
    recipe = source.recipe
    written = recipe.learning_rates.layer_decay
    if isinstance(written, Mapping):
        for name in written:
            if name in recipe.experts and (why := _idle(name, recipe.experts[name], ledger)):
                yield _problem(source, (*_KEY.split("."), name), f"{written[name]:g} for {why}")
    elif written is not None and all(_idle(n, e, ledger) for n, e in recipe.experts.items()):
        why = "no expert starts from weights and trains"
        yield _problem(source, tuple(_KEY.split(".")), f"{written:g}, and {why}")


def _idle(name: str, expert: Expert, ledger: Ledger) -> str:
    """Why layer decay has nothing to act on; empty where it has."""
    if not ledger.is_pretrained(name, expert):
        return "an expert that starts without weights"
    return "an expert that is frozen throughout" if expert.freeze is True else ""


def _problem(source: Source, path: Path, got: str) -> Problem:
    return Problem(
        place=source.document.place(path),
        key=dotted(path),
        got=got,
        expected="layer_decay for experts that start from 'weights:' and train",
        fix="what is new should learn at the full rate in every layer: remove it, or give weights",
    )
