"""The recipe's JSON Schema, for editors that check and complete YAML.

Each key's description is the docstring under its field. They are read off the source here, and
only here: pydantic would do it at every start of the program. The schema that ships is made with

    python -m fusionrun.schema.json_schema > recipes/recipe.schema.json
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from fusionrun.schema.base import Section
from fusionrun.schema.recipe import Recipe


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12; a recipe names it in `# yaml-language-server: $schema=`."""
    schema = Recipe.model_json_schema()
    # Classes may share a name (torchvision has experts and data): their keys tell them apart.
    docs = {(k.__name__, frozenset(k.model_fields)): field_docs(k) for k in _subclasses(Section)}
    for node in _objects(schema):
        properties = node.get("properties", {})
        for name, text in docs.get((node.get("title", ""), frozenset(properties)), {}).items():
            if name in properties:  # (else a class variable)
                properties[name]["description"] = text
        if "patternProperties" in node:
            node["additionalProperties"] = False  # (pydantic leaves other names unsaid)
    schema["patternProperties"] = {"^x-": {}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def field_docs(kind: type[Section]) -> dict[str, str]:
    """The docstring under each field of a section, inherited ones included, by field name."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, Section) and base is not Section:
            docs |= _own_docs(base)
    return docs


def _own_docs(kind: type[Section]) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    docs = {}
    for field, text in pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            docs[field.target.id] = inspect.cleandoc(str(text.value.value)).replace("\n", " ")
    return docs


def _subclasses(kind: type[Section]) -> Iterator[type[Section]]:
    for below in kind.__subclasses__():
        yield below
        yield from _subclasses(below)


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a schema; those that describe objects are among them."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _objects(value)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
