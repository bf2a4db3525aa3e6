"""The reader of recipe text: values, places, and every way in which a text can be wrong."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionrun.errors import Problem, RecipeError
from fusionrun.recipe import events as module
from fusionrun.recipe.document import Document, read_document
from fusionrun.recipe.keys import Path, dotted, parse_dotted

LOADERS = {"libyaml": yaml.CSafeLoader, "python": yaml.SafeLoader}


@pytest.fixture(params=LOADERS)
def either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOADER", LOADERS[request.param])


def read(text: str | bytes) -> Document:
    return read_document(text, "r.yaml")


def problems(text: str | bytes, words: str) -> tuple[Problem, ...]:
    with pytest.raises(RecipeError, match=re.escape(words)) as caught:
        read(text)
    return caught.value.problems


def the_problem(text: str | bytes, words: str) -> Problem:
    (problem,) = problems(text, words)
    return problem


def at(problem: Problem) -> tuple[int, int, int]:
    assert problem.place is not None
    return problem.place.line, problem.place.column, problem.place.length


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type: 1, 1.0 and True are three things; nan is itself."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and repr(left) == repr(right)


# --- scalars


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+1.5", 1.5),
        ("-.5e+2", -50.0),
        ("1e999", math.inf),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("+.Inf", math.inf),
        (".nan", math.nan),
        (".NaN", math.nan),
        ("0", 0),
        ("-0", 0),
        ("+7", 7),
        ("-12", -12),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("TRUE", True),
        ("False", False),
        ("null", None),
        ("NULL", None),
        ("~", None),
        ("", None),
    ],
)
def test_a_plain_scalar_of_the_core_schema_has_its_type(written: str, value: object) -> None:
    assert same(read(f"a: {written}").value["a"], value)


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    "written",
    "no yes on off y n No ON tRUE nULL 12:30:00 1_000 2026-01-01 2026-01-01T00:00:00Z = 0b101"
    " 0o8 0x -0x1F 1e e5 . - .e1 1.2.3 +.nan inf nan << ١٢ 1e5x 0.5%".replace(" - ", " ").split(),
)
def test_everything_else_is_text(written: str) -> None:
    assert read(f"a: {written}").value == {"a": written}


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("word", ["1", "true", "null", "1e-4", "", "~", "<<"])
@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quoted_scalar_is_text(word: str, quote: str) -> None:
    assert read(f"a: {quote}{word}{quote}").value == {"a": word}


def test_a_block_scalar_is_text() -> None:
    assert read("a: |\n  12\nb: >-\n  true\n  x\n").value == {"a": "12\n", "b": "true x"}


def test_a_number_too_long_to_print_is_refused() -> None:
    problem = the_problem("a: " + "1" * 5000, "a number of 5000 characters")
    assert problem.key == "a"


def test_a_hexadecimal_number_too_long_to_print_is_refused() -> None:
    the_problem("a: 0x" + "F" * 5000, "a number of 5002 characters")


# --- collections, anchors and merges


@pytest.mark.usefixtures("either_parser")
def test_sequences_become_tuples_and_mappings_keep_their_order() -> None:
    document = read("b:\n  - 1\n  - {y: [x, 2], x: }\na: []\n")
    assert document.value == {"b": (1, {"y": ("x", 2), "x": None}), "a": ()}
    assert list(document.value) == ["b", "a"]


def test_a_key_may_be_quoted_and_look_like_a_number() -> None:
    assert read('"1": a\n2d: b\n').value == {"1": "a", "2d": "b"}


@pytest.mark.usefixtures("either_parser")
def test_an_alias_repeats_its_anchor() -> None:
    assert read("a: &x {k: [1]}\nb: *x\nc: &y 3\nd: *y\n").value == {
        "a": {"k": (1,)},
        "b": {"k": (1,)},
        "c": 3,
        "d": 3,
    }


def test_an_anchor_may_be_redefined() -> None:
    assert read("a: &x 1\nb: *x\nc: &x 2\nd: *x\n").value == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_an_alias_may_be_a_key() -> None:
    assert read("a: &x name\n*x : 1\n").value == {"a": "name", "name": 1}


def test_aliased_values_are_not_shared() -> None:
    value = read("a: &x {k: 1}\nb: *x\n").value
    value["a"]["k"] = 2
    assert value["b"] == {"k": 1}


@pytest.mark.usefixtures("either_parser")
def test_own_keys_win_over_merged_ones_wherever_the_merge_stands() -> None:
    value = read("a: &x {k: 1, m: 1}\nb: {k: 2, <<: *x}\nc:\n  <<: *x\n  k: 3\n").value
    assert value["b"] == {"k": 2, "m": 1}
    assert value["c"] == {"k": 3, "m": 1}


def test_earlier_mappings_of_a_merged_list_win() -> None:
    value = read("x: &x {k: 1}\ny: &y {k: 2, m: 2}\nz: {<<: [*x, *y]}\n").value
    assert value["z"] == {"k": 1, "m": 2}


def test_a_merge_may_hold_a_mapping_itself() -> None:
    assert read("a: {<<: {k: 1}}").value == {"a": {"k": 1}}


def test_a_quoted_merge_key_is_a_key() -> None:
    assert read("a: {'<<': 1}").value == {"a": {"<<": 1}}


def test_a_merged_value_has_the_place_where_it_is_written() -> None:
    document = read("a: &x {k: 1}\nb:\n  <<: *x\n")
    assert document.place(("b", "k")) == document.place(("a", "k"))


@pytest.mark.parametrize(
    ("text", "key", "got"),
    [
        ("a: {<<: 1}", "a.<<", "the number 1"),
        ("a: {<<: [{b: 1}, x]}", "a.<<[1]", "the text 'x'"),
        ("a: &x [1]\nb: {<<: *x}", "b.<<[0]", "the number 1"),
    ],
)
def test_only_mappings_can_be_merged(text: str, key: str, got: str) -> None:
    problem = the_problem(text, "a mapping to merge")
    assert (problem.key, problem.got) == (key, got)


def test_two_merge_keys_are_a_duplicate() -> None:
    problem = the_problem("x: &x {k: 1}\na:\n  <<: *x\n  <<: *x\n", "the first stands in line 3")
    assert problem.key == "a.<<"


# --- problems


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    "tag", ["!!str", "!!int", "!!python/object:os.system", "!foo", "!", "!<tag:yaml.org,2002:str>"]
)
@pytest.mark.parametrize("value", ["1", "'x'", "[1]", "{b: 1}"])
def test_a_tag_is_refused_at_its_place(tag: str, value: str) -> None:
    problem = the_problem(f"a: {tag} {value}", "no tags")
    assert (problem.key, problem.got) == ("a", f"the tag {tag}")
    assert at(problem) == (1, 4, len(tag))


def test_a_tag_behind_an_anchor_is_refused_at_its_place() -> None:
    assert at(the_problem("a: &x # comment\n  !!str 1", "the tag !!str")) == (2, 3, 5)


def test_a_tag_of_a_key_or_of_the_whole_text_is_refused() -> None:
    found = problems("!!map\n!!str a: 1\n", "no tags")
    assert [(problem.key, problem.got) for problem in found] == [
        ("recipe", "the tag !!map"),
        ("recipe", "the tag !!str"),
    ]


@pytest.mark.usefixtures("either_parser")
def test_a_duplicate_key_is_refused_where_it_stands_again() -> None:
    problem = the_problem("f:\n  a: 1\n  b: 2\n  'a': 3\n", "the first stands in line 2")
    assert (problem.key, at(problem)) == ("f.a", (4, 3, 3))


def test_equal_keys_in_different_mappings_are_no_duplicates() -> None:
    assert read("a: {k: 1}\nb: {k: 2}\n").value == {"a": {"k": 1}, "b": {"k": 2}}


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("key", "got"),
    [
        ("1", "the number 1"),
        ("1.5", "the number 1.5"),
        ("true", "true"),
        ("null", "null (nothing)"),
    ],
)
def test_a_key_that_is_not_text_is_to_be_quoted(key: str, got: str) -> None:
    problem = the_problem(f"a:\n  {key}: x\n", f'put quotes around it: "{key}"')
    assert problem.got == f"{got} as a key"
    assert at(problem) == (2, 3, len(key))


@pytest.mark.parametrize(("key", "got"), [("{x: 1}", "a mapping"), ("[x]", "a list")])
def test_a_collection_is_no_key(key: str, got: str) -> None:
    assert the_problem(f"? {key}\n: 1\n", "needs quotes").got == f"{got} as a key"


def test_an_empty_key_is_refused() -> None:
    assert at(the_problem("a: {? : 1}", "write a word before"))[0] == 1


def test_a_template_in_braces_is_told_to_be_quoted() -> None:
    assert the_problem("a: {{ x }}", "text that begins with '{'").key == "a"


@pytest.mark.usefixtures("either_parser")
def test_all_problems_come_at_once_in_file_order() -> None:
    found = problems("a: !x 1\nb:\n  - 1: 2\n  - *no\na: 1\n---\n", "no tags")
    assert [(problem.key, at(problem)[0]) for problem in found] == [
        ("a", 1),
        ("b[0].1", 3),
        ("b[1]", 4),
        ("a", 5),
        ("recipe", 6),
    ]


def test_a_problem_names_its_key_with_indices() -> None:
    assert the_problem("rules:\n  - a: 1\n  - when: !x 1\n", "no tags").key == "rules[1].when"


def test_an_alias_to_nothing_is_told_to_be_quoted() -> None:
    problem = the_problem("path: *all\n", "put quotes around it if it is text: '*all'")
    assert at(problem) == (1, 7, 4)


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: [*x]}", "a: 1\nb: &x\n  <<: *x\n"])
def test_a_value_inside_itself_is_refused(text: str) -> None:
    assert the_problem(text, "inside the value it stands for").got.startswith("*x")


# --- syntax errors, in plain words

SYNTAX = [
    ("a:\n\tb: 1\n", "a tab", (2, 1)),
    ("a:\n  b: 1\n\tc: 2\n", "write spaces instead", (3, 1)),
    ("epochs:60\nb: 2\n", "put a space after it: 'epochs: 60'", (1, 7)),
    ("b: 2\nepochs:60\nc: 1\n", "put a space after it: 'epochs: 60'", (2, 7)),
    ("t:\n  epochs:60\n  b: 2\n", "a colon without a space", (2, 9)),
    ("- epochs:60\n  b: 2\n", "a colon without a space", (1, 9)),
    ('a: "foo\nb: 1\n', "a quote that is opened here and never closed", (1, 4)),
    ("a: 'foo\nb: 1\n", "a quote that is opened here and never closed", (1, 4)),
    ('a: "foo\nb: "bar"\n', "close the quote above", (2, 5)),
    ("a: 'it's'\n", "text after a closing quote", (1, 8)),
    ("a: [1, 2\nb: 3\n", "close it with ']'", (1, 4)),
    ("a: {x: 1\nb: 3\n", "'{' that is not closed", (1, 4)),
    ("a: [1, 2", "close it with ']'", (1, 4)),
    ("a: {b: 1 c: 2}\n", "add a comma", (1, 11)),
    ("a: [1}\n", "'}' where ',' or ']' should be", (1, 6)),
    ("a: @x\n", "text that begins with '@'", (1, 4)),
    ("a: `x\n", "text that begins with '`'", (1, 4)),
    ("a: %x\n", "text that begins with '%'", (1, 4)),
    ("a: *.csv\n", "text that begins with '*'", (1, 4)),
    ("a: &\n", "text that begins with '&'", (1, 4)),
    ("a: >100\n", "text that begins with '>'", (1, 4)),
    ("a: - b\n", "begin the list in the next line", (1, 4)),
    ("a:\n  b: 1\n c: 2\n", "in the same column", (3, 2)),
    ("a: 1\n  b: 2\n", "in the same column", (2, 4)),
    ("a: b: c\n", "a second ': ' in one line", (1, 5)),
    ("a: 1\nfoo bar\nb: 2\n", "a line without 'key: value'", (2, 1)),
    ("a: ]\n", "']' where a value should begin", (1, 4)),
    ("%YAML 2.0\n---\na: 1\n", "another version of YAML", (1, 1)),
    ("a: 1\n...\nb\n", "after the end of the document", (3, 1)),
    ("a: !x!y z\n", "recipes have no tags", (1, 4)),
]


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(("text", "words", "place"), SYNTAX)
def test_a_syntax_error_is_explained(text: str, words: str, place: tuple[int, int]) -> None:
    assert at(the_problem(text, words))[:2] == place


def test_a_backslash_in_double_quotes_is_explained() -> None:
    assert at(the_problem('a: "C:\\data"', "use single quotes")) == (1, 7, 1)


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("escape", ["\\ud83d\\ude00", "\\UFFFFFFFF"])
def test_an_escape_of_no_character_is_refused(escape: str) -> None:
    assert the_problem(f'a: "{escape}"', "valid YAML 1.2").key == "YAML"


def test_a_syntax_error_hides_the_problems_before_it() -> None:
    the_problem("a: !x 1\nb: [1\n", "that is not closed")


# --- texts that are no recipe


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("text", ["", "\n\n", "# only this\n", "\ufeff", b""])
def test_an_empty_text_is_called_empty(text: str | bytes) -> None:
    assert the_problem(text, "an empty file").key == "recipe"


@pytest.mark.parametrize(
    ("text", "got"),
    [("- 1", "a list"), ("x", "the text 'x'"), ("3", "the number 3"), ("~", "null")],
)
def test_a_text_that_is_no_mapping_is_refused(text: str, got: str) -> None:
    assert the_problem(text, "a mapping of keys to values").got.startswith(got)


def test_one_line_without_the_space_is_told_so() -> None:
    the_problem("epochs:60", "put a space after the colon")


@pytest.mark.usefixtures("either_parser")
def test_a_second_document_is_refused_at_its_dashes() -> None:
    assert at(the_problem("a: 1\n---\nb: [\n", "a second document")) == (2, 1, 3)


def test_one_document_may_have_its_marks() -> None:
    assert read("%YAML 1.2\n---\na: 1\n...\n").value == {"a": 1}


@pytest.mark.usefixtures("either_parser")
def test_yaml_1_1_is_refused_by_name() -> None:
    assert at(the_problem("%YAML 1.1\n---\na: no\n", "%YAML 1.1"))[:2] == (1, 1)


@pytest.mark.parametrize(
    "code", [0x00, 0x07, 0x0B, 0x1B, 0x7F, 0x85, 0x2028, 0xFEFF, 0xFFFE, 0xD800]
)
def test_a_character_that_cannot_be_seen_is_refused(code: int) -> None:
    problem = the_problem(f"a: 1\nb: 'x{chr(code)}y'\n", f"U+{code:04X}")
    assert at(problem) == (2, 6, 1)


def test_a_message_never_holds_a_control_character() -> None:
    with pytest.raises(RecipeError, match="cannot be seen") as caught:
        read("a: \x1b[31m\n")
    assert "\x1b" not in str(caught.value)


def test_a_character_may_be_written_as_an_escape() -> None:
    assert read('a: "\\u2028\\x07"').value == {"a": "\u2028\x07"}


def test_bytes_that_are_not_utf_8_are_refused_at_their_place() -> None:
    problem = the_problem("a: 1\nb: é".encode() + b"\xe9 x\nc: 2\n", "the byte 0xe9")
    assert at(problem) == (2, 5, 1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_by_name(encoding: str) -> None:
    the_problem("a: 1\n".encode(encoding), "UTF-16 or UTF-32")


@pytest.mark.parametrize("text", [b"a: " + b"x" * 1_000_000, "a: " + "é" * 500_000])
def test_a_text_over_a_megabyte_is_refused(text: str | bytes) -> None:
    the_problem(text, "1,000,000 bytes")


# --- bounds


@pytest.mark.parametrize("opening", ["[", "{", "{a: ", "- ", "? ", "a: [", "[\n"])
def test_deep_nesting_is_a_problem_and_no_crash(opening: str) -> None:
    code = (
        "from fusionrun.recipe.document import read_document\n"
        "from fusionrun.errors import RecipeError\n"
        f"text = {opening!r} * (900_000 // {len(opening)})\n"
        "try:\n    read_document(text, 'r')\n"
        "except RecipeError as error:\n    print(error.problems[0].got)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(("depth", "fits"), [(63, True), (64, False)])
def test_sixty_four_collections_may_stand_inside_each_other(depth: int, fits: bool) -> None:
    text = "a: " + "[" * depth + "]" * depth
    if fits:
        assert read(text).has(("a", *(0,) * (depth - 1)))
    else:
        assert the_problem(text, "more than 64 mappings and lists").key == "a[0][0]"


def test_depth_counts_through_aliases() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 70))
    assert at(the_problem(text, "more than 64 mappings and lists"))[0] == 64


def test_an_alias_bomb_is_refused() -> None:
    text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    text += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    the_problem(text, "more than 100,000 keys and values")


def test_a_merge_bomb_is_refused() -> None:
    text = "b: &b {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}\n"
    text += "".join(f"m{i}: {{<<: [{', '.join(['*b'] * 50)}]}}\n" for i in range(100))
    the_problem(text, "more than 100,000 keys and values")


def test_too_many_problems_stop_the_reading() -> None:
    found = problems("a: [" + "!t x, " * 30_000 + "]", "over 100 problems")
    assert len(found) == 101
    assert all(problem.place and len(problem.place.text) < 3_000 for problem in found)


# --- places


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_places_are_exact(line_break: str, mark: str) -> None:
    text = "# é\nfusion:\n  'ty𝒳pe': é𝒳  # c\n  rules:\n    - {é: [1, \"𝒳\"], b: &x '2'}\n"
    document = read((mark + text.replace("\n", line_break)).encode())
    spans = {
        (path, at): (place.line, place.column, place.length)
        for path in [
            ("fusion", "ty𝒳pe"),
            ("fusion", "rules", 0, "é", 1),
            ("fusion", "rules", 0, "b"),
        ]
        for at in ("key", "value")
        for place in [document.place(path, at)]
    }
    assert spans == {
        (("fusion", "ty𝒳pe"), "key"): (3, 3, 7),
        (("fusion", "ty𝒳pe"), "value"): (3, 12, 2),
        (("fusion", "rules", 0, "é", 1), "key"): (5, 15, 3),
        (("fusion", "rules", 0, "é", 1), "value"): (5, 15, 3),
        (("fusion", "rules", 0, "b"), "key"): (5, 21, 1),
        (("fusion", "rules", 0, "b"), "value"): (5, 27, 3),
    }


def test_a_place_holds_its_line_and_its_file() -> None:
    place = read("a:\n  b: 1  # note\r\n").place(("a", "b"))
    assert (place.order, place.source, place.text) == (0, "r.yaml", "  b: 1  # note")
    assert str(place) == "r.yaml:2:6"


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("a: [1, 2]  # c", (1, 4, 6)),
        ("a: [1,  # c\n  2]", (1, 4, 8)),
        ("a:\n  b: 1", (2, 3, 1)),
        ("a: &x # c\n  b: 1", (2, 3, 1)),
        ("a:\n  - 1", (2, 3, 1)),
        ("a: |-  # c\n  x", (1, 4, 2)),
        ("a: x\n  y", (1, 4, 1)),
        ("a: 'x \n  y'", (1, 4, 2)),
        ("a: {}", (1, 4, 2)),
        ("a:\nb: 1", (1, 3, 1)),
        ("a: &x\nb: 1", (1, 4, 2)),
        ("a:", (1, 3, 1)),
    ],
)
def test_the_caret_of_a_value(text: str, span: tuple[int, int, int]) -> None:
    place = read(text).place(("a",))
    assert (place.line, place.column, place.length) == span


def test_a_missing_value_has_the_place_of_its_nearest_ancestors_key() -> None:
    document = read("a:\n  b: {c: 1}\n")
    assert document.place(("a", "b", "x", "y")) == document.place(("a", "b"), "key")
    assert document.place(("a", "x"), "key") == document.place(("a",), "key")


def test_a_value_below_a_scalar_has_the_scalars_place() -> None:
    document = read("fusion: multiplicative\n")
    assert document.place(("fusion", "type"), "key") == document.place(("fusion",))


def test_a_missing_top_level_key_has_the_place_of_the_text() -> None:
    place = read("# note\n\na: 1\n").place(("data",))
    assert (place.line, place.column, place.length) == (3, 1, 1)


def test_a_problem_at_the_end_of_the_text_has_a_place_in_it() -> None:
    assert at(the_problem("a: [\n\n", "the end of the text inside brackets")) == (1, 5, 1)


# --- has, get


def test_has_and_get_walk_mappings_and_lists() -> None:
    document = read("a:\n  - {b: null}\n")
    assert document.has(("a", 0, "b"))
    assert document.has(("a", "0"))
    assert document.get(("a", 0)) == {"b": None}
    assert document.get(()) == document.value


@pytest.mark.parametrize(
    "path", [("x",), ("a", 1), ("a", -1), ("a", "b"), ("a", 0, "b", "c"), (0,)]
)
def test_what_is_not_there_is_not_had(path: Path) -> None:
    document = read("a:\n  - {b: null}\n")
    assert not document.has(path)
    assert not document.is_set(path)
    with pytest.raises(KeyError, match=r"x|a|0"):
        document.get(path)


# --- dotted keys


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("fusion", "type"), "fusion.type"),
        (("rules", 1, "when"), "rules[1].when"),
        ((0, 2, "a"), "[0][2].a"),
        (("a.b", "c d"), '"a.b"."c d"'),
        (("",), '""'),
        (("0",), "0"),
    ],
)
def test_a_path_is_printed_dotted_and_read_back(path: Path, text: str) -> None:
    assert dotted(path) == text
    if path:
        assert parse_dotted(text) == path


@given(st.lists(st.text() | st.integers(0, 10**8), min_size=1).map(tuple))
def test_every_path_survives_print(path: Path) -> None:
    text = dotted(path)
    assert text.isprintable()
    assert parse_dotted(text) == path


@pytest.mark.parametrize(
    "text", [".a", "a.", "a..b", "a[", "a[x]", "a[-1]", "a]", 'a."b', "a.[0]", "."]
)
def test_what_is_no_dotted_key_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="keys joined by dots"):
        parse_dotted(text)


# --- --set

BASE = "training:\n  epochs: 60\n  note: hi\nrules:\n  - {scale: 1}\n  - {scale: 2}\nempty: []\n"


def setting_problem(argument: str, words: str) -> Problem:
    document = read(BASE).with_setting("training.note=x")
    with pytest.raises(RecipeError, match=re.escape(words)) as caught:
        document.with_setting(argument)
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert (problem.place.order, problem.place.line, problem.place.source) == (2, 0, "--set")
    return problem


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5", 5),
        ("1e-4", 1e-4),
        ("no", "no"),
        ("'5'", "5"),
        ("", None),
        ("  7 ", 7),
        ("[64, 32]", (64, 32)),
        ("{a: 1, b: [x]}", {"a": 1, "b": ("x",)}),
        ("my run", "my run"),
        ("02:00:00", "02:00:00"),
        ("a=b", "a=b"),
        ("x#y", "x#y"),
        ("{a: &x [1], b: *x}", {"a": (1,), "b": (1,)}),
    ],
)
def test_a_setting_is_read_like_a_value_in_the_file(written: str, value: object) -> None:
    document = read(BASE).with_setting(f"training.epochs={written}")
    assert same(document.get(("training", "epochs")), value)


def test_a_setting_leaves_the_first_document_and_all_else_alone() -> None:
    before = read(BASE)
    after = before.with_setting("training.epochs=5")
    assert before.get(("training", "epochs")) == 60
    assert {**after.value, "training": None} == {**before.value, "training": None}
    assert list(after.value["training"]) == ["epochs", "note"]


@pytest.mark.parametrize(
    "key", ["rules[1].scale", "rules.1.scale", " rules[1].scale ", 'rules[1]."scale"']
)
def test_a_setting_reaches_into_a_list(key: str) -> None:
    document = read(BASE).with_setting(f"{key}=9")
    assert document.get(("rules",)) == ({"scale": 1}, {"scale": 9})


def test_a_setting_replaces_a_list_item() -> None:
    assert read(BASE).with_setting("rules[0]=x").get(("rules", 0)) == "x"


def test_a_setting_makes_missing_mappings() -> None:
    document = read(BASE).with_setting("a.b.c=1")
    assert document.get(("a",)) == {"b": {"c": 1}}
    assert document.is_set(("a",))


def test_a_setting_of_an_alias_leaves_the_anchor_alone() -> None:
    document = read("a: &x {k: 1, m: 1}\nb: *x\n").with_setting("b.k=2")
    assert document.value == {"a": {"k": 1, "m": 1}, "b": {"k": 2, "m": 1}}


def test_only_what_was_set_is_set() -> None:
    document = read(BASE).with_setting("training.epochs=[1]")
    assert document.is_set(("training", "epochs"))
    assert document.is_set(("training", "epochs", 0))
    assert not document.is_set(("training",))
    assert not document.is_set(("training", "note"))


def test_a_settings_places_point_into_the_argument() -> None:
    argument = "training.new.deep= [1, 22]"
    document = read(BASE).with_setting("training.epochs=1").with_setting(argument)
    places = {
        "new": document.place(("training", "new"), "key"),
        "deep": document.place(("training", "new", "deep"), "key"),
        "[1, 22]": document.place(("training", "new", "deep")),
        "22": document.place(("training", "new", "deep", 1)),
    }
    for written, place in places.items():
        assert (place.order, place.line, place.source, place.text) == (2, 0, "--set", argument)
        assert argument[place.column - 1 :][: place.length] == written


def test_a_key_that_the_file_has_too_points_into_the_argument_once_set() -> None:
    document = read(BASE).with_setting("training.epochs=5")
    assert document.place(("training", "epochs"), "key").column == 10
    assert document.place(("training",), "key").line == 1


def test_the_last_setting_of_a_key_wins() -> None:
    document = read(BASE).with_setting("training.epochs=1").with_setting("training.epochs=2")
    assert document.get(("training", "epochs")) == 2
    assert document.place(("training", "epochs")).order == 2


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("argument", "words", "spot"),
    [
        ("training.epochs", "write --set training.epochs=", "training.epochs"),
        ("", "key=value", ""),
        ("=5", "no key before the '='", "=5"),
        ("a..b=5", "keys joined by dots", "..b"),
        ("rules[x]=5", "in brackets", "[x]"),
        ("rules[2].scale=5", "an index from 0 to 1", "2"),
        ("rules.first=5", "an index from 0 to 1", "first"),
        ("empty[0]=5", "the list is empty", "0"),
        ("training[0]=5", "its keys are epochs, note", "0"),
        ("training.epochs.max=5", "which is the number 60", "max"),
        ("new[0]=5", "a list at new", "0"),
        ("training.epochs=[1, 2", "'[' that is not closed", "["),
        ("training.epochs=*.csv", "begins with '*'", "*"),
        ("training.epochs=!!int 5", "no tags", "!!int"),
        ("training.epochs={a: 1, a: 2}", "the first stands in column 18", "a: 2"),
        ("training.note=a: b", "put quotes around text that holds ': '", "a: b"),
        ("training.note=- a", "write [a, b]", "- a"),
        ("training.note=--- a", "a list in brackets", "--- a"),
        ("training.note=x # y", "the comment '# y'", "# y"),
        ("training.note=#1", "the comment '#1'", "#1"),
        ("training.note=x\ny", "U+000A", ""),
        ("training.note=\x1b", "U+001B", ""),
        ("a." * 70 + "b=1", "more than 64 mappings", "a."),
        ("a." * 60 + "b=[[[[[[]]]]]]", "more than 64 mappings", "[[[["),
    ],
)
def test_a_setting_that_leads_nowhere_is_explained(argument: str, words: str, spot: str) -> None:
    place = setting_problem(argument, words).place
    assert place is not None
    assert place.text[place.column - 1 :].startswith(spot)


def test_a_setting_cannot_use_the_files_anchors() -> None:
    with pytest.raises(RecipeError, match="an anchor &x before it"):
        read("a: &x 1\n").with_setting("b=*x")


# --- whatever the text

PLAIN = st.characters(
    exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"
)
# JSON's escapes cover what cannot stand in a file; characters beyond U+FFFF must stand as they are.
TEXTS = st.text(PLAIN | st.sampled_from("\n\t\"'\\:#-[]{},&*!|>%@`\x07\x85\u2028 "), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple) | st.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=15,
)
MAPPINGS = st.dictionaries(TEXTS, VALUES, max_size=4)


def as_json(value: object, indent: int | None) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    for unseen in "\x7f\x85\u2028\u2029\ufeff":
        text = text.replace(unseen, f"\\u{ord(unseen):04x}")
    return text


def places_of(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places_of(item, (*path, key))
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from places_of(item, (*path, index))


@given(MAPPINGS, st.sampled_from([None, 2]))
@settings(max_examples=150, deadline=None)
def test_json_is_read_as_what_it_says(value: dict[str, object], indent: int | None) -> None:
    assert same(read(as_json(value, indent)).value, value)


@given(MAPPINGS)
@settings(max_examples=100, deadline=None)
def test_every_scalar_stands_where_its_place_says(value: dict[str, object]) -> None:
    text = as_json(value, 2)
    document = read(text)
    for path, item in places_of(value):
        if path and not isinstance(item, dict | tuple):
            place = document.place(path)
            line = text.splitlines()[place.line - 1]
            assert place.text == line
            assert line[place.column - 1 :][: place.length] == as_json(item, None)
        if path and isinstance(path[-1], str):
            place = document.place(path, "key")
            assert place.text[place.column - 1 :][: place.length] == as_json(path[-1], None)


WORDS = st.from_regex(r"[a-zé𝒳][a-z0-9_é-]{0,6}", fullmatch=True).filter(
    lambda word: word not in {"null", "true", "false"}
)
BLOCKS = st.recursive(
    WORDS | st.integers() | st.booleans(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(tuple)
        | st.dictionaries(WORDS, inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)


def as_block(value: object, indent: str = "") -> str:
    """YAML's block style, written by hand: lines, each with what stands before it."""
    if isinstance(value, dict):
        return "".join(
            f"\n{indent}{key}:{as_block(item, indent + '  ')}" for key, item in value.items()
        )
    if isinstance(value, tuple):
        return "".join(f"\n{indent}-{as_block(item, indent + '  ')}" for item in value)
    return f" {as_json(value, None)}" if not isinstance(value, str) else f" {value}  # {value}"


