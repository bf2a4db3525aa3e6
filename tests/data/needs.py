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

needs_cifar = pytest.mark.skipif(
    not (Path(__file__).parents[2] / "recipes" / "cifar-100").is_dir(),
    reason="needs CIFAR-100 in recipes/cifar-100; on small files it is tested in any case",
)

RECIPES = Path(__file__).parents[2] / "recipes"


def shipped_recipes() -> list[Any]:
    """The names of the shipped recipes, for `parametrize`; those of images need the images."""
    return [pytest.param(path.name, marks=_needs(path)) for path in sorted(RECIPES.glob("*.yaml"))]


def _needs(recipe: Path) -> tuple[pytest.MarkDecorator, ...]:
    text = recipe.read_text()
    needs = {f"path: {FASHION}": needs_fashion_mnist, "source: cifar, path": needs_cifar}
    return tuple(mark for words, mark in needs.items() if words in text)
