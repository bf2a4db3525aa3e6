"""What pydantic found wrong, said in the recipe's own words and places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

from fusionrun.errors import Place, Problem
from fusionrun.nearest import nearest
from fusionrun.recipe.document import Document
from fusionrun.recipe.keys import Path, dotted
from fusionrun.recipe.suggest import fix_for_key, some_of
from fusionrun.schema.describe import MOST_LISTED, Spot, describe, listed, spot_of
from fusionrun.schema.kinds import Kinds

_MOST_SHOWN = 60


def problems_of(error: ValidationError, document: Document) -> list[Problem]:
    """Each thing that is wrong, once: several pydantic errors at one path are one problem."""
    found: dict[tuple[Path, bool], Problem] = {}
    for item in error.errors(include_url=False):
        path = _path(item, document)
        unknown_key = item["type"] == "extra_forbidden"
        found.setdefault((path, unknown_key), _problem(item, path, document))
        if item["type"] in {"tag_missing", "tag_unknown"}:
            for stray in _strays(path[:-1], document):
                found.setdefault((stray, True), _unknown_key(stray, document))
    # Where text or a list of text may stand, [1] is no text; that its first item is none says more.
    vague = {path[:end] for path, _ in found for end in range(len(path))}
    return [problem for (path, _), problem in found.items() if path not in vague]


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


def _path(item: Any, document: Document) -> Path:
    """Where the error is in the recipe: pydantic's location less its own words for union arms."""
    context = item.get("ctx", {})
    if "path" in context:
        return tuple(context["path"])
    path: Path = ()
    for key in item["loc"]:
        path = (*path, key) if document.has((*path, key)) else path
    if item["type"] in {"tag_missing", "tag_unknown"}:
        return (*path, context["tag"])
    if item["type"] == "missing" and isinstance(item["loc"][-1], str):
        return (*path, item["loc"][-1])
    return (*path, context["key"]) if "key" in context else path


def _strays(section: Path, document: Document) -> Iterator[Path]:
    """The keys that no kind has, where it cannot be told which kind a section is."""
    spot = spot_of(section, document.value)
    written = document.get(section)
    if spot and isinstance(written, Mapping):
        known = spot.keys_of_any_kind()
        yield from ((*section, key) for key in written if key not in known)


def _problem(item: Any, path: Path, document: Document) -> Problem:
    kind = item["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, document)
    if kind in {"missing", "tag_missing"} and not document.has(path):
        return _missing(path, document)
    if kind == "tag_unknown":
        return _unknown_tag(path, document)
    spot = spot_of(path, document.value)
    own = "" if kind in _PYDANTIC else item["msg"]
    about_key = kind in {"name", "expert_case"}
    return Problem(
        place=document.place(path, "key" if about_key else "value"),
        key=dotted(path),
        got=shown(path[-1]) if about_key else _got(document, path),
        expected=own or (describe(spot) if spot else item["msg"]),
        fix="" if about_key else _fix(path, spot, document),
    )


def _unknown_key(path: Path, document: Document) -> Problem:
    parent, key = path[:-1], str(path[-1])
    spot = spot_of(parent, document.value)
    written = document.get(parent)
    valid = (spot.keys(written) or spot.keys_of_any_kind()) if spot else ()
    # Of many keys those that are still free say more; of a few, all are soon read.
    free = [name for name in valid if name not in written or len(valid) <= MOST_LISTED]
    return Problem(
        place=document.place(path, "key"),
        key=dotted(path),
        got=f"the key {shown(key)}",
        expected=f"one of {some_of(free or valid, key)}",
        fix=(spot and _of_another_kind(key, spot, valid))
        or fix_for_key(key, dotted(parent), valid),
    )


def _of_another_kind(key: str, spot: Spot, valid: Sequence[str]) -> str:
    """The fix for a key, or a slip of one, that only other kinds of this section have."""
    others = [name for name in spot.keys_of_any_kind() if name not in valid]
    meant = key if key in others else None if nearest(key, valid, 0.7) else nearest(key, others)
    if meant is None:
        return ""
    question = "" if meant == key else f"did you mean {meant!r}? "
    if isinstance(spot.chooser, Kinds):
        tags = spot.kinds_with(meant)
        return f"{question}{meant!r} belongs to {spot.chooser.tag} {_either(tags)}"
    return f"{question}{meant!r} belongs to another form of it: {spot.chooser}"


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _missing(path: Path, document: Document) -> Problem:
    parent = path[:-1]
    spot = spot_of(parent, document.value)
    tags = spot.chooser if spot and isinstance(spot.chooser, Kinds) else None
    here = spot.step(path[-1], document.get(parent)) if spot else None
    expected = listed(tags.names()) if tags and tags.tag == path[-1] else here and describe(here)
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
        expected=some_of(names, value if isinstance(value, str) else ""),
        fix=_did_you_mean(value, names),
    )


def _fix(path: Path, spot: Spot | None, document: Document) -> str:
    if not document.has(path):
        return f"add '{path[-1]}: …' to {dotted(path[:-1])}"
    value = document.get(path)
    if spot is None:
        return ""
    if isinstance(value, str):
        return _did_you_mean(value, spot.words) or _no_number(value, spot, document.place(path))
    if isinstance(value, float) and not isfinite(value):
        return "only finite numbers"
    if isinstance(value, float) and value.is_integer() and spot.takes(int):
        return f"write {int(value)}: a number with a point or an exponent is no whole number"
    is_text = spot.takes(str) and not any(map(spot.takes, (bool, int, float)))
    return _quote(path, document) if is_text else ""


def _no_number(value: str, spot: Spot, place: Place) -> str:
    """Text that Python takes for a number and YAML does not: in quotes, which are easy to
    overlook, or with underscores."""
    if spot.takes(bool) and value.casefold() in {"yes", "no", "on", "off", "true", "false"}:
        return "write true or false, without quotes"
    number = int if spot.takes(int) else float if spot.takes(float) else None
    try:
        if number is None or not isfinite(number(value)):
            return ""
    except ValueError:
        return ""
    if "_" in value:
        return f"write {value.replace('_', '')}: a number has no underscores"
    is_quoted = place.text[place.column - 1 : place.column] in {"'", '"'}
    return "remove the quotes: a quoted number is text" if is_quoted else "write digits 0 to 9"


def _quote(path: Path, document: Document) -> str:
    """A number, true or null that should be text: it only lacks quotes."""
    place = document.place(path)
    written = place.text[place.column - 1 : place.column - 1 + place.length]
    is_scalar = not isinstance(document.get(path), Mapping | tuple)
    return f'put quotes around it: "{written}"' if is_scalar and written else ""


def _did_you_mean(value: Any, valid: tuple[str, ...]) -> str:
    """The word that was meant; none where it is a right one, in a wrong place."""
    found = nearest(value, valid) if isinstance(value, str) and value not in valid else None
    return f"did you mean {found!r}?" if found else ""


def _got(document: Document, path: Path) -> str:
    return shown(document.get(path)) if document.has(path) else "nothing: the key is missing"


# The errors that pydantic makes itself; their messages speak of Python, not of recipes.
_PYDANTIC = {*get_args(ErrorType)}
