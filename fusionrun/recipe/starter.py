"""The recipe that `fusionrun init` writes: one expert for each view of the data."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fusionrun.data.header import read_summary
from fusionrun.errors import UserError
from fusionrun.resources import shipped
from fusionrun.schema.data import Npz
from fusionrun.store.atomic import write_text


def write_starter(output: Path, data: str, label: str, force: bool) -> int:
    """Write a recipe for a data file.

    Args:
        output: the recipe to write.
        data: an .npz file, or `package:NAME`.
        label: name of the label's array.
        force: overwrite an existing recipe.

    Returns:
        How many experts the recipe has.

    Raises:
        UserError: the recipe exists already, or cannot be written.
        DataError: the data cannot be read.
    """
    if output.exists() and not force:
        raise UserError(f"{output}: exists already; --force overwrites it, or name another file")
    summary = read_summary(Npz(source="npz", path=data, label=label), Path.cwd())
    path = data if data.startswith("package:") else os.path.relpath(data, output.parent or ".")
    text = _render(
        name=_name(data),
        data=path,
        label=label,
        views={view: len(shape) > 1 for view, shape in summary.views.items()},
    )
    try:
        write_text(output, text)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from error
    return len(summary.views)


def _name(data: str) -> str:
    return Path(data.removeprefix("package:")).stem.replace("_", "-")


def _render(name: str, data: str, label: str, views: dict[str, bool]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(shipped("templates")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # (YAML, not HTML; every value goes through `quoted`)
    )
    environment.filters["quoted"] = _quoted
    experts = {re.sub(r"[^A-Za-z0-9_-]", "-", view).lstrip("-_"): view for view in views}
    images = {view for view, is_image in views.items() if is_image}
    template = environment.get_template("recipe.yaml.j2")
    return template.render(name=name, data=data, label=label, experts=experts, images=images)


def _quoted(text: str) -> str:
    """Text as YAML reads it back: bare where that is safe, else in JSON's quotes."""
    from fusionrun.plan.as_recipe import flow

    return text if re.fullmatch(r"package:[a-z_]+", text) else flow(text)
