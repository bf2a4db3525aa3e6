"""What an unquoted scalar means: YAML 1.2.2, section 10.3.2 (the core schema).

Owns the words and numbers of that schema and nothing of YAML 1.1: `no` and `12:30` are text.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nan
from typing import Final

from fusionrun.recipe.nodes import Scalar

__all__ = ["MAX_NUMBER", "core", "is_number"]

MAX_NUMBER: Final = 400
"""Characters of a number: Python refuses to print integers of some thousands of digits."""

_WORDS: Final[Mapping[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), nan),
}
_DECIMAL: Final = frozenset("0123456789+-.eE")
_DIGITS: Final = {"0o": frozenset("01234567"), "0x": frozenset("0123456789abcdefABCDEF")}


def core(text: str) -> Scalar:
    """The value of an unquoted scalar of at most `MAX_NUMBER` characters, or any that is text."""
    if text in _WORDS:
        return _WORDS[text]
    if not is_number(text):
        return text
    if text[:2] in _DIGITS:
        return int(text, base=0)
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def is_number(text: str) -> bool:
    """Whether an unquoted scalar is a number, infinities apart; it may be of any length."""
    if digits := _DIGITS.get(text[:2]):
        return len(text) > 2 and digits.issuperset(text[2:])
    if not _DECIMAL.issuperset(text):
        return False
    # Python's floats are more than YAML's (1_000, inf, ١٢), but not in these characters.
    try:
        float(text)
    except ValueError:
        return False
    return True