@given(st.dictionaries(WORDS, BLOCKS, min_size=1, max_size=3), st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=100, deadline=None)
def test_block_style_is_read_with_its_places(value: dict[str, object], line_break: str) -> None:
    text = as_block(value).replace("\n", line_break)
    document = read(text)
    assert same(document.value, value)
    for path, item in places_of(value):
        if path and not isinstance(item, dict | tuple):
            place = document.place(path)
            written = item if isinstance(item, str) else as_json(item, None)
            assert text.splitlines()[place.line - 1][place.column - 1 :][: place.length] == written


CHARACTERS = st.sampled_from("ab1:-?[]{},&*!|>'\"%@`#=~.<\n\t \\\r\ufeffé𝒳\x85\x00")
MARKS = st.sampled_from(
    [": ", "- ", "? ", ", ", "[", "]", "{", "}", "'", '"', "#", "&x ", "*x ", "!t ", "<<: "]
)
LINES = st.sampled_from(["\n", "\r\n", "  ", "\t", "|\n", ">-", "---\n", "...\n", "%YAML 1.2\n"])
TOKENS = st.sampled_from(["a", "b", "1", "\\u"]) | MARKS | LINES
YAML_LIKE = st.text(CHARACTERS | st.characters(), max_size=60) | st.lists(TOKENS, max_size=30).map(
    "".join
)


