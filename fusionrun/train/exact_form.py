"""What to say where torch has no form of an operation that gives the same bits each time.

Torch refuses such an operation, in words that name a function of its own which no recipe has. Of
the experts and fusions that come with fusionrun none has one, by the list in the documentation of
`torch.use_deterministic_algorithms`; of other libraries' some have on a GPU: an adaptive pool to
more than one pixel (torchvision's vgg and alexnet), a bilinear or bicubic resize, a reflected edge.
"""

from __future__ import annotations

import re

from fusionrun.errors import TrainingError

__all__ = ["no_exact_form"]

_TORCH_SAYS = re.compile(r"(\S+) does not have a deterministic implementation")


def no_exact_form(error: Exception) -> TrainingError | None:
    """The error that a user can do something about; None where it is another one."""
    found = _TORCH_SAYS.search(str(error)) if isinstance(error, RuntimeError) else None
    if found is None:
        return None
    return TrainingError(
        f"training.deterministic: torch has no form of {found[1]} that gives the same bits each "
        "time on this device",
        "'training: {deterministic: false}' takes it as it is. The changed recipe is another run; "
        "this one, resumed, would come to the same end",
        repeats=True,
    )
