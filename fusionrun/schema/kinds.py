"""Sections that come in kinds: an expert by `model`, a fusion, a scheduler or a data source by
`type` or `source`. The tag's value picks the model class that checks the rest.

A kind of this package stands in a table beside its `Kinds`, as a class or as `module:Class`, which
is imported when a recipe uses it; a kind of a user's package is an entry point that names its
section class. Entry points are only looked up for a tag that no built-in kind bears, so an
ordinary recipe pays for neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic_core import PydanticCustomError

from fusionrun.errors import Problem, UserError
from fusionrun.schema.base import Section, imported
from fusionrun.schema.chosen import Chosen

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

S = TypeVar("S", bound=Section)


class Kinds(Chosen, Generic[S]):
    """The kinds of one section, as an annotation: `fusion: Annotated[Fusion, FUSIONS]`.

    Args:
        tag: the key that names the kind. Each class declares it as a one-valued `Literal`.
        builtin: the section classes of this package, or where they stand, by tag.
        group: entry-point group in which other packages offer more; None for a closed set.
    """

    combined = "oneOf"

    def __init__(
        self, tag: str, builtin: Mapping[str, type[S] | str], group: str | None = None
    ) -> None:
        self.tag = tag
        self.group = group
        self._builtin = builtin

    def names(self) -> tuple[str, ...]:
        """Every known tag: the built-in ones in their order, then those of other packages."""
        return (*self._builtin, *(n for n in self._offered() if n not in self._builtin))

    def find(self, name: object) -> type[S] | None:
        """The section class of a tag, or None.

        Raises:
            UserError: another package offers it, and what it offers cannot be used.
        """
        if not isinstance(name, str):
            return None
        if name not in self._builtin and name in self._offered():
            return self._loaded(self._offered()[name])
        kind = self._builtin.get(name)
        return imported(kind) if isinstance(kind, str) else kind

    def choose(self, value: object) -> type[S] | None:
        """The section class that checks a mapping, by its tag; None when that cannot be told."""
        return self.find(value.get(self.tag)) if isinstance(value, Mapping) else None

    def sound(self) -> Iterator[tuple[str, type[S]]]:
        """The kinds with their tags, for lists: there a broken one of another package is left out,
        so that it spoils no recipe that does not use it."""
        for name in self.names():
            with suppress(UserError):
                if kind := self.find(name):
                    yield name, kind

    def _loaded(self, point: EntryPoint) -> type[S]:
        try:
            kind = point.load()
        except Exception as error:  # another package's code may raise anything
            got = f"{type(error).__name__}: {error}"
            raise _broken(point, got, "what can be imported") from error
        is_section = isinstance(kind, type) and issubclass(kind, Section)
        if not is_section or self.tag not in kind.model_fields:
            raise _broken(point, repr(kind), f"a Section class with the field {self.tag!r}")
        return cast("type[S]", kind)

    def _offered(self) -> Mapping[str, EntryPoint]:
        return _entry_points(self.group) if self.group else {}

    def _validate(self, value: Any) -> S:
        if isinstance(value, Section):
            return value  # type: ignore[return-value]
        if not isinstance(value, Mapping):
            raise PydanticCustomError("mapping_type", "a mapping")
        if self.tag not in value:
            raise PydanticCustomError("tag_missing", "no {tag}", {"tag": self.tag})
        kind = self.find(value[self.tag])
        if kind is None:
            raise PydanticCustomError("tag_unknown", "unknown {tag}", {"tag": self.tag})
        return kind.model_validate(value)

    def _classes(self) -> Iterable[type[S] | None]:
        return map(self.find, self._builtin)


def _broken(point: EntryPoint, got: str, expected: str) -> UserError:
    package = f"the package {point.dist.name} {point.dist.version}" if point.dist else "a package"
    fix = f"{package} offers it: install another version of that package, or remove it"
    where = f"{point.name!r}, entry point {point.value} of {point.group}"
    return UserError(Problem(None, where, got, expected, fix))


@cache
def _entry_points(group: str) -> Mapping[str, EntryPoint]:
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    return {point.name: point for point in entry_points(group=group)}
