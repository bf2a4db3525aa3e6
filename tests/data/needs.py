"""What a test does where a data set or a library is not installed: it skips, and says how."""

from __future__ import annotations

from pathlib import Path

import pytest

FASHION = "/usr/share/datasets/fashion-mnist"

needs_fashion_mnist = pytest.mark.skipif(
    not Path(FASHION).is_dir(),
    reason="needs Fashion-MNIST: apt-get install dataset-fashion-mnist",
)
