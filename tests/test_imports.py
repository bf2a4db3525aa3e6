"""Commands that only plan start without torch and numpy, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.written import write_mnist

RECIPE = Path(__file__).parents[1] / "recipes" / "every-option.yaml"
HEAVY = ("torch", "numpy", "safetensors", "sklearn", "pyarrow", "PIL", "torchvision")
# Runs the program as its entry point does, and says at the end what it has imported.
PROGRAM = """\
import sys

{before}
from fusionrun.cli.main import main

sys.argv = ["fusionrun", *{arguments!r}]
try:
    main()
finally:
    heavy = [name for name in {heavy!r} if name in sys.modules]
    print(f"heavy imports: {{heavy}}", file=sys.stderr)
"""
COMMANDS = {
    "help": ("--help",),
    "version": ("--version",),
    "help of plan": ("plan", "--help"),
    "help of train": ("train", "--help"),
    "help of convert": ("convert", "--help"),
    "help of preview": ("preview", "--help"),
    "help of lr-find": ("lr-find", "--help"),
    "help of profile": ("profile", "--help"),
    "plan": ("plan", str(RECIPE)),
    "plan --full": ("plan", str(RECIPE), "--full"),
    "plan --json": ("plan", str(RECIPE), "--json"),
    "plan --yaml": ("plan", str(RECIPE), "--yaml"),
    "plan --why": ("plan", str(RECIPE), "--why", "fusion.dim"),
    "plan --against": ("plan", str(RECIPE), "--set", "seed=1", "--against", str(RECIPE)),
    "schema": ("schema",),
    "init": ("init", "new.yaml"),
    "submit --dry-run": ("submit", str(RECIPE), "--executor", "local", "--dry-run"),
}


def run(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(before=before, arguments=arguments, heavy=HEAVY)
    environment = {k: v for k, v in os.environ.items() if k != "FUSIONRUN_RUNS"}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_only_plans_imports_nothing_heavy(name: str, tmp_path: Path) -> None:
    done = run(tmp_path, *COMMANDS[name])
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == "heavy imports: []\n"


def test_a_plan_of_images_imports_nothing_heavy(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    data = ("--set", "data={source: idx, path: mnist, expert_shares: iid}")
    views = [f"experts.{name}.view=image" for name in ("fourier", "pixels", "zernike")]
    settings = [part for view in (*views, "experts.pixels.shape=null") for part in ("--set", view)]
    channels = ("--set", "experts.pixels.channels=[8]", "--set", "augmentation={}")
    (tmp_path / "mine.yaml").write_bytes(RECIPE.read_bytes())
    done = run(tmp_path, "plan", "mine.yaml", *data, *settings, *channels)
    assert done.returncode == 0, done.stderr
    assert "iid, for pretraining" in done.stdout
    assert done.stderr == "heavy imports: []\n"


def test_the_check_sees_a_heavy_import(tmp_path: Path) -> None:
    done = run(tmp_path, "--version", before="import torch")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "heavy imports: ['torch', 'numpy']\n"


def test_a_recipe_that_is_wrong_is_refused_without_torch(tmp_path: Path) -> None:
    done = run(tmp_path, "plan", str(RECIPE), "--set", "fusion.type=nonsense")
    assert done.returncode == 2
    assert "'nonsense'" in done.stderr
    assert done.stderr.endswith("heavy imports: []\n")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("plan")])
def test_plan_writes_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(RECIPE.read_bytes())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    arguments = [a.replace(str(RECIPE), "mine.yaml") for a in COMMANDS[name]]
    assert run(tmp_path, *arguments).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
