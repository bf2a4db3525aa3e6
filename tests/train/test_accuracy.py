"""The recipe that a newcomer runs first learns what it promises."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "handwritten-digits.yaml"


@pytest.mark.slow
def test_the_digits_reach_their_accuracy_and_calibration_over_seeds(tmp_path: Path) -> None:
    """Measured: 98.50 ± 0.25 % and 1.14 % over seeds 0 to 4 (2,000 predictions, 30 wrong).

    The bound leaves room for ten more, since another processor rounds otherwise.
    """
    found = []
    for seed in range(5):
        command = [sys.executable, "-m", "fusionrun", "train", str(RECIPE), "--json"]
        command += ["--runs", str(tmp_path), "--set", f"seed={seed}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout)["results"]["test"]["global"])
    assert statistics.mean(path["accuracy"] for path in found) >= 0.98
    assert statistics.mean(path["ece"] for path in found) <= 0.02
