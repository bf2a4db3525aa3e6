"""Code comes from this package and from entry points of installed ones, never from a recipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from fusionrun.schema import kinds
from tests.hostile.conftest import RECIPE, Canary, refused
from tests.program import fusionrun

SOUND = """\
from typing import Literal
from fusionrun.schema.fusions import Fusion


class Mean(Fusion):
    type: Literal["mean"]
    module = "evil_fusion.torch_part:Mean"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose packages count as installed, and whose modules can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    kinds._entry_points.cache_clear()
    yield tmp_path
    kinds._entry_points.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("evil")]:
        del sys.modules[name]


def plan(folder: Path, text: str) -> str:
    """What `plan` says of a recipe: refused, in words."""
    (folder / "recipe.yaml").write_text(text)
    return refused(fusionrun("plan", folder / "recipe.yaml"), 2)


def install(folder: Path, schema: str, value: str = "evil_fusion.schema:Mean") -> None:
    """A package that offers a fusion type, and an expert of the same name."""
    package, info = folder / "evil_fusion", folder / "evil_fusion-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "schema.py").write_text(schema)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-fusion\nVersion: 1.0\n")
    groups = [f"[fusionrun.{group}]\nmean = {value}\n" for group in ("fusions", "experts")]
    (info / "entry_points.txt").write_text("\n".join(groups))


BROKEN = {
    "a module that is not there": ("", "evil_fusion.gone:Mean", "ModuleNotFoundError"),
    "a class that is not there": ("", "evil_fusion.schema:Mean", "AttributeError"),
    "a module that needs another": ("import torch_of_next_year", None, "ModuleNotFoundError"),
    "a module that raises": ("raise RuntimeError('boom')", None, "RuntimeError: boom"),
    "a module that is no Python": ("def", None, "SyntaxError"),
    "a function": ("def Mean(): pass", None, "<function Mean"),
    "a class of another kind": ("class Mean: pass", None, "<class 'evil_fusion.schema.Mean'>"),
    "a section without the tag": (
        "from fusionrun.schema.base import Section\nclass Mean(Section): pass", None, "<class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("section", ["fusion", "expert"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_package_is_named(site: Path, kind: str, section: str) -> None:
    schema, value, got = BROKEN[kind]
    install(site, schema, value or "evil_fusion.schema:Mean")
    changed = {"fusion": ("type: concatenation", "type: mean"), "expert": ("mlp", "mean")}
    said = plan(site, RECIPE.replace(*changed[section]))
    assert f"  got       {got}" in said
    assert "the package evil-fusion 1.0 offers it" in said


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (("fusion:", "trainig: {}\nfusion:"), "did you mean 'training'?"),
        (("type: concatenation", "typ: concatenation"), "recipe.yaml:7:10  fusion.typ"),
        (("type: concatenation", "type: concatenate"), "did you mean 'concatenation'?"),
        (("view: fourier", "veiw: fourier"), "did you mean 'view'?"),
    ],
)
def test_a_broken_package_spoils_no_other_recipe(
    site: Path, change: tuple[str, str], advice: str
) -> None:
    install(site, "raise RuntimeError('boom')")
    said = plan(site, RECIPE.replace(*change))
    assert advice in said
    assert "boom" not in said
    (site / "recipe.yaml").write_text(RECIPE)
    assert fusionrun("plan", site / "recipe.yaml").exit_code == 0


def test_a_sound_package_is_known_by_its_name(site: Path) -> None:
    install(site, SOUND)
    assert "did you mean 'mean'?" in plan(site, RECIPE.replace("type: concatenation", "type: maen"))


@pytest.mark.parametrize(
    "change",
    [
        ("type: concatenation", "type: evil"),
        ("type: concatenation", "type: evil:Thing"),
        ("type: concatenation", "type: evil.Thing"),
        ("type: concatenation", "type: 'evil_fusion.schema:Mean'"),
        ("model: mlp", "model: evil:Thing"),
        ("model: mlp", "model: 'timm:evil'"),
        ("model: mlp", "model: 'torchvision:evil.Thing'"),
        ("model: mlp", "module: evil:Thing, model: mlp"),
        ("source: npz", "source: evil"),
        ("data: {source: npz, path: package:handwritten_digits, label: label}",
         "data: {source: python, name: 'evil:Thing'}"),
        ("source: npz, path: package:handwritten_digits", "source: npz, path: 'evil:Thing'"),
        ("{epochs: 1,", "{optimizer: {type: evil.Thing}, epochs: 1,"),
        ("fusion:", "tracking: {evil: {}}\nfusion:"),
        ("fusion:", "evaluation: {metrics: [evil.Thing]}\nfusion:"),
    ],
)  # fmt: skip
def test_a_recipe_cannot_name_code(site: Path, canary: Canary, change: tuple[str, str]) -> None:
    code = f"open({str(canary.path)!r}, 'w').close()\nclass Thing: pass\n"
    (site / "evil.py").write_text(code)
    install(site, code)
    (site / "evil_fusion-1.0.dist-info" / "entry_points.txt").write_text("")
    assert change[0] in RECIPE
    plan(site, RECIPE.replace(*change))


def test_what_these_recipes_name_could_be_imported(site: Path, canary: Canary) -> None:
    (site / "evil.py").write_text(f"open({str(canary.path)!r}, 'w').close()\n")
    import_module("evil")
    assert canary.sang()
    canary.path.unlink()