@pytest.mark.parametrize("loader", LOADERS)
@given(text=YAML_LIKE)
@settings(max_examples=250, deadline=None)
def test_any_text_is_a_document_or_a_recipe_error(loader: str, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LOADER", LOADERS[loader])
        check_whatever(lambda: read(text))
        check_whatever(lambda: read(text.encode("utf-8", "surrogatepass")))
        check_whatever(lambda: read("a: {b: [1]}").with_setting(f"a.c={text}"))
        check_whatever(lambda: read("a: {b: [1]}").with_setting(text))


@given(st.binary(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_document_or_a_recipe_error(raw: bytes) -> None:
    check_whatever(lambda: read(raw))


def check_whatever(attempt: Callable[[], Document]) -> None:
    result = outcome(attempt)
    if isinstance(result, Document):
        for path, value in places_of(result.value):
            assert same(result.get(path), value)
            assert result.place(path).column >= 1
    else:
        assert result.problems
        assert str(result).encode()
        for problem in result.problems:
            assert problem.key
            assert problem.got
            assert problem.place is not None
            assert 1 <= problem.place.column <= len(problem.place.text) + 1


def outcome(attempt: Callable[[], Document]) -> Document | RecipeError:
    try:
        return attempt()
    except RecipeError as error:
        return error
