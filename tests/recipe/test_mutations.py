"""Every key of every shipped recipe misspelt, dropped, of a wrong type, written twice: exactly the
right problems, each at its line and column, with the right suggestion.

The mutations are made in the text, at the places that the Document itself gives, so that layout and
comments stay as people write them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fusionrun.errors import Problem, RecipeError
from fusionrun.recipe.document import Document, dotted, read_document
from fusionrun.recipe.document import Path as Keys
from fusionrun.recipe.read import read_recipe
from fusionrun.recipe.suggest import FOREIGN_NAMES
from fusionrun.schema.describe import spot_of

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)

# Said here a second time, not read off the schema: patterns of dotted keys.
REQUIRED = (
    "version|name|data|experts|fusion",
    r"data\.(source|path)",
    r"experts\.[^.]+\.(model|view)",
    r"fusion\.type|schedulers\.[^.]+\.type",
    r"schedulers\.[^.]+\.warmup\.epochs",
    r"learning_rates\.rules\[\d+\]\.(when|scale)",
    r"training\.early_stopping\.patience",
)
# Names that the user chose, and what nothing reads.
FREE = (r"experts\.[^.]+", r"data\.views\.[^.]+", r"learning_rates\.experts\.[^.]+", "x-.*")
# A mapping with one key left may not be empty.
NOT_EMPTY = (r"learning_rates\.rules\[\d+\]\.(when\.[^.]+|scale)", r"experts", r"data\.views")
TEXT_TOO = (r".*\.when\.fusion_type", r"slurm\.gpus_per_node")
TRUE_TOO = (r"knowledge_transfer\.cross_expert_attention",)


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

    def keys(self) -> list[Keys]:
        return [path for path in self.values() if isinstance(path[-1], str)]

    def values(self) -> list[Keys]:
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
    forms += [key[:1] + key[1::-1][:0] + key[2:3] + key[1:2] + key[3:], f"{key}{key[-1]}"]
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


def is_clearly_meant(key: str, wrong: str, siblings: Sequence[str]) -> bool:
    """Whether a misspelling is nearer to the key than to any other name that could stand there."""
    others = [slips(wrong, other) for other in siblings if other != key]
    foreign = wrong.casefold() in FOREIGN_NAMES
    return slips(wrong, key) < min(others, default=9) and len(wrong) > 1 and not foreign


@dataclass(frozen=True)
class Misspelling:
    path: Keys
    wrong: str
    text: str

    @property
    def wrong_path(self) -> Keys:
        return (*self.path[:-1], self.wrong)


def all_misspellings(text: Text) -> Iterator[Misspelling]:
    for path in text.keys():
        if is_one_of(FREE, path):
            continue
        for wrong in misspellings(str(path[-1])):
            yield Misspelling(path, wrong, text.with_text(text.key_range(path), wrong))
if __name__ == "__main__":
    import tempfile, time
    tmp = Path(tempfile.mkdtemp())
    for r in RECIPES[:1]+RECIPES[-1:]:
        t = Text.of(r); n=0; t0=time.time()
        for m in all_misspellings(t):
            n+=1
            req = is_one_of(REQUIRED, m.path)
            ps = problems_of(m.text, tmp)
            want = [(dotted(m.wrong_path), key_at(t, m.path))]
            if req: want.append((dotted(m.path), key_at(t, m.path[:-1])))
            got=[(p.key, at(p)) for p in ps]
            if sorted(want)!=sorted(got):
                print('PROB', dotted(m.path), m.wrong, got, want)
            sp = spot_of(m.path[:-1], t.document.value)
            sib = sp.keys(t.document.get(m.path[:-1])) if sp else ()
            if is_clearly_meant(str(m.path[-1]), m.wrong, sib):
                f=[p.fix for p in ps if p.key==dotted(m.wrong_path)]
                if f != [f"did you mean {m.path[-1]!r}?"]: print('FIX', dotted(m.path), m.wrong, f)
        print(r.name, n, time.time()-t0)
