"""Data sets that ship inside the package: `path: package:NAME` in a recipe.

Knows which files there are, and nothing of what is in them. ATTRIBUTION.md says whose they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["path_of", "shipped"]

_FILES: Final = {"handwritten_digits": "handwritten_digits.npz"}


def shipped() -> tuple[str, ...]:
    """The names that may follow `package:`."""
    return tuple(_FILES)


def path_of(name: str) -> Path:
    """The file of a shipped data set.

    Raises:
        KeyError: nothing of that name ships; `shipped` lists what does.
    """
    return Path(__file__).parent / _FILES[name]
