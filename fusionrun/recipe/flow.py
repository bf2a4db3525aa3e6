"""Values as YAML text on one line, such that YAML 1.1 and 1.2 read the same value back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = {"true", "false", "null", "auto", "yes", "no", "on", "off", "y", "n"}


def flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A number, a word or a text; in quotes where it could be read as something else."""
    if isinstance(value, str) and (
        value == "auto" or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS)
    ):
        return value
    printable = isinstance(value, str) and value.isprintable()
    return json.dumps(value, ensure_ascii=not printable)
