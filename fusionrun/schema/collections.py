"""Experts out of other libraries, any of their models by name: loaded when a recipe names one."""

from typing import Annotated

from pydantic import Field

from fusionrun.schema.experts import Expert


class Timm(Expert):
    """A model of the timm collection, by its name there."""

    model: Annotated[str, Field(pattern=r"^timm:\S+$")]
    """`timm:NAME`."""


class Torchvision(Expert):
    """A model of torchvision, by its name there."""

    model: Annotated[str, Field(pattern=r"^torchvision:\S+$")]
    """`torchvision:NAME`."""
