"""Durations: as a user sets them by an environment variable, and in words."""

from __future__ import annotations

from collections.abc import Mapping

from fusionrun.errors import UserError


def seconds_from(environment: Mapping[str, str], variable: str, default: float) -> float:
    """The seconds a variable holds, or the default where it is unset or empty.

    Raises:
        UserError: it holds something else than a finite number above 0.
    """
    given = environment.get(variable, "")
    try:
        seconds = float(given) if given else default
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"{variable}: got {given!r}, expected seconds, more than 0")
    return seconds


def in_words(seconds: int) -> str:
    """`1 d 12 h`, `2 h`, `5 min`: all its parts that are not zero."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def slices_in_words(slices: float, limit: str) -> str:
    """How many jobs of a time limit something takes, which may be less than one."""
    if slices <= 1:
        return f"fits into one slice of {limit}"
    return f"needs {slices:.1f} slices of {limit}"
