"""What YAML can do to a reader, through each way in: the recipe, a site's file, `--set`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.hostile.conftest import Canary
from tests.program import fusionrun

RECIPE = """\
version: 1
name: hostile
data: {source: npz, path: package:handwritten_digits, label: label}
experts:
  a: {model: mlp, view: fourier}
  b: {model: mlp, view: zernike}
fusion: {type: concatenation}
"""
BILLION_LAUGHS = "[" + ", ".join(
    ["&a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
) + "]"  # fmt: skip
# Values, each on one line, so that every way in takes them; and what is said of each.
VALUES = {
    "python/object/apply": ("!!python/object/apply:os.system ['COMMAND']", "the tag"),
    "python/object/new": ("!!python/object/new:subprocess.Popen [['sh', '-c', 'COMMAND']]", "tag"),
    "python/name": ("!!python/name:os.system", "the tag"),
    "python/module": ("!!python/module:antigravity", "the tag"),
    "a tag of one's own": ("!include /etc/passwd", "the tag"),
    "a local tag by its address": ("!<tag:yaml.org,2002:python/name:os.system> x", "the tag"),
    "a bomb of aliases": (BILLION_LAUGHS, "more than 100,000 keys and values"),
    "an alias to itself": ("&a [*a]", "inside the value it stands for"),
    "a mapping inside itself": ("&a {b: {c: *a}}", "inside the value it stands for"),
    "a merge of itself": ("&a {<<: *a}", "inside the value it stands for"),
    "lists without end": ("[" * 50_000, "maximum nesting depth"),  # (the parser's own word)
    "lists in each other": ("[" * 65 + "]" * 65, "more than 64 mappings and lists"),
    "mappings without end": ("{a: " * 50_000, "more than 64 mappings and lists"),
    "a key twice": ("{a: 1, a: 2}", "a second time"),
    "a number without end": ("9" * 5_000, "a number of 5000 characters"),
    "an escape character": ("\x1b]0;owned\x07", "U+001B"),
    "text that turns around": ("a\u2028b", "U+2028"),
    "half a character": ('"\\ud800"', "an escape that means no character"),
}


def plan(*arguments: object) -> str:
    """What `plan` says that refuses something."""
    done = fusionrun("plan", *arguments)
    assert isinstance(done.exception, SystemExit), done.exception
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    return done.stderr


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("way", ["recipe", "site", "--set"])
def test_it_is_refused_where_it_stands(
    tmp_path: Path, canary: Canary, value: str, way: str
) -> None:
    text, expected = VALUES[value]
    text = text.replace("COMMAND", canary.command)
    recipe, site = tmp_path / "recipe.yaml", tmp_path / "site.yaml"
    recipe.write_text(RECIPE + (f"x-mine: {text}\n" if way == "recipe" else ""), "utf-8")
    site.write_text(f"env: {text}\n" if way == "site" else "{}", "utf-8")
    changed = ["--set", f"x-mine={text}"] if way == "--set" else []
    said = plan(recipe, "--site", site, *changed)
    places = {"recipe": r"recipe\.yaml:8:\d+", "site": r"site\.yaml:1:\d+", "--set": "--set"}
    assert re.match(rf"(\S*/)?{places[way]}  ", said), said[:300]
    assert expected in said
    assert "\x1b" not in said


@pytest.mark.parametrize("way", ["recipe", "site"])
def test_a_file_of_more_than_a_megabyte_is_refused(tmp_path: Path, way: str) -> None:
    recipe, site = tmp_path / "recipe.yaml", tmp_path / "site.yaml"
    recipe.write_text(RECIPE)
    site.write_text("{}")
    with (recipe if way == "recipe" else site).open("a") as file:
        file.write("\n# " + "x" * 1_000_000)
    assert re.search(rf"{way}\.yaml:1:1  recipe\n  got       more than 1,000,000 bytes",
                     plan(recipe, "--site", site))  # fmt: skip


@pytest.mark.parametrize("way", ["recipe", "site"])
def test_a_file_without_end_is_refused_after_a_megabyte(tmp_path: Path, way: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "site.yaml").write_text("{}")
    (tmp_path / f"{way}.yaml").unlink()
    with (tmp_path / f"{way}.yaml").open("wb") as file:
        file.truncate(1 << 42)  # (sparse: no machine has the memory to read it)
    said = plan(tmp_path / "recipe.yaml", "--site", tmp_path / "site.yaml")
    assert "more than 1,000,000 bytes" in said


def test_a_device_is_no_recipe(tmp_path: Path) -> None:
    assert "not a regular file" in plan("/dev/zero")
