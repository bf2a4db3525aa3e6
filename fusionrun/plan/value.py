"""One resolved leaf of a plan, and how named tuples of plain values become JSON and come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar

Origin = Literal["recipe", "set", "site", "preset", "rule", "default"]


class Value(NamedTuple):
    """One resolved leaf.

    Attributes:
        value: plain JSON; tuples stand for lists.
        source: who decided.
        why: one line: the place in the recipe, or the rule with its inputs.
        steps: the chain behind a number that several rules made, first to last.
    """

    value: Any
    source: Origin
    why: str
    steps: tuple[str, ...] = ()


T = TypeVar("T", bound=tuple[Any, ...])


def value_as_json(value: Value) -> dict[str, Any]:
    """The leaf as plain JSON; steps only where there are any."""
    content = value._asdict()
    return content if value.steps else {k: v for k, v in content.items() if k != "steps"}


def build(kind: type[T], content: Mapping[str, Any]) -> T:
    """A named tuple of what JSON holds of it; what it has no field for is passed over."""
    fields = kind._fields  # type: ignore[attr-defined]
    return kind(**{k: tuples(v) for k, v in content.items() if k in fields})


def tuples(value: Any) -> Any:
    """JSON lists as tuples, all the way down: what the strict schema and frozen values want."""
    if isinstance(value, list):
        return tuple(tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: tuples(item) for key, item in value.items()}
    return value
