"""Sections whose class is chosen by what a user has written, as an annotation.

A pydantic union would try every class and report the errors of all; here one class is chosen, and
an error speaks of what was meant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import core_schema

__all__ = ["Chosen"]


class Chosen(ABC):
    """Validates a value by one of several section classes."""

    combined: ClassVar[Literal["anyOf", "oneOf"]]
    """How the JSON Schema joins the classes: may a value fit several, or one alone."""

    @abstractmethod
    def _validate(self, value: Any) -> Any:
        """The section of a written value; raises what pydantic expects of a validator."""

    @abstractmethod
    def _classes(self) -> Iterable[Any]:
        """The section classes that the JSON Schema shows."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda section: section.model_dump()
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {self.combined: [handler(TypeAdapter(c).core_schema) for c in self._classes()]}
