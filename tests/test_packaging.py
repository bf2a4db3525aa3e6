"""Wheel and editable install both carry recipes, templates and data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fusionrun.datasets import path_of
from fusionrun.resources import shipped

ROOT = Path(__file__).parents[1]
PARTS = ("fusionrun", "recipes", "templates", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: a build leaves files behind, and tests run beside each other.
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        whole = ROOT / name
        (shutil.copytree if whole.is_dir() else shutil.copy2)(whole, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target"]
    subprocess.run([*command, str(target), str(wheel)], check=True, capture_output=True)
    return target


def fusionrun(installed: Path, folder: Path, *arguments: str) -> str:
    """Run the installed package, from a folder that is not the checkout."""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "fusionrun", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_carries_recipes_templates_data_and_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped_files = {
        f"fusionrun/_shipped/{kind}/{path.name}"
        for kind in ("recipes", "templates")
        for path in (ROOT / kind).iterdir()
        if path.is_file()
    }
    data = {"fusionrun/datasets/handwritten_digits.npz", "fusionrun/datasets/ATTRIBUTION.md"}
    assert len(shipped_files) > 5
    assert shipped_files | data | {"fusionrun/py.typed"} <= names


@pytest.mark.slow
def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fusionrun"}


@pytest.mark.slow
def test_an_installed_wheel_runs_from_itself(installed: Path, tmp_path: Path) -> None:
    code = "import fusionrun; print(fusionrun.__file__)"
    env = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)


@pytest.mark.slow
def test_an_installed_wheel_plans_its_own_recipe(installed: Path, tmp_path: Path) -> None:
    recipe = installed / "fusionrun/_shipped/recipes/handwritten-digits.yaml"
    assert "2,000 rows" in fusionrun(installed, tmp_path, "plan", str(recipe))


@pytest.mark.slow
def test_an_installed_wheel_writes_a_recipe_that_plans(installed: Path, tmp_path: Path) -> None:
    fusionrun(installed, tmp_path, "init", "mine.yaml")
    assert "preset tuned" in fusionrun(installed, tmp_path, "plan", "mine.yaml")


@pytest.mark.parametrize("kind", ["recipes", "templates"])
def test_an_editable_install_finds_the_checkouts(kind: str) -> None:
    assert any(shipped(kind).iterdir())


def test_an_editable_install_finds_the_data() -> None:
    assert path_of("handwritten_digits").is_file()
