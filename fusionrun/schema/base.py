"""What every part of the recipe's schema is made of. No torch, no files.

A section is a frozen, strict, closed pydantic model. Static types describe the *resolved*
recipe: a field annotated `OrAuto` may hold `AUTO` until `fusionrun.plan.resolve` has put a
number there, and nothing after that ever meets the word.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
)
from pydantic_core import PydanticCustomError, core_schema

AUTO: Final[Any] = "auto"
"""Stands for "the preset or a rule decides"; the default of every field that can be resolved."""

NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
MAX_COUNT: Final = 10**9
"""No width, batch or length comes near it, and the product of two still fits torch's int64."""
MAX_SEED: Final = 2**63 - 1
"""torch's int64: a larger seed is an error there, in the middle of a start."""
MAX_EPOCHS: Final = 100_000
"""A plan holds one rate an epoch for each component: it stays a matter of a second or two."""


class Section(BaseModel):
    """Base of every mapping in a recipe: unknown keys and loose types are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        defer_build=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class OrAuto:
    """Marks a field that may also be `auto` in a recipe: `Annotated[float, Gt(0), OrAuto()]`."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        inner = handler(source)
        return core_schema.no_info_wrap_validator_function(
            lambda value, validate: value if value == AUTO else validate(value),
            inner,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"const": AUTO}]}


class OnDemand:
    """Marks a section whose validator is built when a recipe has that section, not before.

    Building all of them takes longer than reading a recipe does: `fusionrun plan` starts faster.

    Args:
        place: `module:Class`, where even the class is to be made only then; the annotation is
            then `Any`. None: the annotation is the class.
    """

    def __init__(self, place: str | None = None) -> None:
        self._place = place

    def section(self, annotated: Any) -> Any:
        """The section class, for an annotation that bears this mark."""
        return imported(self._place) if self._place else annotated

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: self._validate(self.section(source), value), metadata={"source": source}
        )

    @staticmethod
    def _validate(section: type[Section], value: Any) -> Section:
        return value if isinstance(value, section) else section.model_validate(value)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        source = schema.get("metadata", {})["source"]
        return handler(TypeAdapter(self.section(source)).core_schema)


def imported(place: str) -> Any:
    """What stands at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def plain(value: Any) -> Any:
    """A section as mappings, tuples and scalars, below it too.

    In a list absent (None) fields are left out, as a user leaves them out; elsewhere they stay.
    No pydantic serializer is built for it: see `OnDemand`.
    """
    if isinstance(value, Section):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_without_absent(plain(item)) for item in value)
    return value


def _without_absent(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_absent(item) for k, item in value.items() if item is not None}
    return value


def _name(value: str) -> str:
    import re

    if not re.fullmatch(NAME_PATTERN, value):
        raise PydanticCustomError("name", "a name: letters, digits, _ and -, at most 64")
    return value


Name = Annotated[
    str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"})
]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=1)]


def _countable(value: int) -> int:
    if value > MAX_COUNT:
        raise PydanticCustomError("count", f"a whole number of at most {MAX_COUNT:,}")
    return value


def _epochs(value: int) -> int:
    if value > MAX_EPOCHS:
        words = f"a whole number of at most {MAX_EPOCHS:,}: a plan holds a rate for each epoch"
        raise PydanticCustomError("epochs", words)
    return value


def _seed(value: int) -> int:
    if value > MAX_SEED:
        raise PydanticCustomError("seed", "a whole number from 0 to 2**63 - 1, as torch takes it")
    return value


# The upper bounds are told only to who exceeds them: elsewhere "at least 1" says more.
_UP_TO_MAX_COUNT = (AfterValidator(_countable), Field(json_schema_extra={"maximum": MAX_COUNT}))
Count = Annotated[int, Field(ge=1), *_UP_TO_MAX_COUNT]
Natural = Annotated[int, Field(ge=0), *_UP_TO_MAX_COUNT]
Seed = Annotated[
    int, Field(ge=0), AfterValidator(_seed), Field(json_schema_extra={"maximum": MAX_SEED})
]
Epochs = Annotated[
    int, Field(ge=1), AfterValidator(_epochs), Field(json_schema_extra={"maximum": MAX_EPOCHS})
]
