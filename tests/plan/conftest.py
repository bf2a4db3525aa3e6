"""A folder with a small real data file, and recipes written next to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe

HEAD = """\
version: 1
name: small
data: {source: npz, path: data.npz}
"""
EXPERTS = """\
experts:
  one: {model: mlp, view: a, features: 64}
  two: {model: mlp, view: b, features: 64}
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 120 columns, whatever the tests run in."""
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: `data.npz` with views a, b (vectors) and pixels (8 × 8)."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        a=rng.random((60, 4), dtype=np.float32),
        b=rng.random((60, 12), dtype=np.float32),
        pixels=rng.random((60, 8, 8), dtype=np.float32),
        label=np.arange(60) % 3,
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Write a recipe: `write("fusion: …", experts="…")` returns its path in the folder."""

    def write_text(
        rest: str = "fusion: {type: multiplicative}",
        *,
        experts: str = EXPERTS,
        name: str = "recipe.yaml",
    ) -> Path:
        path = Path(name)
        path.write_text(f"{HEAD}{experts}{rest}\n", encoding="utf-8")
        return path

    return write_text


@pytest.fixture
def plan(write: Callable[..., Path]) -> Callable[..., Plan]:
    """Plan such a recipe; `settings` are `--set` arguments."""

    def plan_of(rest: str = "fusion: {type: multiplicative}", *settings: str, **where: str) -> Plan:
        return make_plan(read_recipe(write(rest, **where), settings), Path("runs"))

    return plan_of
