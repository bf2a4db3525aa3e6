"""What counts as a gain by fusing: `fusionrun.gain`."""

from __future__ import annotations

from fusionrun.gain import gain_of


def test_the_rival_is_the_best_path_without_fusion() -> None:
    gain = gain_of({"global": 0.9, "a": 0.875, "b": 0.5, "mean_of_experts": 0.75})
    assert gain is not None
    assert (round(gain.points, 6), gain.rival) == (2.5, "a")


def test_one_expert_alone_is_not_fused() -> None:
    assert gain_of({"global": 0.9, "a": 0.9, "mean_of_experts": 0.9}) is None
