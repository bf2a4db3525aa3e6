"""Runs trained side by side end as each does by itself, and nothing of one reaches another."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fusionrun.errors import FusionrunError
from fusionrun.launch import prepare
from fusionrun.plan.sweep import plan_points
from fusionrun.plan.together import groups_of
from fusionrun.store.checkpoints import list_checkpoints
from fusionrun.store.layout import RunLayout, Which
from fusionrun.store.status import read_status
from fusionrun.submit.journal import read_events
from fusionrun.train import several
from fusionrun.train.alone import alone
from fusionrun.train.job import run
from fusionrun.train.progress import EpochNews
from fusionrun.train.ranks import SINGLE
from fusionrun.train.several import _Means, run_together
from fusionrun.train.step import Ask
from tests.small_runs import SMALL

pytestmark = pytest.mark.usefixtures("numerics")

# Each point differs in its rates, its order of rows, its masks and its length; distillation,
# accumulation and dropout are on, and a batch of an epoch is short.
SWEEP = """\
training: {epochs: 3, batch_size: 48}
sweep:
  zip:
    learning_rates.base_lr: [1e-3, 3e-3, 1e-2]
    knowledge_transfer.lambda_loss: [1.0, 0.5, 2.0]
    knowledge_transfer.expert_gradient_clipping: [1.0, 0.1, null]
    training.epochs: [3, 2, 3]
    seed: [0, 1, 2]
"""


def prepared(folder: Path, sweep: str = SWEEP, recipe: str = SMALL) -> list[RunLayout]:
    """The runs of a sweep, not begun."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "many.yaml"
    path.write_text(recipe + sweep)
    source, points = plan_points(path, [], folder / "runs")
    assert [group.why for group in groups_of([point.plan for point in points])] == [""]
    return [prepare(point.plan, source.text, folder / "runs", new=True).layout for point in points]


def news(epoch: int, **changes: Any) -> EpochNews:
    own = {"loss": 1.0, "rates": (1e-3, 1e-3), "train_accuracy": 0.5, "val_accuracy": 0.5}
    pace = {"samples_per_s": 1e4, "steps_s": 0.1}
    return EpochNews(**{"epoch": epoch, "best": True, **own, **pace, **changes})


def weights(layout: RunLayout, which: Which = "last") -> dict[str, Tensor]:
    root = layout.components(which)
    files = sorted(root.rglob("*.safetensors"))
    return {f"{f.relative_to(root)}/{n}": t for f in files for n, t in load_file(f).items()}


def metrics(layout: RunLayout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in layout.metrics.read_text().splitlines()]


