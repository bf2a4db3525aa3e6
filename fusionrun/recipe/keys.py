"""Dotted keys, such as `rules[1].when`: paths in print, and how print is read back.

Owns how a path is written wherever a user sees one: in messages, plans and `--set` arguments. It
must not know what stands at a path.
"""

from __future__ import annotations

import re
from typing import Final

from fusionrun.errors import Problem, RecipeError
from fusionrun.recipe.text import Text

__all__ = ["KEY_FORM", "Path", "dotted", "key_text", "parse_dotted", "split_key"]

Path = tuple[str | int, ...]
"""Where a value stands in a document: keys of mappings and indices of lists."""

KEY_FORM: Final = "keys joined by dots, indices in brackets: rules[0].scale"

# The next part from where the last one ended. Text, as few keys need it: most hold dots alone.
_PART: Final = (
    r'(?:^|(?!^)\.)(?:(?P<quoted>"(?:[^"\\]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r'|(?P<bare>[^.\[\]"]+))'
    r"|\[(?P<index>[0-9]{1,9})\]"
)
_QUOTED: Final = frozenset(' .[]"=')
"""What may not stand in a bare key; of the blanks only the space is printable."""


def dotted(path: Path) -> str:
    """A path in print, such as `rules[1].when`; keys that hold a dot and the like are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + key_text(part)
    return text


def parse_dotted(text: str) -> Path:
    """The path that `dotted` printed; in `rules.0.scale` the 0 is a key that lists take too.

    Raises:
        RecipeError: the text is no dotted key.
    """
    if not any(special in text for special in '[]"') and all(plain := text.split(".")):
        return tuple(plain)
    parts, stop = split_key(text)
    if stop < len(text):
        source = Text(text, "key", order=1)
        raise RecipeError([Problem(source.place(stop), text, repr(text[stop:]), KEY_FORM)])
    return tuple(part for part, _, _ in parts)


def key_text(key: str) -> str:
    """One key in print: bare where it can be, else in JSON's quotes."""
    if key and key.isprintable() and _QUOTED.isdisjoint(key):
        return key
    import json  # (few keys need it)

    return json.dumps(key, ensure_ascii=not key.isprintable())


def split_key(text: str) -> tuple[list[tuple[str | int, int, int]], int]:
    """The parts of a dotted key, each with where it begins and ends; and where reading stopped."""
    pattern = re.compile(_PART)
    parts: list[tuple[str | int, int, int]] = []
    stop = 0
    while match := pattern.match(text, stop):
        kind = str(match.lastgroup)
        parts.append((_part(match[kind], kind), match.start(kind), match.end(kind)))
        stop = match.end()
    return parts, stop


def _part(written: str, kind: str) -> str | int:
    if kind == "index":
        return int(written)
    if kind == "bare":
        return written
    import json  # (few keys are quoted)

    return str(json.loads(written, strict=False))
