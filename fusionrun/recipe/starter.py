"""The recipe that `fusionrun init` writes: one expert for each view of the data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from fusionrun.data.header import read_summary
from fusionrun.errors import Problem, UserError
from fusionrun.recipe.flow import flow
from fusionrun.resources import shipped
from fusionrun.schema.data import Npz
from fusionrun.schema.experts import CNN, PATHS, looks_channels_last
from fusionrun.store.atomic import write_text

LONGEST_NAME = 64
CHANNELS = (32, 64)
_TABLES = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}
"""How a file's name ends → the data source that a recipe reads it with."""


class StarterExpert(NamedTuple):
    """One line of the recipe; `channels` is empty where an mlp reads the view."""

    name: str
    view: str
    channels: tuple[int, ...]


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
        UserError: the recipe exists already, or cannot be written; the data is no .npz file.
        DataError: the data cannot be read.
    """
    if output.exists() and not force:
        raise UserError(f"{output}: exists already; --force overwrites it, or name another file")
    if source := _TABLES.get(Path(data).suffix.casefold()):
        raise UserError(_not_npz(data, source))
    summary = read_summary(Npz(source="npz", path=data, label=label), Path.cwd())
    names = expert_names(summary.views)
    experts = [
        StarterExpert(names[view], view, _channels(shape)) for view, shape in summary.views.items()
    ]
    text = _render(output, _name(data), _path_from(output, data), label, experts)
    text += "".join(
        _channels_last(view, shape)
        for view, shape in summary.views.items()
        if looks_channels_last(shape)
    )
    try:
        write_text(output, text)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}") from error
    return len(experts)


def _not_npz(data: str, source: str) -> Problem:
    return Problem(
        None,
        f"--data {data}",
        got=f"a file for 'source: {source}'",
        expected="an .npz file, or package:NAME: init reads no others",
        fix=f"run init without --data for an example, and put 'source: {source}' in its 'data:'",
    )


def _channels_last(view: str, shape: tuple[int, ...]) -> str:
    """What a recipe says of an image that a cnn would misread."""
    size = " × ".join(map(str, shape))
    return (
        f"\n# The view {flow(view)} of shape {size} looks like channels last, so an mlp reads it.\n"
        "# A cnn expects (channels, height, width): transpose it, numpy.moveaxis(x, -1, 1).\n"
    )


def expert_names(views: Iterable[str]) -> dict[str, str]:
    """An expert's name for each view: the view's own where it can be one, and each once.

    Letters, digits, _ and - stay, any other stretch becomes one -; views that come out alike,
    upper and lower case apart, are numbered from 2.
    """
    names: dict[str, str] = {}
    taken = set(PATHS)
    for view in views:
        base = re.sub(r"[^A-Za-z0-9_-]+", "-", view).strip("-_")[:LONGEST_NAME] or "view"
        name, number = base, 1
        while name.casefold() in taken:
            number += 1
            suffix = f"-{number}"
            name = base[: LONGEST_NAME - len(suffix)] + suffix
        taken.add(name.casefold())
        names[view] = name
    return names


def _channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Blocks of a cnn, as many as the image is large enough for; none: no image, or a tiny one."""
    if len(shape) == 1:
        return ()
    sizes = (CHANNELS[:blocks] for blocks in range(len(CHANNELS), 0, -1))
    return next((channels for channels in sizes if _fits(channels, shape)), ())


def _fits(channels: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        CNN(model="cnn", view="", channels=channels).check(shape)
    except ValueError:
        return False
    return True


def _name(data: str) -> str:
    stem = Path(data.removeprefix("package:")).stem.replace("_", "-")
    return "".join(c if c.isprintable() else "-" for c in stem).strip() or "recipe"


def _path_from(output: Path, data: str) -> str:
    """The data's path as the recipe has to say it: relative to itself, unless it was absolute."""
    if data.startswith("package:") or os.path.isabs(data):
        return data
    return os.path.relpath(data, output.parent)


def _render(
    output: Path, name: str, data: str, label: str, experts: Iterable[StarterExpert]
) -> str:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        loader=FileSystemLoader(shipped("templates")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # (YAML, not HTML; every value goes through `quoted`)
    )
    environment.filters["quoted"] = _quoted
    values: Mapping[str, object] = {"name": name, "data": data, "label": label, "experts": experts}
    printable = "".join(c if c.isprintable() else "?" for c in str(output))
    return environment.get_template("recipe.yaml.j2").render(values, file=printable)


def _quoted(value: object) -> str:
    """A value as YAML reads it back: bare where that is safe, else in JSON's quotes."""
    text = str(value)
    return text if re.fullmatch(r"package:[a-z_]+", text) else flow(value)
