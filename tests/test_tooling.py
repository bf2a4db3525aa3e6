"""The project's own checks are clean, and CI runs what the README says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.store.layout import run_id

ROOT = Path(__file__).parents[1]
TEST_COMMAND = "sh .ci/setup test && .venv/bin/pytest -n 3 --dist loadfile"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)],
    ids=" ".join,
)
def test_the_checkout_is_clean(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_the_test_command_is_the_same_everywhere(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert TEST_COMMAND in [line.strip() for line in lines]


def test_the_run_in_the_readme_is_the_one_that_a_reader_gets(tmp_path: Path) -> None:
    plan = make_plan(read_recipe(ROOT / "recipes" / "handwritten-digits.yaml"), tmp_path)
    shown = set(re.findall(r"handwritten-digits-[0-9a-f]{8}-s0", (ROOT / "README.md").read_text()))
    assert shown == {run_id(plan.name, plan.hash, plan.seed)}
