"""What pydantic found wrong, said in the recipe's own words and places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from fusionrun.errors import Problem
from fusionrun.recipe.document import Document, Path, dotted
from fusionrun.recipe.suggest import fix_for_key, nearest
from fusionrun.schema.describe import Spot, describe, spot_of
from fusionrun.schema.kinds import Kinds

_MOST_SHOWN = 60


def problems_of(error: ValidationError, document: Document) -> list[Problem]:
    """Each thing that is wrong, once: several pydantic errors at one path are one problem."""
    found: dict[tuple[Path, bool], Problem] = {}
    for item in error.errors(include_url=False):
        path = _path(item)
        unknown_key = item["type"] == "extra_forbidden"
        found.setdefault((path, unknown_key), _problem(item, path, document))
    return list(found.values())


def shown(value: Any) -> str:
    """A value as a user would write it, short."""
    if isinstance(value, Mapping):
        text = "a mapping" + (f" of {', '.join(map(str, value))}" if value else " without keys")
    elif isinstance(value, tuple | list):
        text = f"[{', '.join(shown(item) for item in value)}]"
    elif isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "null (nothing)"}[value]
    else:
        text = repr(value)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def _path(item: Any) -> Path:
    context = item.get("ctx", {})
    if "path" in context:
        return tuple(context["path"])
    path = tuple(key for key in item["loc"] if key != "[key]")
    if item["type"] in {"tag_missing", "tag_unknown"}:
        return (*path, context["tag"])
    return (*path, context["key"]) if "key" in context else path


def _problem(item: Any, path: Path, document: Document) -> Problem:
    kind = item["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, document)
    if kind in {"missing", "tag_missing"}:
        return _missing(path, document)
    if kind == "tag_unknown":
        return _unknown_tag(path, document)
    spot = spot_of(path, document.value)
    own = item["msg"] if kind not in _PYDANTIC else ""
    return Problem(
        place=document.place(path, "key" if kind in {"name", "expert_case"} else "value"),
        key=dotted(path),
        got=shown(path[-1] if kind in {"name", "expert_case"} else _got(document, path)),
        expected=own.removeprefix("Value error, ") or (describe(spot) if spot else item["msg"]),
        fix=_fix(path, spot, document),
    )


def _unknown_key(path: Path, document: Document) -> Problem:
    parent = path[:-1]
    spot = spot_of(parent, document.value)
    valid = spot.keys(document.get(parent)) if spot else ()
    free = [key for key in valid if key not in document.get(parent)]
    return Problem(
        place=document.place(path, "key"),
        key=dotted(path),
        got=f"the key {path[-1]!r}",
        expected=f"one of {', '.join(free or valid)}",
        fix=fix_for_key(str(path[-1]), dotted(parent), valid),
    )


def _missing(path: Path, document: Document) -> Problem:
    parent = path[:-1]
    spot = spot_of(parent, document.value)
    tags = spot.chooser if spot and isinstance(spot.chooser, Kinds) else None
    here = spot.step(path[-1], document.get(parent)) if spot else None
    expected = ", ".join(tags.names()) if tags and tags.tag == path[-1] else here and describe(here)
    return Problem(
        place=document.place(parent, "key"),
        key=dotted(path),
        got="nothing: the key is missing",
        expected=expected or "a value",
        fix=f"add '{path[-1]}: …'" + (f" to {dotted(parent)}" if parent else ""),
    )


def _unknown_tag(path: Path, document: Document) -> Problem:
    spot = spot_of(path[:-1], document.value)
    names = spot.chooser.names() if spot and spot.chooser else ()
    value = document.get(path)
    return Problem(
        place=document.place(path),
        key=dotted(path),
        got=shown(value),
        expected=", ".join(names),
        fix=_did_you_mean(value, names),
    )


def _fix(path: Path, spot: Spot | None, document: Document) -> str:
    value = _got(document, path)
    if not isinstance(value, str) or spot is None:
        return ""
    return _did_you_mean(value, tuple(_literals(spot))) or _unquote(value, spot)


def _unquote(value: str, spot: Spot) -> str:
    """A number in quotes is text: say so, since the quotes are easy to overlook."""
    try:
        float(value)
    except ValueError:
        return ""
    return "remove the quotes: a quoted number is text" if "number" in describe(spot) else ""


def _literals(spot: Spot) -> Iterator[str]:
    for word in describe(spot).replace(", or auto", ", auto").split(", "):
        if word.isidentifier():
            yield word


def _did_you_mean(value: Any, valid: tuple[str, ...]) -> str:
    found = nearest(value, valid) if isinstance(value, str) else None
    return f"did you mean {found!r}?" if found else ""


def _got(document: Document, path: Path) -> Any:
    return document.get(path) if document.has(path) else None


_PYDANTIC = {
    "bool_type",
    "dict_type",
    "finite_number",
    "float_type",
    "greater_than",
    "greater_than_equal",
    "int_from_float",
    "int_type",
    "less_than",
    "less_than_equal",
    "literal_error",
    "mapping_type",
    "model_type",
    "none_required",
    "string_type",
    "too_long",
    "too_short",
    "tuple_type",
}
