"""The schema in words: what a key expects, which keys stand where. For error messages and help.

Everything is read off the pydantic models, so a message cannot say other than what is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from fusionrun.schema.base import AUTO, NAME_PATTERN, OnDemand, OrAuto, Section
from fusionrun.schema.kinds import Kinds
from fusionrun.schema.recipe import Recipe

MOST_LISTED = 12
"""Names in one message: more are no help, and fill the screen."""

_SIGNS = {"gt": "greater than", "ge": "of at least", "lt": "less than", "le": "of at most"}


@dataclass(frozen=True)
class Spot:
    """One place of the schema: an annotation and what is laid on it (bounds, `OrAuto`, kinds)."""

    annotation: Any
    metadata: tuple[Any, ...] = ()

    @classmethod
    def of(cls, annotation: Any, metadata: Sequence[Any] = ()) -> Spot:
        """Strip `Annotated` layers into metadata."""
        while get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*metadata, *more)
        if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
            inner = [a for a in get_args(annotation) if a is not NoneType]
            if len(inner) == 1 and get_origin(inner[0]) is Annotated:
                nested = cls.of(inner[0], metadata)
                return cls(nested.annotation | None, nested.metadata)
        metadata = tuple(_flat(metadata))
        for mark in metadata:
            if isinstance(mark, OnDemand):
                annotation = mark.section(annotation)
        return cls(annotation, metadata)

    @property
    def chooser(self) -> Any | None:
        """What picks the section class from the value, if anything does."""
        return next((m for m in self.metadata if hasattr(m, "choose")), None)

    def step(self, key: str | int, value: Any) -> Spot | None:
        """The spot of a key below this one, where `value` is what stands here in the document."""
        if self.chooser:
            kind = self.chooser.choose(value)
            return Spot(kind).step(key, value) if kind else None
        if is_section(self.annotation):
            field = self.annotation.model_fields.get(key)
            return Spot.of(field.annotation, field.metadata) if field else None
        origin, args = get_origin(self.annotation), get_args(self.annotation)
        if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
            return Spot.of(args[1])
        if origin is tuple and isinstance(key, int):
            return Spot.of(args[0] if args[-1] is Ellipsis else args[min(key, len(args) - 1)])
        return self._step_into_union(key, value)

    def _step_into_union(self, key: str | int, value: Any) -> Spot | None:
        options = _options(self.annotation)
        steps = (Spot.of(option).step(key, value) for option in options)
        return next((spot for spot in steps if spot), None) if len(options) > 1 else None

    def keys(self, value: Any) -> tuple[str, ...]:
        """The keys that may stand here."""
        kind = self.chooser.choose(value) if self.chooser else self.annotation
        sections = [option for option in _options(kind) if is_section(option)]
        return tuple(sections[0].model_fields) if sections else ()

    def keys_of_any_kind(self) -> tuple[str, ...]:
        """The keys that may stand here in one kind or another."""
        return tuple(dict.fromkeys(key for kind in _sections(self) for key in kind.model_fields))

    def kinds_with(self, key: str) -> tuple[str, ...]:
        """The tags of the kinds that have a key; none where nothing is chosen by a tag."""
        if not isinstance(self.chooser, Kinds):
            return ()
        return tuple(name for name, kind in self.chooser.sound() if key in kind.model_fields)

    @property
    def words(self) -> tuple[str, ...]:
        """The words that may stand here, where only certain ones may."""
        literals = [o for o in _options(self.annotation) if get_origin(o) is Literal]
        words = [word for o in literals for word in get_args(o) if isinstance(word, str)]
        return (*words, *((AUTO,) if any(isinstance(m, OrAuto) for m in self.metadata) else ()))

    def takes(self, kind: type) -> bool:
        """Whether a bare `bool`, `int`, `float` or `str` may stand here."""
        return any(Spot.of(option).annotation is kind for option in _options(self.annotation))

    @property
    def is_free_mapping(self) -> bool:
        """Whether the user chooses the keys here (experts, environment variables)."""
        origin = get_origin(self.annotation)
        return isinstance(origin, type) and issubclass(origin, Mapping)


def spot_of(path: Sequence[str | int], document: Any) -> Spot | None:
    """The spot of a path in a recipe; None where the schema has nothing there."""
    spot: Spot | None = Spot(Recipe)
    for key in path:
        spot = spot.step(key, document) if spot else None
        document = _child(document, key)
    return spot


def describe(spot: Spot) -> str:
    """What may stand at a spot, in words: "a number greater than 0, or auto"."""
    words = _plain(spot)
    if any(isinstance(m, OrAuto) for m in spot.metadata):
        words += ", or auto"
    return words


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first ones of many."""
    return ", ".join([*names[:MOST_LISTED], *(["…"] if len(names) > MOST_LISTED else [])])


