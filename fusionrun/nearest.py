"""The known name that was most likely meant by one that is not known."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "distance", "is_slip", "nearest"]

_LONGEST = 80
"""Characters that are compared: no key is longer, and the effort grows with the square."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like `name`, or None. Case, `_` and `-` count for nothing.

    A name that is a slip of the fingers away comes first, then the one name that begins so; else
    difflib's likeness decides.
    """
    from difflib import get_close_matches  # only mistakes pay for it

    known = tuple(known)
    close = [candidate for candidate in known if is_slip(name, candidate)]
    if close:
        return min(close, key=lambda c: (_slips(_fold(name), _fold(c)), _slips(name, c)))
    longer = [c for c in known if len(name) > 2 and _fold(c).startswith(_fold(name))]
    if len(longer) == 1:
        return longer[0]
    by_fold = {_fold(candidate): candidate for candidate in known}
    found = get_close_matches(_fold(name), by_fold, n=1, cutoff=cutoff)
    return by_fold[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest of `known`; empty when none is near."""
    found = nearest(name, known, cutoff=0.5)
    return f"did you mean {found!r}?" if found else ""


def distance(name: str, candidate: str) -> int:
    """Slips between two names; case, `_` and `-` count for nothing."""
    return _slips(_fold(name)[:_LONGEST], _fold(candidate))


def _fold(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")


def is_slip(name: str, candidate: str) -> bool:
    """Whether the two differ by one slip, or one in four letters, and have something in common."""
    word, other = _fold(name), _fold(candidate)
    most = max(1, len(other) // 4)
    if abs(len(word) - len(other)) > most or len(word) > _LONGEST:
        return False
    return _slips(word, other) <= most and _slips(word, other) < max(len(word), len(other), 1)


def _slips(one: str, other: str) -> int:
    """Letters left out, added, changed or swapped with the next (optimal string alignment)."""
    earlier: list[int] = []
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            fewest = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                fewest = min(fewest, earlier[j - 2] + 1)
            row.append(fewest)
    return row[-1]
