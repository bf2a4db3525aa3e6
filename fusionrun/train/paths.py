"""The gradients of the two paths, kept apart until those that meet on an expert are made one.

On an expert's parameters the collaborative path (the cross-entropy of the global head, through the
fusion) and the individual one (the expert's own cross-entropy and distillation) may pull against
each other. `pcgrad` and `mmpareto` weigh the two by their angle, expert by expert, on the gradients
of the whole batch: over all ranks, and before anything is accumulated or clipped. Heads, fusion and
global head have one path, or, as the heads of a product of experts, the plain sum of both.

Owns the memory of the two gradients and the weights that join them. Reads nothing back from the
device.

Shapes: N numbers of the updater's memory, E experts; c the collaborative gradient of an expert, i
its individual one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from fusionrun.models.network import Outputs
from fusionrun.schema.training import Combination
from fusionrun.train.buffers import ComponentBuffer
from fusionrun.train.ranks import Ranks

__all__ = ["PathGradients", "mmpareto", "pcgrad"]

MAGNITUDE: Final = 1.5
"""MMPareto's γ: what the joined gradient's length is multiplied by. Source: the authors' code."""


class PathGradients:
    """Two gradients in memory of the updater's layout, and what becomes of them at each batch.

    Args:
        combination: `pcgrad` or `mmpareto`.
        buffers: all components, in the layout of `grad`.
        grad: (N,), the memory that the joined gradient is added to.
        ranks: those that train together.
    """

    def __init__(
        self,
        combination: Combination,
        buffers: Mapping[str, ComponentBuffer],
        grad: Tensor,
        ranks: Ranks,
    ) -> None:
        self._weigh = _WEIGH[combination]
        self._ranks = ranks
        self._grad = grad
        self._memory = grad.new_zeros(2, grad.numel())
        kept = list(buffers.values())
        self._parameters = [p for buffer in kept for p in buffer.parameters.values()]
        self._places = [[v for b in kept for v in b.views(row)] for row in self._memory]
        experts = [b for b in kept if b.name.startswith("experts.") and b.parameters]
        self._parts = [(row[b.start : b.end]) for b in experts for row in self._memory]

    def backward(self, outputs: Outputs, gradients: Outputs) -> None:
        """Goes back along each path, from what the network gave, over the one graph of both.

        Args:
            outputs: of the network, for a batch or this rank's part of it.
            gradients: of the (scaled) loss, at the same places.
        """
        ends = zip(outputs[::-1], gradients[::-1], self._places, strict=True)
        for number, (logits, gradient, places) in enumerate(ends):
            found = torch.autograd.grad(
                logits, self._parameters, gradient, retain_graph=not number, allow_unused=True
            )
            self._add(places, found)

    def _add(self, places: list[Tensor], found: Sequence[Tensor | None]) -> None:
        reached = [(p, g) for p, g in zip(places, found, strict=True) if g is not None]
        torch._foreach_add_([place for place, _ in reached], [gradient for _, gradient in reached])

    def join(self) -> None:
        """Adds the batch's joined gradient to `grad`, the same on all ranks. All of them call it.

        Raises:
            RankError: another rank was lost.
        """
        self._ranks.sum_(self._memory)
        if self._parts:
            pairs = zip(self._parts[::2], self._parts[1::2], strict=True)
            dots = [d for c, i in pairs for d in (c.dot(c), c.dot(i), i.dot(i))]
            weights = self._weigh(*torch.stack(dots).view(-1, 3).unbind(1))
            torch._foreach_mul_(self._parts, list(weights.flatten().unbind()))
        self._grad.add_(self._memory[0]).add_(self._memory[1])
        self._memory.zero_()


def pcgrad(cc: Tensor, ci: Tensor, ii: Tensor) -> Tensor:
    """Where the two conflict, c·i < 0, each loses what it has along the other (Yu et al., 2020).

        c - (c·i / i·i) i  +  i - (i·c / c·c) c

    The paper projects the gradients in a random order, each against the others as they were at
    first. Of two tasks each has one other: no order is left, and the result is symmetric.
    Source: arXiv 2001.06782, algorithm 1.

    Args:
        cc: (E,), c·c.
        ci: (E,), c·i.
        ii: (E,), i·i.

    Returns:
        (E, 2), the factors of c and of i.
    """
    tiny = torch.finfo(cc.dtype).tiny
    weights = torch.stack([1 - ci / cc.clamp(min=tiny), 1 - ci / ii.clamp(min=tiny)], 1)
    return torch.where((ci < 0)[:, None], weights, torch.ones_like(weights))


def mmpareto(cc: Tensor, ci: Tensor, ii: Tensor) -> Tensor:
    """The direction that serves both paths, at the length of their sum and more (Wei and Hu, 2024).

    Without a conflict both weigh 1. With one, c·i < 0, α is that of the shortest α c + (1 - α) i,
    which descends along both (the multiple-gradient descent of two tasks, in closed form), and the
    weights are 2 α and 2 (1 - α). Then, if the result is shorter than c + i, it is stretched to
    that length, and in either case multiplied by `MAGNITUDE`.

    As in the authors' code (GeWu-Lab/MMPareto_ICML2024), but for two things: lengths are those of
    the whole expert, where that takes them tensor by tensor and so bends the common direction; and
    an angle of exactly 90° is no conflict, or an expert that one path does not reach would get no
    gradient at all. The noise that the paper speaks of is that of the batches, which the length
    raises: nothing random is added. Where the two cancel to rounding nothing is stretched.
    Source: arXiv 2405.17730.

    Args:
        cc: (E,), c·c.
        ci: (E,), c·i.
        ii: (E,), i·i.

    Returns:
        (E, 2), the factors of c and of i.
    """
    precision = torch.finfo(cc.dtype)
    apart = cc + ii - 2 * ci
    alpha = (ii - ci) / apart.clamp(min=precision.tiny)
    weights = torch.stack([2 * alpha, 2 * (1 - alpha)], 1)
    weights = torch.where((ci < 0)[:, None], weights, torch.ones_like(weights))
    of_c, of_i = weights.unbind(1)
    length = of_c * of_c * cc + 2 * of_c * of_i * ci + of_i * of_i * ii
    stretched = ((cc + 2 * ci + ii) / length.clamp(min=precision.tiny)).clamp(min=1).sqrt()
    is_sound = length > precision.eps * (cc + ii)
    return weights * torch.where(is_sound, stretched * MAGNITUDE, MAGNITUDE)[:, None]


_WEIGH: Final[Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "pcgrad": pcgrad,
    "mmpareto": mmpareto,
}
