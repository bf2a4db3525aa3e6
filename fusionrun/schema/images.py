"""How image files become arrays of one size."""

from typing import Annotated, Literal

from fusionrun.schema.base import AUTO, Count, OrAuto, Section


class Images(Section):
    """Encoded images, from files or from cells of a table, as arrays of one size."""

    size: tuple[Count, Count] | None = None
    """[height, width]; null: that of the first image, which all others must have too."""
    fit: Literal["crop", "stretch"] = "crop"
    """How an image gets another size. crop: scaled until it covers it, then cut around its centre;
    stretch: height and width each on their own."""
    channels: Literal[1, 3] = 3
    """1: grey; 3: colour. Images of another kind are converted, transparency is left out."""

    in_memory: Annotated[bool, OrAuto()] = AUTO
    """Decode all images before the first step and hold their bytes; false: each one when a batch
    takes it, in threads that work ahead. The result is the same."""

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """One sample, where the first image is that large."""
        return (self.channels, *(self.size or (height, width)))
