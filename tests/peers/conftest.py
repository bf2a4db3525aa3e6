"""Experts, data sets and image operations against the real libraries, timm and torchvision.

They need the full build of torch, so they have an environment of their own: `sh .ci/setup peers`
makes `.venv-peers`, and `.venv-peers/bin/pytest tests/peers` runs them. Elsewhere they skip.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe

RECIPE = """\
version: 1
name: peers
preset: tuned
data: {{source: npz, path: data.npz}}
experts:
  one: {expert}
  two: {{model: cnn, view: colour, channels: [4], features: 8}}
fusion: {{type: concatenation}}
training: {{epochs: 1, batch_size: 16, device: cpu}}
"""
HOW = "needs timm and torchvision: sh .ci/setup peers && .venv-peers/bin/pytest tests/peers"


@pytest.fixture(autouse=True)
def _libraries() -> None:
    pytest.importorskip("timm", reason=HOW)
    pytest.importorskip("torchvision", reason=HOW)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One cache for all tests, and not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSIONRUN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: `data.npz` with 32 × 32 images, `colour` and `grey`."""
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "data.npz",
        colour=rng.random((60, 3, 32, 32), dtype=np.float32),
        grey=rng.random((60, 32, 32), dtype=np.float32),
        label=np.arange(60) % 3,
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plan(folder: Path) -> Callable[..., Plan]:
    """Plan a recipe with such an expert: `plan("{model: timm:resnet18, view: grey}")`."""

    def plan_of(expert: str, *settings: str) -> Plan:
        (folder / "recipe.yaml").write_text(RECIPE.format(expert=expert), encoding="utf-8")
        return make_plan(read_recipe(Path("recipe.yaml"), settings), Path("runs"))

    return plan_of
