"""What to say of a text that is no YAML: the parser's words, made advice.

Needed only when a text is wrong, and imported only then.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

import yaml

from fusionrun.errors import Place, Problem
from fusionrun.recipe.text import Text

__all__ = ["no_character", "syntax_problem"]


class _Slip(NamedTuple):
    """A mistake that people make, and how the parsers call it.

    Attributes:
        pattern: matches `context: problem`, the words of libyaml or of PyYAML.
        at: which of the error's two marks shows the mistake.
        got: what came, with {char} for the character there.
        fix: what to do about it.
    """

    pattern: str
    at: Literal["context", "problem"]
    got: str
    fix: str


_NO_CHARACTER: Final = ("an escape that means no character", "write the character itself")
_UNSPACED: Final = r"\s*(?:- +)?([\w.-]+):([^\s:/][^:]*)"
_QUOTE: Final = "put quotes around it: '…'"
_SLIPS: Final = (
    _Slip("cannot start any token", "problem", "text that begins with {char}", _QUOTE),
    _Slip("directive", "context", "text that begins with {char}", _QUOTE),
    _Slip("an? (alias|anchor)", "context", "text that begins with {char}", _QUOTE),
    _Slip("block scalar", "context", "text that begins with {char}", _QUOTE),
    _Slip(
        "quoted scalar: .*(end of stream|document)",
        "context",
        "a quote that is opened here and never closed",
        "close it with another {char}",
    ),
    _Slip(
        "unknown escape",
        "problem",
        "a backslash that begins no escape",
        "use single quotes, which keep backslashes as they are, or write each twice",
    ),
    _Slip("quoted scalar: ", "problem", *_NO_CHARACTER),
    _Slip(
        "flow sequence", "context", "'[' that is not closed", "close it with ']', or add a comma"
    ),
    _Slip(
        "flow mapping", "context", "'{{' that is not closed", "close it with '}', or add a comma"
    ),
    _Slip("expected ':'", "context", "a line without 'key: value'", "write a colon and a space"),
    _Slip(
        "sequence entries",
        "problem",
        "a list's '-' in the line of its key",
        "begin the list in the next line, or write [a, b]",
    ),
    _Slip(
        "node content",
        "problem",
        "{char} where a value should begin",
        "put quotes around text that holds , [ ] { or }, and close every bracket",
    ),
    _Slip("tag", "problem", "a tag", "remove it: recipes have no tags"),
    _Slip(
        "incompatible", "problem", "another version of YAML", "remove the line that begins with %"
    ),
    _Slip(
        "document start",
        "problem",
        "text after the end of the document",
        "remove the line '...', or what follows it",
    ),
    _Slip(
        "expected (key|'-')|<block end>",
        "problem",
        "{char}, which continues nothing above it",
        "begin all keys of one mapping, or all dashes of one list, in the same column",
    ),
)


def syntax_problem(error: Exception, source: Text, start: int) -> Problem:
    """What the parser's error means, and what to do.

    Args:
        error: what `yaml.parse` raised.
        source: the text.
        start: where in it the YAML begins.
    """
    if isinstance(error, yaml.MarkedYAMLError):
        return _marked_problem(error, source, start)
    # Without a mark: the pure Python parser meets escapes beyond Unicode in this way.
    return _syntax(source.place(start), str(error), "")


def no_character(place: Place) -> Problem:
    """The problem of an escape such as "\\ud800", half of a pair."""
    return _syntax(place, *_NO_CHARACTER)


def _marked_problem(error: yaml.MarkedYAMLError, source: Text, start: int) -> Problem:
    marks = {"context": error.context_mark, "problem": error.problem_mark}
    at = marks["problem"] or marks["context"]
    end = len(source.text.rstrip())  # (an error below the last line is shown at its end)
    index = min(start + (at.index if at else 0), end)
    words = f"{error.context}: {error.problem}"
    if found := _special_slip(words, source, index):
        return found
    if found := _missing_comma(error, source, start):
        return found
    for slip in _SLIPS:
        if re.search(slip.pattern, words):
            mark = marks[slip.at] or at
            index = min(start + (mark.index if mark else 0), end)
            char = repr(source.text[index]) if index < end else "the end of the text"
            got, fix = (
                text.replace("{char}", char).replace("{{", "{") for text in (slip.got, slip.fix)
            )
            return _syntax(source.place(index), got, fix)
    return _syntax(source.place(index), str(error.problem), "")


def _syntax(place: Place, got: str, fix: str) -> Problem:
    return Problem(place, "YAML", got, "valid YAML 1.2", fix)


def _special_slip(words: str, source: Text, index: int) -> Problem | None:
    """Mistakes that only the lines around the error tell apart."""
    if source.text[index : index + 1] == "\t" or "tab character" in words:
        return _syntax(source.place(index), "a tab", "write spaces instead")
    if "node content" in words and index >= len(source.text.rstrip()):
        fix = "close every '[' with ']', and every '{' with '}'"
        return _syntax(source.place(index), "the end of the text inside brackets", fix)
    line = source.line_at(index)
    if "mapping values" in words or "expected ':'" in words:
        return _unspaced(source, line) or _second_colon(words, source, index, line)
    before = source.text[source.starts[line] : index].rstrip()
    if re.search("expected key|<block end>", words) and before.endswith(("'", '"')):
        return _syntax(
            source.place(index),
            "text after a closing quote",
            "close the quote above, or write a quote inside single quotes twice: 'it''s'",
        )
    return None


def _missing_comma(error: yaml.MarkedYAMLError, source: Text, start: int) -> Problem | None:
    """In brackets, an error in the line of the opening one is a comma left out, most likely."""
    opened, found = error.context_mark, error.problem_mark
    words = re.search("expected (',' or '.')", str(error.problem))
    if not words or not opened or not found or opened.line != found.line:
        return None
    index = start + found.index
    if index >= len(source.text.rstrip()):
        return None
    got = f"{source.text[index]!r} where {words[1]} should be"
    return _syntax(source.place(index), got, "add a comma, or close the bracket")


def _unspaced(source: Text, line: int) -> Problem | None:
    """A colon without its space makes plain text of a line; the error comes one line later."""
    for number in range(line, max(line - 2, -1), -1):
        if match := re.fullmatch(_UNSPACED, source.lines[number].rstrip()):
            colon = source.starts[number] + match.end(1)
            fix = f"put a space after it: '{match[1]}: {match[2]}'"
            return _syntax(source.place(colon), "a colon without a space after it", fix)
    return None


def _second_colon(words: str, source: Text, index: int, line: int) -> Problem | None:
    if "mapping values" not in words:
        return None
    if ": " in source.text[source.starts[line] : index]:
        fix = "put quotes around the value if the colon is part of it"
        return _syntax(source.place(index), "a second ': ' in one line", fix)
    fix = "begin all keys of one mapping in the same column"
    return _syntax(source.place(index), "a key that is not in line with those above", fix)
