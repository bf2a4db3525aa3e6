"""Every key of every shipped recipe misspelt, dropped, of a wrong type, written twice: exactly the
right problems, each at its line and column, with the right suggestion.

The mutations are made in the text, at the places that the Document itself gives, so that layout and
comments stay as people write them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fusionrun.errors import Problem, RecipeError
from fusionrun.recipe.document import Document, read_document
from fusionrun.recipe.keys import Path as Keys
from fusionrun.recipe.keys import dotted
from fusionrun.recipe.read import read_recipe
from fusionrun.recipe.suggest import FOREIGN_NAMES
from fusionrun.schema.describe import spot_of

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)

# Said here a second time, not read off the schema: patterns of dotted keys.
REQUIRED = (
    "version|name|data|experts|fusion",
    r"data\.source",
    r"experts\.[^.]+\.(model|view)",
    r"fusion\.type|schedulers\.[^.]+\.type",
    r"schedulers\.[^.]+\.warmup\.epochs",
    r"learning_rates\.rules\[\d+\]\.(when|scale|mup|mup\.base_width)",
    r"training\.early_stopping\.patience",
    r"augmentation\.(mixup|cutmix)\.alpha",
    r"stages\[\d+\]\.(stage|epochs)",
)
# Required by some data sources only.
REQUIRED_BY_SOURCE = {"idx": r"data\.path", "cifar": r"data\.path"}
# Required by a check across keys, which waits until each key is right by itself.
REQUIRED_TOGETHER = (r"data\.path",)
# Names that the user chose, and what nothing reads.
FREE = (r"experts\.[^.]+", r"data\.views\.[^.]+", r"learning_rates\.experts\.[^.]+", "x-.*")
# A mapping with one key left may not be empty.
NOT_EMPTY = (r"learning_rates\.rules\[\d+\]\.(when\.[^.]+|scale)", r"experts", r"data\.views")
# (Text as a part of a split is a file's name, and makes another form of the whole split.)
TEXT_TOO = (r".*\.when\.fusion_type", r"slurm\.gpus_per_node", r"data\.split\.(train|val|test)")
TRUE_TOO = (r"knowledge_transfer\.cross_expert_attention",)


def required(text: Text) -> tuple[str, ...]:
    """The keys that a recipe cannot be without."""
    source = text.document.get(("data", "source"))
    return (*REQUIRED, *(key for name, key in REQUIRED_BY_SOURCE.items() if name == source))


def is_one_of(patterns: Sequence[str], keys: Keys) -> bool:
    return any(re.fullmatch(pattern, dotted(keys)) for pattern in patterns)


# --- a recipe's text, and changes to it


@dataclass(frozen=True)
class Text:
    """A shipped recipe, and where each of its values stands as half-open ranges of characters."""

    text: str
    document: Document

    @classmethod
    def of(cls, path: Path) -> Text:
        text = path.read_text("utf-8")
        return cls(text, read_document(text, path.name))

    def key_paths(self) -> list[Keys]:
        return [path for path in self.value_paths() if isinstance(path[-1], str)]

    def value_paths(self) -> list[Keys]:
        return list(_below((), self.document.value))

    def start(self, path: Keys, at: Any = "value") -> int:
        place = self.document.place(path, at)
        lines = self.text.splitlines(keepends=True)
        return sum(map(len, lines[: place.line - 1])) + place.column - 1

    def key_range(self, path: Keys) -> tuple[int, int]:
        start = self.start(path, "key")
        return start, start + self.document.place(path, "key").length

    def is_inline(self, path: Keys) -> bool:
        """Whether the mapping that holds a key is in braces."""
        return self.text[self.start(path[:-1])] == "{"

    def value_range(self, path: Keys) -> tuple[int, int]:
        start, value = self.start(path), self.document.get(path)
        if isinstance(value, dict | tuple) and self.text[start] not in "[{":
            return self.start(path, "key") + len(str(path[-1])) + 1, self.block_end(path)
        return start, start + self.document.place(path).length

    def block_end(self, path: Keys) -> int:
        """The end of the last line of a key that stands on lines of its own."""
        indent = self.document.place(path, "key").column - 1
        position = self.text.index("\n", self.start(path, "key"))
        for line in self.text[position + 1 :].splitlines(keepends=True):
            bare = line.strip()
            if bare and not bare.startswith("#") and len(line) - len(line.lstrip()) <= indent:
                break
            position += len(line)
        return position

    def pair_range(self, path: Keys) -> tuple[int, int]:
        """A key with its value, and with what separates it from its neighbours."""
        start, end = self.start(path, "key"), self.value_range(path)[1]
        if not self.is_inline(path):
            return start, self.block_end(path) + 1
        if after := re.match(r",\s*", self.text[end:]):
            return start, end + after.end()
        before = re.search(r"(,\s*)?$", self.text[:start])
        return (before.start() if before else start), end

    def with_text(self, span: tuple[int, int], new: str) -> str:
        return self.text[: span[0]] + new + self.text[span[1] :]


def _below(path: Keys, value: Any) -> Iterator[Keys]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | tuple):
            yield from _below((*path, key), item)


def problems_of(text: str, tmp_path: Path) -> tuple[Problem, ...]:
    path = tmp_path / "mutated.yaml"
    path.write_text(text, "utf-8")
    try:
        read_recipe(path)
    except RecipeError as error:
        return error.problems
    return ()


def at(problem: Problem) -> tuple[int, int]:
    assert problem.place is not None
    return problem.place.line, problem.place.column


def key_at(text: Text, path: Keys) -> tuple[int, int]:
    place = text.document.place(path, "key")
    return place.line, place.column


# --- misspelt


def misspellings(key: str) -> Iterator[str]:
    """A letter left out (first, middle, last), two swapped, one doubled, another case."""
    forms = [key[1:], key[: len(key) // 2] + key[len(key) // 2 + 1 :], key[:-1]]
    forms += [key[:1] + key[2:3] + key[1:2] + key[3:], f"{key}{key[-1]}"]
    forms += [key.upper(), key.capitalize()]
    yield from (form for form in dict.fromkeys(forms) if form and form != key)


def slips(one: str, other: str) -> float:
    """Edit distance with swaps; a change of case counts a tenth of a letter."""
    table = {(i, 0): float(i) for i in range(len(one) + 1)}
    table |= {(0, j): float(j) for j in range(len(other) + 1)}
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            change = 0.0 if a == b else 0.1 if a.lower() == b.lower() else 1.0
            steps = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + change]
            if i > 1 and j > 1 and (a, b) == (other[j - 2], one[i - 2]):
                steps.append(table[i - 2, j - 2] + 1)
            table[i, j] = min(steps)
    return table[len(one), len(other)]


def is_clearly_meant(key: str, wrong: str, names: Sequence[str]) -> bool:
    """Whether a misspelling is nearer to the key than to any other name that could stand there."""
    to_key = slips(wrong, key)
    near = (other for other in names if other != key and abs(len(other) - len(wrong)) <= to_key)
    return len(wrong) > 1 and all(to_key < slips(wrong, other) for other in near)


def names_for(text: Text, path: Keys) -> list[str]:
    """Every name that could stand where a key stands, or that other tools give to some key."""
    spot = spot_of(path[:-1], text.document.value)
    assert spot is not None
    here = spot.keys(text.document.get(path[:-1]))
    return [*here, *spot.keys_of_any_kind(), *FOREIGN_NAMES]


def some_misspellings(text: Text, path: Keys, number: int) -> list[str]:
    """All of them where every option is shown; else one a key, each time another."""
    forms = list(misspellings(str(path[-1])))
    is_thorough = text.document.name == "every-option.yaml"
    return forms if is_thorough else [forms[number % len(forms)]]


@each_recipe
def test_a_misspelt_key_is_named_at_its_place_with_what_was_meant(
    recipe: Path, tmp_path: Path
) -> None:
    text, wrong_answers = Text.of(recipe), []
    for number, path in enumerate(text.key_paths()):
        if is_one_of(FREE, path):
            continue
        for wrong in some_misspellings(text, path, number):
            found = problems_of(text.with_text(text.key_range(path), wrong), tmp_path)
            expected = [(dotted((*path[:-1], wrong)), key_at(text, path))]
            if is_one_of(required(text), path):
                expected.append((dotted(path), key_at(text, path[:-1])))
            if sorted((p.key, at(p)) for p in found) != sorted(expected):
                wrong_answers.append((dotted(path), wrong, [p.render() for p in found]))
            clear = is_clearly_meant(str(path[-1]), wrong, names_for(text, path))
            if clear and f"did you mean {path[-1]!r}?" not in [p.fix for p in found]:
                wrong_answers.append((dotted(path), wrong, [p.render() for p in found]))
    assert wrong_answers == []


def test_most_misspellings_are_clear_enough_to_ask_for_the_right_suggestion() -> None:
    text = Text.of(next(path for path in RECIPES if path.stem == "every-option"))
    paths = [path for path in text.key_paths() if not is_one_of(FREE, path)]
    clear = [
        is_clearly_meant(str(path[-1]), wrong, names_for(text, path))
        for path in paths
        for wrong in misspellings(str(path[-1]))
    ]
    assert sum(clear) > 0.9 * len(clear)


# --- dropped


def remainder(text: Text, path: Keys) -> int:
    """How many keys the mapping keeps that loses this one."""
    return len(text.document.get(path[:-1])) - 1


def drop(text: Text, path: Keys) -> str:
    if remainder(text, path) or not path[:-1] or text.is_inline(path):
        start, end = text.pair_range(path)
        indent = 0 if text.is_inline(path) else key_at(text, path)[1] - 1
        return text.with_text((start - indent, end), "")
    return text.with_text(text.value_range(path[:-1]), " {}")


@each_recipe
def test_a_dropped_key_is_missed_at_its_parent_or_has_a_default(
    recipe: Path, tmp_path: Path
) -> None:
    text, wrong_answers = Text.of(recipe), []
    for path in text.key_paths():
        found = [(p.key, p.got, at(p)) for p in problems_of(drop(text, path), tmp_path)]
        expected: list[Any] = []
        if is_one_of((*required(text), *REQUIRED_TOGETHER), path):
            # The first line of a recipe is where a top-level key is missed: it may be that key's.
            where = at_after_drop(text, path)
            expected = [(dotted(path), "nothing: the key is missing", where)]
        elif is_one_of(NOT_EMPTY, path[:-1]) and not remainder(text, path):
            place = at_value_after_drop(text, path[:-1])
            expected = [(dotted(path[:-1]), "a mapping without keys", place)]
        if found != expected:
            wrong_answers.append((dotted(path), found, expected))
    assert wrong_answers == []


def at_after_drop(text: Text, path: Keys) -> tuple[int, int]:
    if path[:-1]:
        return key_at(text, path[:-1])
    first = read_document(drop(text, path), "r.yaml").place(())
    return first.line, first.column


def at_value_after_drop(text: Text, path: Keys) -> tuple[int, int]:
    place = text.document.place(path)
    return place.line, place.column


# --- wrong types

WRONG = {
    "text": '"nonsense"',
    "number": "7.5",
    "true": "true",
    "list": "[nonsense, 7.5]",
    "mapping": "{nonsense: 7.5}",
}


def wrong_types(path: Keys, value: Any) -> Iterator[str]:
    """What is of no type that may stand there."""
    kinds = {bool: "true", int: "number", float: "number", str: "text", dict: "mapping"}
    own = {kinds.get(type(value), "list")}
    if value == "auto":
        own = {"number", "text"}  # (a number is what auto often stands for; text: see below)
    if is_one_of(TEXT_TOO, path):
        own.add("text")
    if is_one_of(TRUE_TOO, path):
        own = {"true"}
    yield from (text for kind, text in WRONG.items() if kind not in own)


@each_recipe
def test_a_value_of_a_wrong_type_is_one_problem_at_the_value(recipe: Path, tmp_path: Path) -> None:
    text, wrong_answers = Text.of(recipe), []
    for number, path in enumerate(text.value_paths()):
        if is_one_of(("x-.*",), path):
            continue
        start = text.start(path)
        wrongs = list(wrong_types(path, text.document.get(path)))
        if recipe.stem != "every-option":
            wrongs = [wrongs[number % len(wrongs)]]
        for wrong in wrongs:
            span = text.value_range(path)
            is_block = span[0] < start
            mutated = text.with_text(span, f" {wrong}" if is_block else wrong)
            line, column = key_at(text, path) if is_block else at_value(text, path)
            column += len(str(path[-1])) + 2 if is_block else 0
            found = problems_of(mutated, tmp_path)
            if [(p.key, at(p)) for p in found if p.expected and p.got] != [
                (dotted(path), (line, column))
            ]:
                wrong_answers.append((dotted(path), wrong, [p.render() for p in found]))
    assert wrong_answers == []


def at_value(text: Text, path: Keys) -> tuple[int, int]:
    place = text.document.place(path)
    return place.line, place.column


# --- twice


def twice(text: Text, path: Keys) -> tuple[str, tuple[int, int]]:
    """The text with a pair written twice, and where the second of them begins."""
    start, end = text.pair_range(path)
    line, column = key_at(text, path)
    if text.is_inline(path):
        pair = text.text[text.start(path, "key") : text.value_range(path)[1]]
        start = text.start(path, "key")
        return text.with_text((start, start), f"{pair}, "), (line, column + len(pair) + 2)
    pair = text.text[start:end] + " " * (column - 1)
    return text.with_text((start, start), pair), (line + pair.count("\n"), column)


@each_recipe
def test_a_key_written_twice_is_one_problem_at_the_second(recipe: Path, tmp_path: Path) -> None:
    text, wrong_answers = Text.of(recipe), []
    for path in text.key_paths():
        mutated, where = twice(text, path)
        found = problems_of(mutated, tmp_path)
        first = f"remove one of them: the first stands in line {key_at(text, path)[0]}"
        got = f"the key {path[-1]!r} a second time"
        if [(p.key, at(p), p.got, p.fix) for p in found] != [(dotted(path), where, got, first)]:
            wrong_answers.append((dotted(path), found))
    assert wrong_answers == []


# --- and whole


@each_recipe
def test_a_shipped_recipe_itself_has_no_problem(recipe: Path, tmp_path: Path) -> None:
    assert problems_of(recipe.read_text("utf-8"), tmp_path) == ()


@pytest.mark.parametrize("recipe", RECIPES[::3], ids=lambda path: path.stem)
def test_a_mutated_recipe_ends_the_program_with_code_2_and_no_traceback(
    recipe: Path, tmp_path: Path
) -> None:
    text = Text.of(recipe)
    number = RECIPES.index(recipe)
    path = [path for path in text.key_paths() if not is_one_of(FREE, path)][number * 3]
    mutated = tmp_path / "mutated.yaml"
    mutated.write_text(text.with_text(text.key_range(path), f"{path[-1]}qq"), "utf-8")
    command = [sys.executable, "-m", "fusionrun", "plan", str(mutated)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line, column = key_at(text, path)
    assert done.returncode == 2
    assert f"{mutated}:{line}:{column}  " in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
