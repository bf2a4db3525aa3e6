"""The one place where text becomes part of a shell script."""

from __future__ import annotations

import shlex
from typing import Any

from fusionrun.errors import UserError

__all__ = ["Verbatim", "file_pattern", "quoted", "refuse_control_characters"]


class Verbatim(str):
    """Shell text that stands in the script as it is: a user's own set-up line."""

    __slots__ = ()


def quoted(value: Any) -> str:
    """A value as one word of bash, whatever it holds.

    Raises:
        UserError: it holds a character that ends or hides a line.
    """
    if isinstance(value, Verbatim):
        return str(value)
    text = str(value)
    refuse_control_characters(text)
    return shlex.quote(text)


def file_pattern(path: str) -> str:
    """A path as Slurm's `--output` takes it: there `%` begins a pattern, and `\\` turns that off
    for the whole path.
    """
    return path.replace("%", "%%")


def refuse_control_characters(text: str) -> None:
    """Raise UserError for text with a line break or another control character in it.

    A line break would end the `#SBATCH` line, and what follows it be a command.
    """
    for character in text:
        if ord(character) < 32 or ord(character) == 127 or character in "\x85\u2028\u2029":
            raise UserError(
                f"{text!r}: holds the control character {character!r}; "
                "expected text on one line, for it goes into a shell script"
            )
