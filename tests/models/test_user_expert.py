"""An expert of a user's own package: installed by pip, found by its entry point, trained, started
from. CONTRIBUTING.md shows the same package, and a test here holds the two together.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
RECIPE = """\
version: 1
name: theirs
preset: tuned
data: {source: npz, path: package:handwritten_digits, split: {train: 0.1, val: 0.1, test: 0.8}}
experts:
  own: {model: linear, view: zernike, features: 12}
  mlp: {model: mlp, view: fourier, hidden: [8], features: 8}
fusion: {type: concatenation}
training: {epochs: 1, batch_size: 64, device: cpu}
"""


def files_of_the_guide() -> dict[str, str]:
    """The files that CONTRIBUTING.md shows, by the name in their first line."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Adding an expert\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```\w+\n# (\S+)\n(.*?)```", section, flags=re.DOTALL)
    return dict(blocks)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, content in files_of_the_guide().items():
        path = source / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", *options, str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return target


def fusionrun(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "theirs.yaml").write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-m", "fusionrun", *arguments]
    env = {**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_the_guides_package_is_whole() -> None:
    assert list(files_of_the_guide()) == [
        "pyproject.toml",
        "my_experts/schema.py",
        "my_experts/linear.py",
    ]


def test_an_installed_expert_is_planned_without_torch(installed: Path, tmp_path: Path) -> None:
    done = fusionrun(installed, tmp_path, "plan", "theirs.yaml")
    assert done.returncode == 0, done.stderr
    assert re.search(r"experts\.own +12 +600 \+ 130 ", done.stdout)  # (576, and its norm)


def test_a_mistake_in_an_installed_expert_has_a_place(installed: Path, tmp_path: Path) -> None:
    setting = ("--set", "experts.own.featurs=3")
    done = fusionrun(installed, tmp_path, "plan", "theirs.yaml", *setting)
    assert done.returncode == 2
    assert "did you mean 'features'?" in done.stderr


def test_an_installed_expert_trains_and_another_run_starts_from_it(
    installed: Path, tmp_path: Path
) -> None:
    done = fusionrun(installed, tmp_path, "train", "theirs.yaml")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "runs").glob("*/components/best/experts/own.safetensors")
    assert load_file(file)["backbone.layer.weight"].shape == (12, 47)
    setting = ("--set", f"experts.own.weights={file}")
    again = fusionrun(installed, tmp_path, "plan", "theirs.yaml", *setting)
    assert "weights  experts.own starts from" in again.stdout


def test_without_the_package_its_expert_is_unknown(tmp_path: Path) -> None:
    done = fusionrun(tmp_path, tmp_path, "plan", "theirs.yaml")
    assert done.returncode == 2
    assert "got       'linear'" in done.stderr
