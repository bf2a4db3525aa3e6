"""The one place where text becomes part of a shell script."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from fusionrun.errors import UserError

__all__ = [
    "Verbatim",
    "file_pattern",
    "quoted",
    "refuse_control_characters",
    "sbatch_quoted",
    "sbatch_word",
]


_PIECE: Final = re.compile(
    r"""\\.|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\s#'"\\]+""", re.ASCII | re.DOTALL
)
_LINE: Final = re.compile(rf"\s*(?P<word>(?:{_PIECE.pattern})+)\s*(?:#.*)?", re.ASCII | re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


class Verbatim(str):
    """Text that stands in the script as it is: a number, or what has been quoted already."""

    __slots__ = ()


def quoted(value: Any) -> str:
    """A value as one word of bash, whatever it holds.

    Raises:
        UserError: it is nothing, or holds a character that ends or hides a line.
    """
    if isinstance(value, Verbatim):
        return str(value)
    if value is None:
        raise UserError("a value that is null: expected text or a number, for a script has no null")
    text = str(value)
    refuse_control_characters(text)
    return shlex.quote(text)


def sbatch_quoted(value: Any) -> str:
    """A value as one word of a `#SBATCH` line.

    Not bash's rule: there a backslash takes the next character's meaning inside single quotes too
    (Slurm 22.05, `_get_argument` of sbatch; as tried).
    """
    return quoted(str(value).replace("\\", "\\\\"))


def sbatch_word(line: str) -> str:
    """The one word that follows `#SBATCH`, as sbatch reads it: up to an unquoted `#`.

    Raises:
        UserError: a quotation has no end, or there is another number of words.
    """
    match = _LINE.fullmatch(line)
    if not match:
        raise UserError(
            f"#SBATCH {line}: expected one option, `--name=value` in one word, quoted where it "
            "holds a space or one of # \\ ' \""
        )
    return _PIECE.sub(lambda piece: _ESCAPE.sub(r"\1", _inner(piece[0])), match["word"])


def _inner(piece: str) -> str:
    return piece[1:-1] if piece[0] in "'\"" else piece


def file_pattern(path: str) -> str:
    """A path as Slurm's `--output` takes it: there `%` begins a pattern. One backslash anywhere
    turns patterns off for the whole path, and then each backslash is written twice.
    """
    return path.replace("\\", "\\\\") if "\\" in path else path.replace("%", "%%")


def refuse_control_characters(text: str) -> None:
    """Raise UserError for text with a line break or another control character in it.

    A line break would end the `#SBATCH` line, and what follows it be a command.
    """
    for character in text:
        number = ord(character)
        if number < 32 or 127 <= number < 160 or character in "\u2028\u2029":
            raise UserError(
                f"{text!r}: holds the control character {character!r}; "
                "expected text on one line, for it goes into a shell script"
            )
        if 0xD800 <= number < 0xE000:
            raise UserError(f"{text!r}: expected UTF-8, for it goes into a shell script")