def all_keys() -> Iterator[str]:
    """Every dotted key a recipe can have; free names are written in capitals."""
    yield from _keys_below(Spot(Recipe), "")


def is_section(annotation: Any) -> bool:
    """Whether an annotation is a section class."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _keys_below(spot: Spot, prefix: str) -> Iterator[str]:
    for section in _sections(spot):
        for name, field in section.model_fields.items():
            yield f"{prefix}{name}"
            yield from _keys_below(_below(field), f"{prefix}{name}.")
    if spot.is_free_mapping and _sections(inner := Spot.of(get_args(spot.annotation)[1])):
        yield from _keys_below(inner, f"{prefix}NAME.")


def _below(field: FieldInfo) -> Spot:
    return Spot.of(field.annotation, field.metadata)


def _sections(spot: Spot) -> list[type[Section]]:
    if isinstance(spot.chooser, Kinds):
        return [kind for _, kind in spot.chooser.sound()]
    return [option for option in _options(spot.annotation) if is_section(option)]


def _options(annotation: Any) -> tuple[Any, ...]:
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return get_args(annotation)
    return (annotation,)


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for item in metadata:
        yield from item.metadata if isinstance(item, FieldInfo) else (item,)


def _child(value: Any, key: str | int) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return None


def _plain(spot: Spot) -> str:
    annotation = spot.annotation
    if isinstance(spot.chooser, Kinds):
        return f"a mapping with {spot.chooser.tag}: {listed(spot.chooser.names())}"
    if spot.chooser:
        return str(spot.chooser)
    options = _options(annotation)
    if len(options) > 1:
        parts = ["null" if o is NoneType else _plain(Spot.of(o, spot.metadata)) for o in options]
        return " or ".join(parts)
    return _one(annotation, spot.metadata)


def _one(annotation: Any, metadata: tuple[Any, ...]) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return listed([str(value) for value in args])
    if is_section(annotation):
        return f"a mapping of {listed(tuple(annotation.model_fields))}"
    if origin is tuple:
        length = "" if args[-1] is Ellipsis else f"{len(args)} values, each "
        return f"a list: {length}{describe(Spot.of(args[0]))}" + _least(metadata)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner, least = describe(Spot.of(args[1])), _least(metadata)
        return f"a mapping from names to {inner}" + ("" if inner.endswith(least) else least)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(annotation, "any value") + _bounds(annotation, metadata)


def _least(metadata: tuple[Any, ...]) -> str:
    return "; at least one" if any(getattr(m, "min_length", None) for m in metadata) else ""


def _bounds(annotation: Any, metadata: tuple[Any, ...]) -> str:
    if annotation is str and any(NAME_PATTERN in str(m) for m in metadata):
        return ": letters, digits, _ and -, at most 64"
    if annotation is str:
        patterns = [m.pattern for m in metadata if getattr(m, "pattern", None)]
        is_long = any(getattr(m, "min_length", None) for m in metadata)
        return f" that matches {patterns[0]}" if patterns else ", not empty" if is_long else ""
    found = {sign: getattr(m, sign) for m in metadata for sign in _SIGNS if hasattr(m, sign)}
    if "ge" in found and "le" in found:
        return f" from {found['ge']:g} to {found['le']:g}"
    words = [f"{_SIGNS[sign]} {bound:g}" for sign, bound in found.items()]
    return f" {' and '.join(words)}" if words else ""
