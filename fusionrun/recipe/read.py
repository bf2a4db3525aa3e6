"""From a file and `--set` arguments to a `Recipe`; every problem at once, each with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from fusionrun.errors import Problem, RecipeError, UserError
from fusionrun.nearest import nearest
from fusionrun.recipe.document import Document, read_document
from fusionrun.recipe.keys import dotted, parse_dotted
from fusionrun.recipe.problems import problems_of
from fusionrun.recipe.text import read_raw
from fusionrun.schema.describe import spot_of
from fusionrun.schema.recipe import Recipe


class Source(NamedTuple):
    """A recipe with the text it came from.

    Attributes:
        recipe: validated, nothing resolved yet.
        document: values and places, `--set` included.
        text: what the user wrote, unchanged.
        base_dir: what relative paths in the recipe are relative to.
    """

    recipe: Recipe
    document: Document
    text: str
    base_dir: Path


def read_recipe(path: Path, settings: Sequence[str] = (), site: Path | None = None) -> Source:
    """Read a recipe's file.

    Args:
        path: the YAML file.
        settings: `key=value` arguments of `--set`, applied in order on top of the file.
        site: a file with a `slurm` section that the recipe's own is laid upon.

    Raises:
        UserError: the file cannot be read.
        RecipeError: with every problem found, in file order.
    """
    raw = _read(path)
    document = read_document(raw, str(path))
    if site is not None:
        from fusionrun.recipe.site import above_site  # (seldom needed)

        document = above_site(document, site)
    for setting in settings:
        document = _with_setting(document, setting)
    return Source(_validate(document), document, raw.decode("utf-8-sig"), path.resolve().parent)


def derived(source: Source, document: Document) -> Source:
    """The same recipe's text, taken to say something else: what a stage of it comes to.

    Raises:
        RecipeError: it is no valid recipe.
    """
    return source._replace(recipe=_validate(document), document=document)


def _validate(document: Document) -> Recipe:
    value = {key: item for key, item in document.value.items() if not key.startswith("x-")}
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        raise RecipeError(problems_of(error, document)) from error


def _with_setting(document: Document, setting: str) -> Document:
    """Lay one `--set` on top; names that the user chose (experts) must exist already."""
    changed = document.with_setting(setting)
    path = parse_dotted(setting.partition("=")[0].strip())
    for depth in range(1, len(path) + 1):
        spot = spot_of(path[: depth - 1], document.value)
        taken = document.get(path[: depth - 1]) if document.has(path[: depth - 1]) else {}
        if not isinstance(taken, Mapping):
            break  # (what is wrong with it, the schema says)
        if spot and spot.is_free_mapping and path[0] == "experts" and path[depth - 1] not in taken:
            raise RecipeError([_no_such_name(changed, path[:depth], tuple(taken))])
    return changed


def _no_such_name(
    document: Document, path: tuple[str | int, ...], names: tuple[str, ...]
) -> Problem:
    found = nearest(str(path[-1]), names)
    return Problem(
        place=document.place(path, "key"),
        key=dotted(path),
        got=f"the name {path[-1]!r}",
        expected=f"one of {', '.join(names)}",
        fix=f"did you mean {found!r}?" if found else "--set changes what the recipe has",
    )


def _read(path: Path) -> bytes:
    try:
        return read_raw(path)
    except FileNotFoundError as error:
        near = nearest(path.name, [p.name for p in path.parent.glob("*.y*ml")])
        hint = f"; did you mean {path.parent / near}?" if near else ""
        raise UserError(f"{path}: no such file{hint}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a directory; expected a recipe's YAML file") from error
    except OSError as error:
        if not path.is_file() and path.exists():
            raise UserError(f"{path}: {error.strerror}; expected a recipe's YAML file") from error
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
