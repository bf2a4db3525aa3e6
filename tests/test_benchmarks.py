"""The benchmarks' pieces run, and their peers train the network that fusionrun trains."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import ours, peers
from benchmarks.__main__ import PART_NAMES, arguments_of
from benchmarks.comparison import adds, faster
from benchmarks.meter import Meter
from benchmarks.parts import PARTS
from benchmarks.recipes import COMMON, NO_CHECKPOINTS, equal_experts
from benchmarks.report import Bound, Section, document, engines
from benchmarks.rounds import MOST_LOSS_DIFFERENCE, Entry, Measured, measure
from benchmarks.task import plan_of, task_of
from benchmarks.worker import whole_loss_of
from fusionrun.train.bare import bare_trainer

pytestmark = pytest.mark.usefixtures("numerics")

RECIPE = """\
version: 1
name: small
preset: tuned
data: {source: npz, path: package:handwritten_digits, label: label}
experts:
  fourier: {model: mlp, view: fourier, hidden: [16], features: 16}
  zernike: {model: mlp, view: zernike, hidden: [8], features: 16}
fusion: {type: concatenation}
training: {epochs: 60, batch_size: 500, threads: 1}
"""
NEEDS = {"Lightning Trainer": "lightning", "Lightning Fabric": "lightning"}
NEEDS |= {"Accelerate": "accelerate"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


class Enough(Exception):
    pass


class Hundred(Meter):
    """Ends an engine when it begins its hundred and first step."""

    def ended(self, wall_s: float, cpu_s: float) -> None:
        raise Enough


def after_100_steps(engine: Callable[[Meter], None], loss: Callable[[], float]) -> float:
    """The loss when the engine begins its hundred and first step."""
    with pytest.raises(Enough):
        engine(Hundred(None, torch.device("cpu")))
    return loss()


@pytest.fixture(scope="module")
def our_loss(recipe: Path) -> float:
    trainer = bare_trainer(plan_of(recipe, list(COMMON)))
    return after_100_steps(lambda meter: ours.steps(trainer, meter), whole_loss_of(trainer))


@pytest.mark.filterwarnings("default")  # (Lightning has much to say: of srun, of workers)
@pytest.mark.parametrize("name", [name for name in peers.PEERS if name != "scikit-learn"])
def test_a_peer_comes_to_the_same_loss_as_fusionrun(
    name: str, recipe: Path, our_loss: float
) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    task = task_of(plan_of(recipe, list(COMMON)))
    before = task.whole_loss()
    loss = after_100_steps(lambda meter: peers.PEERS[name](task, meter), task.whole_loss)
    assert loss < 0.95 * before
    assert loss == pytest.approx(our_loss, rel=MOST_LOSS_DIFFERENCE)


def test_scikit_learn_takes_the_steps_that_it_is_asked_for(tmp_path: Path) -> None:
    task = task_of(plan_of(equal_experts(tmp_path, 1), list(COMMON)))
    after_100_steps(lambda meter: peers.PEERS["scikit-learn"](task, meter), float)


def test_what_the_runner_adds_is_counted_beside_its_steps(recipe: Path) -> None:
    settings = (*COMMON, "training.engine=eager", NO_CHECKPOINTS)
    (found,) = measure([Entry("whole", "runner", recipe, settings)], rounds=2, steps=3)
    assert found.missing == ""
    for whole, in_steps in zip(found.wall, found.in_steps, strict=True):
        assert 0 < in_steps < whole
    bound = adds("work", {"whole": found}, "whole", "whole", 0.02, 0.01)
    assert bound.measured == "1.00 (1.00 to 1.00)"


def test_a_round_of_two_engines_gives_times_loss_and_memory_of_both(recipe: Path) -> None:
    plain, own = measure(
        [Entry("plain", "plain loop", recipe, COMMON), Entry("own", "fusionrun", recipe, COMMON)],
        rounds=1,
        steps=2,
    )
    for found in (plain, own):
        assert found.missing == ""
        assert len(found.wall) == len(found.cpu) == 1
        assert min(found.wall[0], found.cpu[0], found.peak_bytes) > 0
    assert not own.is_void(plain)


def test_an_engine_that_fails_is_told_and_the_others_go_on(recipe: Path) -> None:
    wrong = Entry("wrong", "fusionrun", recipe, ("training.batch_size=0",))
    (found,) = measure([wrong], rounds=1, steps=2)
    assert found.missing.startswith("failed: ")
    text = engines("Title", "words", {"wrong": found}, []).text()
    assert "| wrong | failed: " in text


def measured(name: str, loss: float, seconds: float) -> Measured:
    return Measured(name, loss, [seconds] * 2, [seconds] * 2, peak_bytes=1000)


def test_a_number_of_an_engine_with_another_loss_is_void() -> None:
    found = {
        "plain": measured("plain", 1.0, 0.004),
        "same": measured("same", 1.00009, 0.002),
        "other": measured("other", 1.0002, 0.001),
        "broken": measured("broken", float("nan"), 0.001),
    }
    bounds = [
        faster("work", found, name, "plain", 1.5, 3.0) for name in ("same", "other", "broken")
    ]
    assert [bound.verdict for bound in bounds] == ["met", "void", "void"]
    lines = engines("Title", "words", found, bounds).text().splitlines()
    (same,) = (line for line in lines if line.startswith("| same"))
    assert "| 2.00 (2.00 to 2.00) | 2.00 (2.00 to 2.00) | 9.0e-05 |" in same
    for name in ("other", "broken"):
        (row,) = (line for line in lines if line.startswith(f"| {name}"))
        assert row.startswith(f"| {name} | void | ")
        assert "0.001" not in row


def test_the_page_names_machine_and_versions_but_no_host() -> None:
    bound = Bound("work", "at least 2 ×", "2.10 (2.00 to 2.20)", "met")
    text = document([Section("Title", "words", bounds=[bound])], "python -m benchmarks", 7)
    assert "| work | at least 2 × | 2.10 (2.00 to 2.20) | met |" in text
    assert f"Python {platform.python_version()}, torch " in text
    assert platform.node() not in text


def test_a_part_that_is_not_there_is_refused_before_anything_is_installed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tuple(PARTS) == PART_NAMES
    with pytest.raises(SystemExit, match="2"):
        arguments_of(["--only", "steps", "nix"])
    assert "invalid choice: 'nix'" in capsys.readouterr().err
