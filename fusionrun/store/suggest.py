"""The nearest known name for one that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "nearest"]


def nearest(word: str, known: Iterable[str], limit: int = 1) -> list[str]:
    """Up to `limit` of `known` that are close enough to `word` to be meant, the closest first."""
    return get_close_matches(word, list(known), n=limit, cutoff=0.5)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'fusion'?`, or nothing when no name is close."""
    found = nearest(word, known)
    return f"did you mean {found[0]!r}?" if found else ""
