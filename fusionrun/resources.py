"""Recipes and templates that ship with fusionrun: at the top of a checkout, inside a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(kind: str) -> Path:
    """Directory of the shipped `recipes` or `templates`.

    An installed wheel carries them in the package; an editable install finds the checkout's.
    """
    inside = _PACKAGE / "_shipped" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind
