"""Backbones out of other libraries: any model of timm or torchvision without its classifier.

`python -m fusionrun.models.outside` describes one for a plan (see `fusionrun.outside`): a request
as JSON on stdin, the answer as JSON on stdout. It builds the model on the meta device: no memory,
no weights, no network.

Shapes: B batch, F features; an image has channels, height and width.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from fusionrun.errors import UserError
from fusionrun.models.experts import Backbone

__all__ = ["Outside", "build", "describe"]

_DTYPES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
}


class Built(NamedTuple):
    """A library's model without its classifier.

    Attributes:
        model: (B, channels, height, width) to (B, F).
        classifier: what the part that was taken off is called in the library's files of weights.
    """

    model: nn.Module
    classifier: tuple[str, ...]


class Outside(Backbone):
    """A library's model, as `model`: its tensors have the library's own names below that.

    Args:
        input_shape: (channels, height, width).
        features: F, as `describe` found it.
        library: `timm` or `torchvision`.
        name: the model's name there.
        args: further keyword arguments for the library.
        pretrained: begin with the library's own weights, which it may have to download.

    Raises:
        UserError: the library cannot give its weights here.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, int, int],
        features: int,
        library: str,
        name: str,
        args: Mapping[str, Any],
        pretrained: bool,
    ) -> None:
        super().__init__(input_shape, features)
        try:
            self.model = build(library, name, input_shape[0], args, pretrained).model
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise UserError(
                f"{library}:{name}: the weights that 'pretrained: true' asks for are not to be had "
                f"here: {error}\nFix: train once where {library} can download them, so that its "
                "cache has them; or name a file of them in 'weights:'"
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) to (B, F)."""
        features: Tensor = self.model(x)
        return features


def build(
    library: str, name: str, channels: int, args: Mapping[str, Any], pretrained: bool = False
) -> Built:
    """A library's model for images of `channels`, its classifier taken off."""
    return _BUILDERS[library](name, channels, args, pretrained)


def _timm(name: str, channels: int, args: Mapping[str, Any], pretrained: bool) -> Built:
    import timm

    model = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels, **args)
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return Built(model, (names,) if isinstance(names, str) else tuple(names))


def _torchvision(name: str, channels: int, args: Mapping[str, Any], pretrained: bool) -> Built:
    import torchvision

    weights = "DEFAULT" if pretrained else None
    model = torchvision.models.get_model(name, weights=weights, **args)
    classifier = _last(model, nn.Linear)
    model.set_submodule(classifier, nn.Identity())
    _read_channels(model, channels, pretrained)
    return Built(model, (classifier,))


def _last(model: nn.Module, kind: type[nn.Module]) -> str:
    found: list[str] = [name for name, m in model.named_modules() if isinstance(m, kind)]
    if not found or found[-1].partition(".")[0] not in {"fc", "classifier", "heads", "head"}:
        raise ValueError("it does not end in a Linear, so its features cannot be told apart")
    return found[-1]


def _read_channels(model: nn.Module, channels: int, pretrained: bool) -> None:
    """Exchange the first convolution for one that reads `channels`; its filters are summed."""
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == channels:
        return
    if pretrained and channels != 1:
        raise ValueError(f"its weights read 3 channels or, summed, 1; this view has {channels}")
    own = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
        device=first.weight.device,
    )
    if pretrained:
        own.weight.data.copy_(first.weight.data.sum(1, keepdim=True))
        if own.bias is not None and first.bias is not None:
            own.bias.data.copy_(first.bias.data)
    model.set_submodule(name, own)


_BUILDERS: Final[Mapping[str, Callable[[str, int, Mapping[str, Any], bool], Built]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
}


def describe(
    library: str, name: str, input_shape: tuple[int, int, int], args: Mapping[str, Any]
) -> dict[str, Any]:
    """What a plan needs to know of a model, as JSON holds it: `fusionrun.outside.Description`.

    A model that is made for images of one size is asked to be made for this one, and one that
    gives more than its features to give only these.
    """
    known = _known(library)
    if name.partition(".")[0] not in known:
        return {"unknown": name, "known": known}
    problems = []
    for more in ({}, *_ways(library, input_shape)):
        try:
            return _described(library, name, input_shape, {**more, **args})
        except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
            problems.append(f"{error}".strip().partition("\n")[0] or type(error).__name__)
    # What the model says of an argument that it does not take is no news, if it was ours.
    telling = [p for p in problems[1:] if "unexpected keyword" not in p]
    return {"unfit": (telling or problems)[0]}


def _known(library: str) -> list[str]:
    if library == "timm":
        import timm

        return list(timm.list_models())
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def _ways(library: str, input_shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """How the library is told an image's size, or to leave out further classifiers."""
    _, height, width = input_shape
    if library == "timm":
        return [{"img_size": (height, width)}]
    sized = [{"image_size": height}] if height == width else []
    return [*sized, {"aux_logits": False}]


def _described(
    library: str, name: str, input_shape: tuple[int, int, int], args: Mapping[str, Any]
) -> dict[str, Any]:
    with torch.device("meta"):
        model, classifier = build(library, name, input_shape[0], args)
        # Training mode and two samples: what a step will ask of it.
        features = model.train()(torch.empty(2, *input_shape))
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError("it gives no vector of features for an image")
    trainable = {name for name, _ in model.named_parameters()}
    return {
        "features": features.shape[1],
        "args": dict(args),
        "classifier": classifier,
        "tensors": {
            name: [_DTYPES[tensor.dtype], list(tensor.shape), name in trainable]
            for name, tensor in model.state_dict().items()
        },
    }


if __name__ == "__main__":
    request = json.load(sys.stdin)
    answer = describe(
        request["library"], request["name"], tuple(request["input_shape"]), request["args"]
    )
    json.dump(answer, sys.stdout)
