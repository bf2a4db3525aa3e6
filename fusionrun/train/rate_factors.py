"""What each tensor multiplies its component's rate by: layer decay and muP, out of a plan."""

from __future__ import annotations

from fusionrun.blueprint import (
    Tensor,
    expert_component,
    fusion_component,
    global_head_component,
    head_component,
)
from fusionrun.layers import depths, layers_of, mup, mup_factors
from fusionrun.plan.plan import ComponentPlan, Plan

__all__ = ["rate_factors"]

Factors = dict[str, float]


def rate_factors(plan: Plan) -> dict[str, Factors]:
    """By component, the factor of each tensor whose rate is another than the component's.

    What is frozen throughout has no rate, and no factors.
    """
    found = {n: _factors(plan, c) for n, c in plan.components.items() if not c.never_trains}
    return {name: factors for name, factors in found.items() if factors}


def _factors(plan: Plan, component: ComponentPlan) -> Factors:
    factors = _by_layer(plan, component) if component.num_layers else {}
    if component.base_width is not None:
        by_width = mup(component.optimizer, component.input_dim, component.base_width)
        tensors = _blueprint(plan, component.name)
        for name, factor in mup_factors(component.name, tensors, by_width).items():
            factors[name] = factors.get(name, 1.0) * factor
    return {name: factor for name, factor in factors.items() if factor != 1.0}


def _by_layer(plan: Plan, component: ComponentPlan) -> Factors:
    """A norm behind the backbone has the last layer's rate."""
    expert = plan.settings.experts[component.name.removeprefix("experts.")]
    layers = layers_of(expert.blueprint(plan.data.views[expert.view]))
    return {
        f"backbone.{name}": component.layer_decay**depth for name, depth in depths(layers).items()
    }


def _blueprint(plan: Plan, component: str) -> dict[str, Tensor]:
    settings, classes = plan.settings, len(plan.data.classes)
    part, _, name = component.partition(".")
    match part:
        case "experts":
            expert = settings.experts[name]
            shape = plan.data.views[expert.view]
            return expert_component(expert, shape, settings.fusion.feature_norm)
        case "heads":
            return head_component(plan.components[component].input_dim, classes)
        case "fusion":
            widths = tuple(plan.components[f"experts.{n}"].input_dim for n in settings.experts)
            attends = settings.knowledge_transfer.cross_expert_attention
            return fusion_component(settings.fusion, widths, classes, attends)
        case _:
            return global_head_component(settings.fusion, classes)
