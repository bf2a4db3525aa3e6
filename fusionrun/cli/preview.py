"""`fusionrun preview`: the augmented first batch as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fusionrun.cli.options import RecipeArgument, RunsOption, SetOption


def preview(
    recipe: RecipeArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.png", help="the picture to write")
    ],
    set_: SetOption = None,
    runs: RunsOption = None,
) -> None:
    """Write the images of the first training batch, as augmentation leaves them, to a PNG.

    The same recipe and seed give the same picture. An older picture is overwritten.
    """
    from fusionrun.errors import UserError
    from fusionrun.plan.augmentation import in_words
    from fusionrun.plan.resolve import make_plan
    from fusionrun.plan.unsupported import refuse_unsupported
    from fusionrun.recipe.read import read_recipe
    from fusionrun.store.runs import runs_dir

    if output.suffix.lower() != ".png":
        raise UserError(f"--output: got {str(output)!r}, expected a name that ends in .png")
    plan = make_plan(read_recipe(recipe, set_ or []), runs_dir(runs))
    refuse_unsupported(plan)

    from fusionrun.store.atomic import write_bytes
    from fusionrun.train.preview import image_grids, png

    grids = image_grids(plan)
    write_bytes(output, png(grids))
    for view, images in grids:
        typer.echo(f"{view}: {len(images)} images of the first batch")
    typer.echo(f"augmentation: {in_words(plan) or 'none'}")
    typer.echo(f"{output}  written")
