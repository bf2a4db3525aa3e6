"""A real components directory in a real run, small enough to make for every test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fusionrun.store.components import save_components
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import Manifest


@pytest.fixture
def record() -> dict[str, Any]:
    return {
        "run_id": "digits-1a2b3c4d-s0",
        "plan_hash": "1a2b3c4d5e6f",
        "which": "best",
        "epoch": 3,
        "step": 40,
        "chosen_on": {"split": "val", "path": "global", "metric": "accuracy", "value": 0.9875},
        "test_split": "touched once, after training",
        "classes": ["null", "één", "2"],
    }


@pytest.fixture
def components() -> dict[str, dict[str, torch.Tensor]]:
    flat = torch.arange(24, dtype=torch.float32)
    return {
        "experts.fourier": {
            "weight": flat[:12].view(3, 4),
            "bias": flat[12:15],
            "seen": torch.tensor(7),
        },
        "experts.pixels": {"weight": flat[15:21].view(2, 3).t()},
        "heads.fourier": {"weight": torch.linspace(-1, 1, 4).bfloat16()},
        "heads.pixels": {"empty": torch.zeros(0, 3), "mask": torch.tensor([True, False])},
        "fusion": {},
        "global_head": {"weight": flat[21:], "half": torch.ones(2, dtype=torch.float16)},
    }


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path / "runs" / "digits-1a2b3c4d-s0")
    layout.root.mkdir(parents=True)
    layout.plan.write_text("{}")
    return layout


@pytest.fixture
def saved(
    run: RunLayout, components: dict[str, dict[str, torch.Tensor]], record: dict[str, Any]
) -> Manifest:
    return save_components(run.components("best"), components, record=record)
