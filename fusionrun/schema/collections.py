"""Experts out of other libraries, any of their models by name: loaded when a recipe names one.

What a model is like only its library knows: it is asked once, see `fusionrun.outside`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from fusionrun.blueprint import Tensor, under
from fusionrun.outside import Description, UnfitModelError, UnknownModelError, describe
from fusionrun.schema.experts import (
    ImageExpert,
    Shape,
    UnavailableError,
    UnfitViewError,
)

Argument = bool | int | float | str

_DECIDED: Final = {
    "num_classes": "the classifier is taken off: each expert has a head of its own",
    "in_chans": "the view says how many channels there are",
    "pretrained": "write 'pretrained: true' beside 'args'",
    "weights": "write 'weights: FILE.safetensors' or 'pretrained: true' beside 'args'",
}
"""Arguments that are not the user's to give → what decides them."""


class Collection(ImageExpert):
    """Base of a library's models: without their classifier, for one channel or three, any size."""

    module: ClassVar[str] = "fusionrun.models.outside:Outside"
    convolves: ClassVar[bool] = True
    origin_prefix: ClassVar[str] = "backbone.model."

    args: Mapping[str, Argument] = Field(default_factory=dict)
    """Further keyword arguments for the library, such as drop_path_rate."""
    pretrained: bool = False
    """Start from the library's own weights, which it may download where it trains."""

    @property
    def is_pretrained(self) -> bool:
        """Whether it starts from weights: a file's or the library's own."""
        return self.pretrained or super().is_pretrained

    def check(self, view_shape: Shape) -> None:
        """The library is here, has the model, and the model reads such images."""
        super().check(view_shape)
        if self.pretrained and self.weights is not None:
            raise UnavailableError(
                "pretrained", "both 'weights' and 'pretrained: true'", "one of the two"
            )
        if taken := next((name for name in self.args if name in _DECIDED), None):
            expected = f"other arguments than {', '.join(_DECIDED)}"
            raise UnavailableError("args", repr(taken), expected, _DECIDED[taken])
        try:
            self._described(view_shape)
        except UnknownModelError as error:
            raise UnavailableError("model", repr(self.model), str(error), error.fix) from error
        except UnfitModelError as error:
            expected = f"an image and arguments that the model can take; {error}"
            key = "args" if "argument" in str(error) else "shape"
            raise UnfitViewError(expected, key) from error

    @property
    def _origin(self) -> tuple[str, str]:
        library, _, name = self.model.partition(":")
        return library, name

    def _described(self, view_shape: Shape) -> Description:
        return describe(*self._origin, self.image_shape(view_shape), self.args)

    def classifier_of(self, view_shape: Shape) -> tuple[str, ...]:
        """As the library calls it."""
        return self._described(view_shape).classifier

    def input_dim(self, view_shape: Shape) -> int:
        """The width of what stands before the classifier."""
        return self._described(view_shape).features

    def module_args(self, view_shape: Shape) -> dict[str, Any]:
        """What `fusionrun.models.outside.Outside` asks the library for."""
        library, name = self._origin
        found = self._described(view_shape)
        return {
            "input_shape": self.image_shape(view_shape),
            "features": found.features,
            "library": library,
            "name": name,
            "args": found.args,
            "pretrained": self.pretrained,
        }

    def blueprint(self, view_shape: Shape) -> dict[str, Tensor]:
        """The library's own tensors."""
        return under("model", self._described(view_shape).tensors)


class Timm(Collection):
    """A model of timm, by its name there. Needs the extra `timm`."""

    model: Annotated[str, Field(pattern=r"^timm:\S+$")]
    """`timm:NAME`."""


class Torchvision(Collection):
    """A model of torchvision, by its name there. Needs the extra `torchvision`."""

    model: Annotated[str, Field(pattern=r"^torchvision:\S+$")]
    """`torchvision:NAME`."""
