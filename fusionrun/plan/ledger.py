"""The leaves of a recipe while they are being resolved: which are settled, by whom, which wait."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fusionrun.plan.leaves import leaves, nest
from fusionrun.plan.plan import Origin, Value
from fusionrun.recipe.document import Document
from fusionrun.recipe.keys import Path, parse_dotted
from fusionrun.recipe.read import Source
from fusionrun.schema.base import AUTO, plain

if TYPE_CHECKING:
    from fusionrun.schema.experts import Expert

PENDING = Value(AUTO, "default", "not resolved")


class Ledger:
    """Every leaf of a recipe by its dotted key, in the schema's order.

    A leaf is settled once: by the recipe, `--set`, a preset, a rule or a default; whoever comes
    later finds it closed. What nobody settled at the end is an error of ours.

    Args:
        source: the recipe.
        trained_before: experts that come out of a run before this one.
    """

    def __init__(self, source: Source, trained_before: Collection[str] = ()) -> None:
        self._document = source.document
        self._trained_before = frozenset(trained_before)
        self._values = {key: self._first(key, value) for key, value in leaves(plain(source.recipe))}

    def _first(self, key: str, value: Any) -> Value:
        if value == AUTO:
            return PENDING
        if not self.given(key):
            return Value(value, "default", "default")
        return Value(value, self._origin(key), self.place(key))

    def _origin(self, key: str) -> Origin:
        path = self._written(key) or ()
        if self._document.is_from_site(path):
            return "site"
        return "set" if self._document.is_set(path) else "recipe"

    def _written(self, key: str) -> Path | None:
        """Where the user wrote a leaf: at its key, or in a list that is short for a mapping."""
        path = parse_dotted(key)
        if self._document.has(path):
            return path
        while path and not self._document.has(path):
            path = path[:-1]
        return None if isinstance(self._document.get(path), Mapping) else path

    def given(self, key: str) -> bool:
        """Whether the user wrote this key, whatever they wrote."""
        return self._written(key) is not None

    def given_number(self, key: str) -> bool:
        """Whether the user wrote a value of their own here, not `auto`."""
        path = self._written(key)
        return path is not None and self._document.get(path) != AUTO

    def place(self, key: str) -> str:
        """Where the user wrote it, as `file:line:column`, or `--set`."""
        place = self._document.place(self._written(key) or parse_dotted(key))
        return f"--set {place.text}" if not place.line else str(place)

    @property
    def document(self) -> Document:
        """The text behind the ledger."""
        return self._document

    def pending(self, key: str) -> bool:
        """Whether a leaf stands open."""
        return self._values.get(key) is PENDING

    def __getitem__(self, key: str) -> Any:
        """The value of a settled leaf."""
        return self._values[key].value

    def get(self, key: str, default: Any) -> Any:
        """The value of a settled leaf, or the default where the recipe has no such leaf."""
        return self[key] if key in self._values else default

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def entry(self, key: str) -> Value:
        """A leaf with its reason."""
        return self._values[key]

    def settle(
        self, key: str, value: Any, source: Origin, why: str, steps: tuple[str, ...] = ()
    ) -> None:
        """Close a leaf that stands open; one that is settled keeps what it has."""
        if self._values.get(key, PENDING) is PENDING:
            self._values[key] = Value(value, source, why, steps)

    def is_pretrained(self, name: str, expert: Expert) -> bool:
        """Whether an expert starts from weights: given ones, or those of a run before this one."""
        return expert.is_pretrained or name in self._trained_before

    def note(self, key: str, step: str) -> None:
        """Add a line to the chain behind a settled leaf."""
        value = self._values[key]
        self._values[key] = value._replace(steps=(*value.steps, step))

    def follow(self, key: str, value: Any, why: str) -> None:
        """Close a leaf with what follows from the rest, if the user has not written it."""
        if not self.given_number(key):
            self._values[key] = Value(value, "rule", why)

    def expand(self, key: str, section: Mapping[str, Any], source: Origin, why: str) -> None:
        """Put a whole section in the place of an open or empty leaf; its autos stay open."""
        new = {
            full: PENDING if value == AUTO else Value(value, source, why)
            for full, value in leaves(section, key)
        }
        items = [new if k == key else {k: v} for k, v in self._values.items()]
        self._values = {k: v for item in items for k, v in item.items()}

    def open_names(self, parent: str, names: tuple[str, ...]) -> None:
        """Give a free mapping a leaf for each name, in this order; those written keep theirs."""
        children = {f"{parent}.{name}": PENDING for name in names}
        children |= {k: v for k, v in self._values.items() if k.startswith(f"{parent}.")}
        values: dict[str, Value] = {}
        for key, value in self._values.items():
            values |= children if key == parent or key in children else {key: value}
        self._values = values

    def section(self, prefix: str) -> dict[str, Any]:
        """The settled leaves below a key, nested again."""
        below = f"{prefix}."
        return nest(
            {k.removeprefix(below): v.value for k, v in self._values.items() if k.startswith(below)}
        )

    def values(self) -> dict[str, Value]:
        """All leaves, at the end. The word `auto` as a name or a path is a word like any other.

        Raises:
            RuntimeError: a leaf was left open; no recipe may do that.
        """
        return {key: self._closed(key, value) for key, value in self._values.items()}

    def _closed(self, key: str, value: Value) -> Value:
        if value is not PENDING:
            return value
        if not self.given(key):
            raise RuntimeError(f"nothing settles {key}: the resolver has no rule for it")
        return Value(value.value, self._origin(key), self.place(key))
