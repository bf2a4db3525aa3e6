"""What a test does where a data set or a library is not installed: it skips, and says how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FASHION = "/usr/share/datasets/fashion-mnist"

needs_fashion_mnist = pytest.mark.skipif(
    not Path(FASHION).is_dir(),
    reason="needs Fashion-MNIST: apt-get install dataset-fashion-mnist",
)

RECIPES = Path(__file__).parents[2] / "recipes"


def shipped_recipes() -> list[Any]:
    """The names of the shipped recipes, for `parametrize`; those of images need the images."""
    return [
        pytest.param(path.name, marks=needs_fashion_mnist if FASHION in path.read_text() else ())
        for path in sorted(RECIPES.glob("*.yaml"))
    ]
