"""From flat sizes to a network with its first weights.

Each component draws its weights from a generator state of its own, made of the seed and the
component's name: an expert that is added or changed leaves every other expert's first weights
as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

import torch
from torch import nn

from fusionrun.errors import UserError
from fusionrun.models.experts import Backbone, Expert
from fusionrun.models.network import FusionNetwork

__all__ = ["ExpertSpec", "FusionSpec", "build_network", "component_seed"]


@dataclass(frozen=True)
class ExpertSpec:
    """What an expert is built from.

    Attributes:
        name: the expert's name in the recipe.
        module: its backbone's class, as `package.module:Class`.
        args: keyword arguments of that class.
        scaler_shape: shape of its view's mean and deviation.
        norm: whether its features are normalised at its output.
        channels_last: as in `Expert`.
    """

    name: str
    module: str
    args: Mapping[str, Any]
    scaler_shape: tuple[int, ...]
    norm: bool
    channels_last: bool = False


@dataclass(frozen=True)
class FusionSpec:
    """What a fusion is built from.

    Attributes:
        module: its class, as `package.module:Class`.
        args: keyword arguments of that class.
    """

    module: str
    args: Mapping[str, Any] = field(default_factory=dict)


def build_network(
    experts: Sequence[ExpertSpec], fusion: FusionSpec, *, num_classes: int, seed: int
) -> FusionNetwork:
    """Build a network on the CPU; torch's global generators stay as they are.

    Args:
        experts: in the recipe's order.
        fusion: sized for them.
        num_classes: C.
        seed: the run's.

    Raises:
        UserError: a module path leads nowhere: its package is not installed here.
    """
    built, heads = {}, {}
    for spec in experts:
        with _own_generator(seed, f"experts.{spec.name}"):
            built[spec.name] = _expert(spec)
        with _own_generator(seed, f"heads.{spec.name}"):
            heads[spec.name] = nn.Linear(built[spec.name].features, num_classes)
    with _own_generator(seed, "fusion"):
        joined = _load(fusion.module)(**fusion.args)
    with _own_generator(seed, "global_head"):
        global_head = _global_head(joined, num_classes)
    return FusionNetwork(built, heads, joined, global_head)


def component_seed(seed: int, component: str) -> int:
    """A component's own seed: the first 63 bits of SHA-256 of the run's seed and its name."""
    digest = hashlib.sha256(f"{seed}:{component}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


@contextmanager
def _own_generator(seed: int, component: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        # The CPU's generator alone: torch.manual_seed would reseed every GPU for good.
        torch.default_generator.manual_seed(component_seed(seed, component))
        yield


def _expert(spec: ExpertSpec) -> Expert:
    backbone: Backbone = _load(spec.module)(**spec.args)
    return Expert(
        backbone,
        scaler_shape=spec.scaler_shape,
        norm=spec.norm,
        channels_last=spec.channels_last,
    )


def _global_head(fusion: Any, num_classes: int) -> nn.Module:
    return nn.Linear(fusion.dim, num_classes) if fusion.uses_features else nn.Identity()


def _load(path: str) -> Any:
    try:
        return resolve_name(path)
    except Exception as error:  # another package's code may raise anything
        raise UserError(
            f"cannot load {path!r}, which builds a part of this network: {error}; "
            "install the package that offers it in this environment"
        ) from error
