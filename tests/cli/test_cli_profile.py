"""`fusionrun profile`: where a step's time goes, on the digits."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner, Result

from fusionrun.cli.main import make_app
from fusionrun.plan.plan import Plan
from fusionrun.profiling.profile import WARM_PROFILED_STEPS
from fusionrun.train.bare import BareTrainer, bare_trainer
from fusionrun.train.engines import CompiledStep
from fusionrun.train.step import Ask, StepLog
from fusionrun.train.whole_step import StepFunction, StepInputs
from fusionrun.train.whole_update import Memory
from tests.small_runs import TWO_EXPERTS

RECIPE = f"""\
{TWO_EXPERTS}augmentation: {{noise: 0.1}}
training: {{epochs: 1, batch_size: 400, device: cpu, threads: 1}}
"""
PHASES = ["data", "augmentation", "forward", "losses", "backward", "clip + optimizer", "logging"]
COMPONENTS = ["experts.fourier", "experts.zernike", "heads.fourier", "heads.zernike"]
COMPONENTS += ["fusion", "global_head", "losses"]
STEPS = 7  # more than the recipe has


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    (folder / "small.yaml").write_text(RECIPE)
    return folder


def profile(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(make_app(), ["profile", str(folder / "small.yaml"), *arguments])


@pytest.fixture(scope="module")
def found(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fusionrun", "profile", "small.yaml", "--json"]
    command += ["--steps", str(STEPS), "-o", "trace.json"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def told(found: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(found.stdout)
    return content


@pytest.fixture(scope="module")
def ranges(folder: Path, told: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The trace's named ranges; a file that is no JSON would not get here."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for event in json.loads((folder / "trace.json").read_text())["traceEvents"]:
        if event.get("cat") == "user_annotation":
            by_name.setdefault(event["name"], []).append(event)
    return by_name


def test_the_phases_and_what_lies_between_them_are_the_whole_step(told: dict[str, Any]) -> None:
    phases = told["phases"]
    assert [phase["phase"] for phase in phases] == [*PHASES, "between them"]
    assert sum(phase["share"] for phase in phases) == pytest.approx(1)
    assert sum(phase["ms"] for phase in phases) == pytest.approx(told["profiled_step_ms"])
    assert all(phase["ms"] > 0 for phase in phases)


def test_every_component_takes_its_part_of_forward_and_backward(told: dict[str, Any]) -> None:
    parts = told["components"]
    assert [part["component"] for part in parts] == [*COMPONENTS, "the network around them"]
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    assert all(part["forward_ms"] > 0 and part["backward_ms"] > 0 for part in parts)
    ms = {phase["phase"]: phase["ms"] for phase in told["phases"]}
    forward = sum(part["forward_ms"] for part in parts)
    assert forward == pytest.approx(ms["forward"] + ms["losses"])
    assert sum(part["backward_ms"] for part in parts) <= ms["backward"] * 1.001


def test_the_trace_has_a_range_of_every_step_phase_and_component(
    ranges: dict[str, list[dict[str, Any]]],
) -> None:
    assert sum(len(own) for name, own in ranges.items() if "ProfilerStep" in name) == STEPS
    for name in (*PHASES, *COMPONENTS):
        assert len(ranges[name]) >= STEPS, name


def test_pace_and_work_fit_each_other(told: dict[str, Any]) -> None:
    assert (told["steps"], told["batch_rows"]) == (STEPS, 400)
    assert told["samples_per_s"] == pytest.approx(400 * told["steps_per_s"])
    assert told["steps_per_s"] == pytest.approx(1000 / told["step_ms"])
    # Forward and the gradient of the weights cost 2 each, a layer's input another 2 but the first.
    first, later = 16 * (76 + 47), 2 * (16 * 16 + 16 * 10) + 32 * 16 + 16 * 16 + 16 * 10
    assert told["step_flop"] == 400 * (4 * first + 6 * later)
    assert told["share_of_peak"] == told["flop_per_s"] / told["peak_flop_per_s"]
    assert told["peak_memory_growth"] > 0


def test_no_run_is_made_and_nothing_else_is_written(
    folder: Path, found: subprocess.CompletedProcess[str]
) -> None:
    assert sorted(os.listdir(folder)) == ["small.yaml", "trace.json"]
    assert found.stderr == ""


@pytest.mark.usefixtures("numerics")
def test_the_screen_shows_both_tables_and_where_the_trace_is(folder: Path) -> None:
    trace = folder / "again.json.gz"
    result = profile(folder, "--steps", "2", "-o", str(trace))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("small  ·  cpu, 1 thread  ·  engine eager  ·  float32")
    assert f"trace    {trace}  written; ui.perfetto.dev shows it" in lines
    names = [line.split("  ")[0] for line in lines]
    for heading, rows in (("phase", [*PHASES, "between them"]), ("component", COMPONENTS)):
        start = names.index(heading) + 1
        assert names[start : start + len(rows)] == rows
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    trace.unlink()


@pytest.mark.usefixtures("numerics")
def test_an_epoch_of_one_batch_is_said_to_be_timed_with_its_end(folder: Path) -> None:
    result = profile(folder, "--steps", "1", "--set", "training.batch_size=5000")
    assert result.exit_code == 0, result.output
    assert "ms a step, each with an epoch's end: " in result.stdout
    assert "batches of 1200" in result.stdout
    assert "trace    none: -o FILE.json writes one" in result.stdout


class Uncompiled(CompiledStep):
    """The same function, without the compiler; `taken` says how many graphs there were, by step."""

    taken: ClassVar[list[int]] = []

    def __call__(self, ask: Ask) -> StepLog:
        log = super().__call__(ask)
        self.taken.append(self.num_graphs)
        return log

    def _made(self, function: StepFunction, memory: Memory, given: StepInputs) -> StepFunction:
        return function


@pytest.mark.usefixtures("numerics")
def test_steps_are_timed_once_all_kinds_are_compiled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusionrun.profiling import profile as module

    def compiled(plan: Plan) -> BareTrainer:
        trainer = bare_trainer(plan)
        take = Uncompiled(trainer.step, trainer.batch_rows)
        return replace(trainer, engine="compiled", take=take)

    monkeypatch.setattr(module, "bare_trainer", compiled)
    windows = "knowledge_transfer.expert_gradient_accumulation=12"
    batches = ["--set", "training.batch_size=48", "--set", windows]
    result = profile(folder, "--steps", "4", *batches)
    assert result.exit_code == 0, result.output
    # The first window closes at the 12th step, the second of those that would be timed.
    assert Uncompiled.taken == [1, *[2] * 10, 3, *[3] * 4, *[3] * (WARM_PROFILED_STEPS + 4)]


@pytest.mark.usefixtures("numerics")
def test_a_step_that_is_one_graph_is_shown_as_a_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusionrun.profiling import profile as module

    def compiled(plan: Plan) -> BareTrainer:
        return replace(bare_trainer(plan), engine="compiled")

    monkeypatch.setattr(module, "bare_trainer", compiled)
    lines = profile(folder, "--steps", "2").stdout.splitlines()
    start = [line.split("  ")[0] for line in lines].index("phase")
    shown = [line.split("  ")[0] for line in lines[start + 1 : start + 6]]
    assert shown == ["data", "augmentation", "the whole step", "logging", "between them"]
    assert lines[-1] == "the step is one graph: --set training.engine=eager shows its components"


@pytest.mark.usefixtures("numerics")
def test_of_several_stages_the_last_one_is_looked_at(folder: Path) -> None:
    each = ", ".join(f"{{stage: {stage}, epochs: 1}}" for stage in ("pretrain", "warmup", "joint"))
    settings = ("--set", f"stages=[{each}]", "--set", "training.epochs=2")
    result = profile(folder, "--steps", "1", "--json", *settings)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["stage"] == "joint"
    assert min(part["backward_ms"] for part in told["components"] if "." in part["component"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "trace.txt"), "expected a name that ends in .json or .json.gz"),
        (("-o", "absent/trace.json"), "and absent is no directory"),
        (("--steps", "0"), "Invalid value for '--steps'"),
        (("-o", "/proc/trace.json"), "'/proc/trace.json' cannot be written"),
        (("--set", "sweep={seeds: [0, 1]}"), "--set sweep=null profiles this one run"),
        (("--set", "training.epochs=x"), "training.epochs"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = profile(folder, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""