def off(one: object, other: object) -> float:
    """The largest difference between numbers in the same places, relative where above 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        return max([off(one[key], other[key]) for key in one if key not in TIMES], default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) / max(1.0, abs(one))
    assert one == other
    return 0.0


TIMES = ("seconds", "samples_per_s")


def same_bits(one: RunLayout, other: RunLayout) -> bool:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


class Ended(dict[str, list[RunLayout]]):
    """The same sweep, `together` and one by one (`alone`)."""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("several")
    both = Ended({name: prepared(folder / name) for name in ("together", "alone")})
    assert run_together(both["together"]) == {}
    for layout in both["alone"]:
        assert run(layout) == "completed"
    return both


def pairs(ended: Ended) -> Iterator[tuple[RunLayout, RunLayout]]:
    return zip(ended["together"], ended["alone"], strict=True)


@pytest.mark.parametrize("which", ["last", "best"])
def test_weights_are_those_of_runs_by_themselves(ended: Ended, which: str) -> None:
    for together, apart in pairs(ended):
        mine, theirs = weights(together, which), weights(apart, which)
        assert mine.keys() == theirs.keys()
        assert max(float((mine[n] - theirs[n]).abs().max()) for n in mine) < 1e-5


def test_metrics_of_every_epoch_are_those_of_runs_by_themselves(ended: Ended) -> None:
    for together, apart in pairs(ended):
        mine, theirs = metrics(together), metrics(apart)
        assert len(mine) == len(theirs)
        assert max(off(one, other) for one, other in zip(mine, theirs, strict=True)) < 1e-5


def test_results_are_those_of_runs_by_themselves(ended: Ended) -> None:
    for together, apart in pairs(ended):
        read = [json.loads(layout.results.read_text()) for layout in (together, apart)]
        assert off(*read) < 1e-5


def test_the_points_did_not_learn_the_same(ended: Ended) -> None:
    found = [next(iter(weights(layout).values())) for layout in ended["together"]]
    assert not torch.allclose(found[0], found[1])
    assert [len(metrics(layout)) for layout in ended["together"]] == [3, 2, 3]


def test_a_directory_is_as_that_of_a_run_by_itself(ended: Ended) -> None:
    for together, apart in pairs(ended):
        files = [
            {str(p.relative_to(layout.root)) for p in layout.root.rglob("*")}
            for layout in (together, apart)
        ]
        assert files[0] == files[1]
        assert read_status(together).state == "completed"
        told = [event["event"] for event in read_events(together)]
        assert told == [event["event"] for event in read_events(apart)]


# --- one of several ---------------------------------------------------------------------------

SAME_LENGTH = SWEEP.replace("[3, 2, 3]", "[3, 3, 3]")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[RunLayout]:
    layouts = prepared(tmp_path_factory.mktemp("undisturbed"), SAME_LENGTH)
    assert run_together(layouts) == {}
    return layouts


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[list[RunLayout], dict[str, FusionrunError]]:
    """The second run was asked to stop before its first step."""
    layouts = prepared(tmp_path, SAME_LENGTH)
    layouts[1].stop_request.write_text('{"reason": "cancel"}')
    return layouts, run_together(layouts)


def test_a_run_that_is_cancelled_leaves_the_others_as_they_are(
    stopped: tuple[list[RunLayout], dict[str, FusionrunError]], undisturbed: list[RunLayout]
) -> None:
    layouts, errors = stopped
    assert list(errors) == [layouts[1].id]
    assert "asked to stop" in str(errors[layouts[1].id])
    states = [read_status(layout).state for layout in layouts]
    assert states == ["completed", "stopped", "completed"]
    assert all(same_bits(layouts[n], undisturbed[n]) for n in (0, 2))


def test_what_was_stopped_goes_on_by_itself_to_the_same_bits(
    stopped: tuple[list[RunLayout], dict[str, FusionrunError]], undisturbed: list[RunLayout]
) -> None:
    layout = stopped[0][1]
    assert run(layout) == "completed"
    assert same_bits(layout, undisturbed[1])


def interrupting(step: int) -> Callable[..., Any]:
    """As `Together`, but a person interrupts before that step."""
    taken = several.Together.__call__

    def call(self: Any, asks: Any) -> Any:
        self.count = getattr(self, "count", 0) + all(isinstance(ask, Ask) for ask in asks.values())
        if self.count == step:
            signal.raise_signal(signal.SIGINT)
        return taken(self, asks)

    return call


def test_an_interrupt_stops_all_and_together_they_go_on_to_the_same_bits(
    tmp_path: Path, undisturbed: list[RunLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts = prepared(tmp_path, SAME_LENGTH)
    with monkeypatch.context() as patch:
        patch.setattr(several.Together, "__call__", interrupting(step=6))
        with pytest.raises(KeyboardInterrupt):
            run_together(layouts)
    assert [read_status(layout).state for layout in layouts] == ["interrupted"] * 3
    assert [read_status(layout).step for layout in layouts] == [6] * 3
    assert run_together(layouts) == {}
    assert all(same_bits(*pair) for pair in zip(layouts, undisturbed, strict=True))


def test_what_is_not_finite_in_one_run_reaches_no_other(
    tmp_path: Path, undisturbed: list[RunLayout]
) -> None:
    sweep = SAME_LENGTH.replace("1e-3, 3e-3, 1e-2", "1e-3, 1e+30, 1e-2")
    layouts = prepared(tmp_path, sweep)
    errors = run_together(layouts)
    assert list(errors) == [layouts[1].id]
    assert "not finite" in str(errors[layouts[1].id])
    assert read_status(layouts[1]).state == "failed"
    assert all(same_bits(layouts[n], undisturbed[n]) for n in (0, 2))


def test_what_ends_a_run_is_told_while_the_others_go_on(tmp_path: Path) -> None:
    sweep = SAME_LENGTH.replace("1e-3, 3e-3, 1e-2", "1e-3, 1e+30, 1e-2")
    layouts = prepared(tmp_path, sweep)
    told = []

    def tell(layout: RunLayout, error: FusionrunError) -> None:
        told.append((layout.id, str(error), read_status(layouts[0]).state))

    errors = run_together(layouts, tell)
    assert told == [(layouts[1].id, str(errors[layouts[1].id]), "running")]


def test_a_damaged_checkpoint_is_told_with_the_run_that_it_is_of(
    stopped: tuple[list[RunLayout], dict[str, FusionrunError]], capsys: pytest.CaptureFixture[str]
) -> None:
    layouts = stopped[0]
    (checkpoint,) = list_checkpoints(layouts[1].checkpoints)
    (checkpoint.path / "weights.safetensors").write_bytes(b"no weights")
    assert run_together(layouts) == {}
    skipped = f"{layouts[1].id}: checkpoint {checkpoint.name} is skipped: weights.safetensors"
    assert skipped in capsys.readouterr().out


def test_epochs_of_one_that_is_behind_are_shown_as_they_come() -> None:
    shown: list[EpochNews] = []
    means = _Means(shown.append, {0: 0, 1: 2})
    means.of(1)(news(3, loss=1.0))
    means.of(0)(news(1, loss=5.0))
    means.of(0)(news(2, loss=4.0))
    assert [(each.epoch, each.loss) for each in shown] == [(1, 5.0), (2, 4.0)]
    means.of(0)(news(3, loss=3.0))
    assert (shown[-1].epoch, shown[-1].loss) == (3, 2.0)


def test_epochs_that_waited_for_a_run_are_shown_when_it_ends() -> None:
    shown: list[EpochNews] = []
    means = _Means(shown.append, {0: 0, 1: 0})
    for epoch in (1, 2):
        means.of(1)(news(epoch))
    means.ended(0)
    assert [each.epoch for each in shown] == [1, 2]


def test_rates_that_are_shown_are_means_over_the_runs() -> None:
    shown: list[EpochNews] = []
    means = _Means(shown.append, {0: 0, 1: 0})
    means.of(0)(news(1, rates=(1e-3, 1e-3)))
    means.of(1)(news(1, rates=(3e-3, 1e-3)))
    assert shown[0].rates == pytest.approx((2e-3, 1e-3))


def test_a_run_that_another_process_trains_is_told_and_the_others_go_on(
    tmp_path: Path, undisturbed: list[RunLayout]
) -> None:
    layouts = prepared(tmp_path, SAME_LENGTH)
    with alone(layouts[0], SINGLE):
        errors = run_together(layouts)
    assert "another process trains this run" in str(errors[layouts[0].id])
    assert all(same_bits(layouts[n], undisturbed[n]) for n in (1, 2))


def test_folds_that_differ_by_a_row_and_equal_experts_are_trained_together(tmp_path: Path) -> None:
    sweep = """\
training: {epochs: 2, batch_size: 48}
augmentation: {modality_dropout: 0.2, label_smoothing: 0.1}
sweep: {folds: 3, grid: {data.split.val: [0.9]}}
"""
    equal = (
        "  third: {model: mlp, view: fourier, hidden: [16], features: 16, dropout: 0.1}\nfusion:"
    )
    folder = tmp_path / "together"
    recipe = SMALL.replace("fusion:", equal)
    together, alone_ = (prepared(f, sweep, recipe) for f in (folder, tmp_path / "alone"))
    assert run_together(together) == {}
    for mine, theirs in zip(together, alone_, strict=True):
        assert run(theirs) == "completed"
        one, other = weights(mine), weights(theirs)
        assert max(float((one[n] - other[n]).abs().max()) for n in one) < 1e-5
