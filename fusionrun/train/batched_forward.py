"""The forward pass of several runs as one, along a leading axis.

Experts, heads and all fusions that learn no more than what they share are written out as batched
layers (`train.batched_layers`); the other fusions are torch.func.vmap over the very modules that a
run by itself calls.

Shapes: R runs, E experts, B rows, C classes, D the fusion's width, F_i features of expert i, W_l a
layer's width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fusionrun.models.experts import MLP, Expert
from fusionrun.models.fusions.base import EPS, FeatureFusion, fill
from fusionrun.models.network import FusionNetwork
from fusionrun.train.batched_layers import Layer, linear, norm
from fusionrun.train.masks import given

__all__ = ["Batches", "Parts", "forward", "is_plain"]

Parameters = Mapping[str, Tensor]
"""(R, *shape) by the parameter's name in the network's components: `experts.a.backbone.…`."""
Layers = Mapping[str, Layer]
"""By the module's name likewise."""


class Batches(NamedTuple):
    """The same batch's place in several runs: what `Batch` has, with R in front."""

    inputs: list[Tensor]
    goal: Tensor
    present: Tensor | None
    weights: Tensor | None


class Parts(NamedTuple):
    """What the runs' networks compute with: all parameters, and those of layers once more."""

    parameters: Parameters
    layers: Layers


def forward(
    network: FusionNetwork, parts: Parts, batches: Batches, masks: Iterator[Tensor]
) -> tuple[Tensor, Tensor]:
    """Both paths on the runs' batches.

    Args:
        network: of one of them.
        parts: of all.
        batches: of all, scaled.
        masks: what dropout multiplies by, in the order of its calls: (R, *shape) each; none of a
            network in evaluation mode.

    Returns:
        Logits of the heads (R, E, B, C) and of the global head (R, B, C).
    """
    layers = parts.layers
    features = _features(network, layers, batches, masks)
    heads = [linear(x, layers[f"heads.{name}"]) for name, x in features.items()]
    logits, own = torch.stack(heads, dim=1), list(features.values())
    if is_plain(network):
        fused = _fused(network.fusion, layers, own, batches.present, masks)
        return logits, linear(fused, layers["global_head"])
    joined = own if network.fusion.uses_features else logits
    return logits, _overall(network, parts.parameters, joined, batches, list(masks))


def _features(
    network: FusionNetwork, layers: Layers, batches: Batches, masks: Iterator[Tensor]
) -> dict[str, Tensor]:
    """Each expert's features (R, B, W), by name in the recipe's order.

    Masks are taken in the order in which a run by itself draws: a stack of equal experts comes
    first, and draws for all of them at once.
    """
    inputs = dict(zip(network.names, batches.inputs, strict=True))
    experts, found = network.experts_by_name, dict[str, Tensor]()
    for stack in network.stacked:
        shared = _masks_of(experts[stack.names[0]], masks)
        for place, name in enumerate(stack.names):
            own = [mask[:, place] for mask in shared]
            found[name] = _encoded(name, experts[name], layers, inputs[name], own)
    for name, expert in experts.items():
        if name not in found:
            own = _masks_of(expert, masks)
            found[name] = _encoded(name, expert, layers, inputs[name], own)
    return {name: found[name] for name in network.names}


def _masks_of(expert: Expert, masks: Iterator[Tensor]) -> list[Tensor]:
    """Those behind the hidden layers of an expert."""
    backbone = expert.backbone
    assert isinstance(backbone, MLP)
    drops = backbone.dropout and backbone.training
    return [next(masks) for _ in backbone.layers[1:]] if drops else []


def _encoded(
    name: str, expert: Expert, layers: Layers, x: Tensor, masks: Sequence[Tensor]
) -> Tensor:
    """As `Expert.encode` of an MLP, in all runs: (R, B, W_0) to (R, B, W)."""
    backbone = expert.backbone
    assert isinstance(backbone, MLP)
    for number in range(len(backbone.layers)):
        x = linear(x, layers[f"experts.{name}.backbone.layers.{number}"])
        x = x.relu_() if backbone.activation is F.relu else backbone.activation(x)
        if number < len(masks):
            x = x * masks[number]
    return x if expert.norm is None else norm(x, layers[f"experts.{name}.norm"], expert.norm.eps)


def is_plain(network: FusionNetwork) -> bool:
    """Whether all that the fusion learns is in what every fusion of features has: then all
    parameters are those of batched layers, else fusion and global head are left to autograd.
    """
    fusion = network.fusion
    if not isinstance(fusion, FeatureFusion) or type(fusion).forward is not FeatureFusion.forward:
        return False
    own = {name.split(".")[0] for name, _ in fusion.named_parameters()}
    return own <= {"projections", "norm", "hidden", "output"}


def _fused(
    fusion: nn.Module,
    layers: Layers,
    features: Sequence[Tensor],
    present: Tensor | None,
    masks: Iterator[Tensor],
) -> Tensor:
    """As `FeatureFusion.forward` in all runs, without attention: (R, B, F_i) to (R, B, D)."""
    assert isinstance(fusion, FeatureFusion)
    missing = None if present is None else ~present.unsqueeze(-1)
    tokens = []
    for e, x in enumerate(features):
        gone = None if missing is None else missing[:, :, e]
        x = fill(x, gone, 0)
        if str(e) in fusion.projections:
            x = fill(linear(x, layers[f"fusion.projections.{e}"]), gone, 0)
        tokens.append(norm(x, layers["fusion.norm"].of(e), EPS))
    # A join is of one sample, whosever it is.
    rows = torch.stack(tokens, 2).flatten(0, 1)
    joined = fusion.join(rows, None if missing is None else missing.flatten(0, 1))
    hidden = linear(joined.reshape(*features[0].shape[:2], -1), layers["fusion.hidden"]).relu_()
    if fusion.dropout and fusion.training:
        hidden = hidden * next(masks)
    return linear(hidden, layers["fusion.output"])


def _overall(
    network: FusionNetwork,
    parameters: Parameters,
    joined: Sequence[Tensor] | Tensor,
    batches: Batches,
    masks: Sequence[Tensor],
) -> Tensor:
    """Of any fusion, under vmap: the global head's logits (R, B, C)."""
    mapped: dict[str, Any] = {
        "joined": joined,
        "masks": masks,
        "fusion": _below("fusion", parameters),
        "global_head": _below("global_head", parameters),
    }
    if batches.present is not None:
        mapped["present"] = batches.present

    def of_one(own: Mapping[str, Any]) -> Any:
        with given(own["masks"]):
            told = (own["joined"], own.get("present"))
            fused = functional_call(network.fusion, own["fusion"], told)
        return functional_call(network.global_head, own["global_head"], fused)

    overall: Tensor = vmap(of_one)(mapped)
    return overall


def _below(component: str, parameters: Parameters) -> dict[str, Tensor]:
    """The parameters of one component, by their own names."""
    start = f"{component}."
    return {n.removeprefix(start): p for n, p in parameters.items() if n.startswith(start)}
