"""Durations that a user sets by an environment variable."""

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
