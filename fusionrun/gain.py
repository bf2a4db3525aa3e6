"""What fusing has gained: the one definition, for whoever shows it. Pure, and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

__all__ = ["Gain", "best_expert", "gain_of"]

_GLOBAL: Final = "global"
_JOINT: Final = frozenset({_GLOBAL, "mean_of_experts"})


class Gain(NamedTuple):
    """How much better the fused path is than the best one without fusion.

    Attributes:
        points: of accuracy, in percent; below 0 where fusing did not help.
        rival: the path it is compared with.
    """

    points: float
    rival: str


def best_expert(accuracy: Mapping[str, float]) -> str | None:
    """The expert with the highest accuracy; None where the heads were not trained.

    Args:
        accuracy: by path: `global`, each expert, `mean_of_experts`.
    """
    experts = [name for name in accuracy if name not in _JOINT]
    return max(experts, key=lambda name: accuracy[name]) if experts else None


def gain_of(accuracy: Mapping[str, float]) -> Gain | None:
    """The global path against the better of best expert and mean of experts; the mean where they
    tie. None where there is nothing to compare, or to fuse: a single expert.

    Args:
        accuracy: as for `best_expert`.
    """
    rivals = [name for name in accuracy if name != _GLOBAL][::-1]
    if len(set(rivals) - _JOINT) == 1 or not rivals or _GLOBAL not in accuracy:
        return None
    rival = max(rivals, key=lambda name: accuracy[name])
    return Gain(100 * (accuracy[_GLOBAL] - accuracy[rival]), rival)
