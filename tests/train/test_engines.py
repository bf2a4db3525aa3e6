"""The whole step as one function, and compiled, against the step that goes call by call."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusionrun.data.load import load_data
from fusionrun.errors import NotCompiledError, UserError
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.train.ahead import library_of
from fusionrun.train.assemble import loss_settings, make_network, make_updater
from fusionrun.train.bare import bare_trainer
from fusionrun.train.captured import untouched
from fusionrun.train.engines import CompiledStep, engine_of, take_step, why_engine
from fusionrun.train.program import Program, traced
from fusionrun.train.ranks import SINGLE
from fusionrun.train.step import Ask, Step, StepLog
from fusionrun.train.tables import Table, spans
from fusionrun.train.whole_step import StepFunction, StepInputs
from fusionrun.train.whole_update import Memory

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("numerics")

# Two equal experts, one of another size, and one with convolutions and a BatchNorm. 160 rows in
# batches of 48: three whole ones, and one of 16.
RECIPE = """\
version: 1
name: engines
preset: tuned
data:
  source: npz
  path: package:handwritten_digits
  label: label
  split: {train: 0.08, val: 0.1, test: 0.82}
experts:
  one: {model: mlp, view: zernike, hidden: [8], features: 8, dropout: 0.2}
  image: {model: cnn, view: pixel_averages, shape: [16, 15], channels: [4], features: 8}
  two: {model: mlp, view: zernike, hidden: [8], features: 8, dropout: 0.2}
  other: {model: mlp, view: fourier, hidden: [8], features: 8}
fusion: {type: concatenation}
knowledge_transfer: {knowledge_distillation_weight: 0.1, expert_gradient_clipping: 0.5}
training: {epochs: 3, batch_size: 48, device: cpu}
"""
WINDOWS = "knowledge_transfer.expert_gradient_accumulation=2"
SGD = "training.optimizer={type: SGD, momentum: 0.9, nesterov: true}"
NO_FUSION = "fusion={type: productOfExperts}"
# One expert of each kind, and fewer of them to compile.
FEWER = (
    "experts={one: {model: mlp, view: zernike, hidden: [8], features: 8, dropout: 0.2}, "
    "image: {model: cnn, view: pixel_averages, shape: [16, 15], channels: [4], features: 8}}"
)
MUP = "learning_rates={rules: [{mup: {base_width: 4}}]}"
NO_TEACHER = "knowledge_transfer.knowledge_distillation_weight=0"
FROZEN = "experts.image.freeze={until: {epochs: 1}}"


class Uncompiled(CompiledStep):
    """The same function, without the compiler."""

    def _made(self, function: StepFunction, memory: Memory, given: StepInputs) -> StepFunction:
        return function


class Rehearsed(CompiledStep):
    """The same, with what a capture does before it begins: steps that leave no trace."""

    def _made(self, function: StepFunction, memory: Memory, given: StepInputs) -> StepFunction:
        with untouched(memory):
            function(memory, given)
            function(memory, given)
        return function


class Trained:
    """A recipe's step in float64, taken through its epochs.

    Attributes:
        losses: (steps, terms).
    """

    def __init__(self, folder: Path, engine: type[CompiledStep] | None, *settings: str) -> None:
        recipe = folder / "engines.yaml"
        recipe.write_text(RECIPE)
        self.plan = make_plan(read_recipe(recipe, settings), folder)
        rows = load_data(self.plan.settings.data, self.plan.data)["train"]
        network = make_network(self.plan, rows).double()
        views = {name: expert.view for name, expert in self.plan.settings.experts.items()}
        self._table = Table(rows, network.experts_by_name, views, CPU)
        self._table.matrix = self._table.matrix.double()
        updater = make_updater(self.plan, network, CPU)
        self.step = Step(network, updater, loss_settings(self.plan), "float32", CPU)
        self._rows = self.plan.settings.training.batch_size
        plain = take_step("eager", self.step, self._rows)
        self._take = plain if engine is None else engine(self.step, self._rows)
        torch.manual_seed(0)
        self.logs = [
            log for epoch in range(self.plan.settings.training.epochs) for log in self._epoch(epoch)
        ]
        self.losses = torch.stack([log.terms for log in self.logs])

    def _epoch(self, epoch: int) -> list[StepLog]:
        components = self.plan.components
        frozen = {name for name, c in components.items() if c.is_frozen(epoch)}
        rates = {n: None if n in frozen else c.rates[epoch] for n, c in components.items()}
        self.step.updater.set_rates(rates)
        network = self.step.network
        network.freeze([name for name in network.names if f"experts.{name}" in frozen])
        total = len(self._table)
        batches = [
            Ask(self._table.batch(torch.arange(*span)), span[1] == total)
            for span in spans(total, self._rows)
        ]
        return [self._take(batch) for batch in batches]

    @property
    def state(self) -> dict[str, Tensor]:
        """Weights, buffers, moments and counters."""
        modules = self.step.network.components().items()
        weights = {f"{n}.{k}": v for n, m in modules for k, v in m.state_dict().items()}
        optimizer = self.step.updater.state_dict().items()
        return weights | {f"optimizer.{n}.{k}": v for n, own in optimizer for k, v in own.items()}


def assert_equal(one: Trained, other: Trained) -> None:
    torch.testing.assert_close(one.losses, other.losses, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one.state, other.state, rtol=1e-9, atol=1e-9)
    for first, second in zip(one.logs, other.logs, strict=True):
        assert torch.equal(first.experts, second.experts)
        assert torch.equal(first.overall, second.overall)
        assert (first.record and first.record.groups) == (second.record and second.record.groups)
        if first.record and second.record:
            torch.testing.assert_close(
                first.record.norms, second.record.norms, rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize(
    "settings",
    [(), (WINDOWS,), (SGD,), (FROZEN,), (MUP,), (WINDOWS, SGD, FROZEN), (WINDOWS, NO_FUSION)],
    ids=["AdamW", "windows", "SGD", "frozen", "mup", "all", "nothing steps at every batch"],
)
def test_the_whole_step_is_the_step(tmp_path: Path, settings: Sequence[str]) -> None:
    plain = Trained(tmp_path, None, *settings)
    assert [stack.names for stack in plain.step.network.stacked] == [("one", "two")]
    assert_equal(Trained(tmp_path, Uncompiled, *settings), plain)


def test_windows_in_which_nothing_waits_are_no_windows(tmp_path: Path) -> None:
    one = "one: {model: mlp, view: zernike, hidden: [8], features: 8, freeze: true}"
    settings = [f"experts={{{one}}}", NO_TEACHER, "knowledge_transfer.lambda_loss=0", WINDOWS]
    plain, whole = (Trained(tmp_path, engine, *settings) for engine in (None, Uncompiled))
    assert_equal(whole, plain)
    assert not plain.step.updater.has_windows


def test_a_whole_step_of_one_row_is_the_step_where_an_image_is_halved_to_a_pixel(
    tmp_path: Path,
) -> None:
    image = "image: {model: densenet121, view: karhunen_loeve, shape: [8, 8], growth: 2}"
    settings = [f"experts={{{image}}}", NO_TEACHER, "training.batch_size=1", "training.epochs=1"]
    few = "data.split={train: 0.005, val: 0.1, test: 0.895}"
    plain = Trained(tmp_path, None, *settings, few)
    assert_equal(Trained(tmp_path, Uncompiled, *settings, few), plain)


def test_warm_up_leaves_no_trace(tmp_path: Path) -> None:
    plain = Trained(tmp_path, None, WINDOWS)
    assert_equal(Trained(tmp_path, Rehearsed, WINDOWS), plain)


needs_compiler = pytest.mark.skipif(
    not shutil.which("g++"), reason="needs a C++ compiler: apt-get install g++"
)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_step_is_the_step_and_is_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSIONRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    plain = Trained(tmp_path, None, FEWER)
    assert_equal(Trained(tmp_path, CompiledStep, FEWER), plain)
    folder = tmp_path / "cache" / "compiled"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list(folder.glob("*.so"))) == 1
    monkeypatch.setenv("CXX", "/no/compiler")
    assert_equal(Trained(tmp_path, CompiledStep, FEWER), plain)


def test_a_damaged_library_is_compiled_anew_and_what_cannot_be_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    program = Program('[["aten.no_such", [], {"named": {}}], [{"value": 0}]]', (), 1, True)
    damaged = tmp_path / f"{program.key}-0123456789abcdef.so"
    damaged.write_text("not the bytes that its name tells of")
    with pytest.raises(NotCompiledError, match=r"cannot be compiled: AttributeErr.*no_such"):
        library_of(program, tmp_path)
    assert not list(tmp_path.glob("*.so"))


def test_a_compiler_that_was_ended_from_outside_need_not_end_so_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = Program("[]", (), 1, True)
    with pytest.raises(NotCompiledError, match="ended from outside, by SIGKILL") as caught:
        library_of(program, tmp_path)
    assert not caught.value.repeats


def test_what_a_killed_compiler_left_goes_a_day_later(tmp_path: Path) -> None:
    days = {".of_today": 0.0, ".of_yesterday": 25 * 3600.0}
    for name, seconds in days.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "step.cpp").touch()
        os.utime(tmp_path / name, (time.time() - seconds,) * 2)
    with pytest.raises(NotCompiledError):
        library_of(Program('[["aten.no_such", [], {}], []]', (), 1, True), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".of_today"]


@needs_compiler
def test_a_batch_of_all_rows_is_compiled_though_batches_might_have_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engines.yaml").write_text(RECIPE)
    (tmp_path / "sitecustomize.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FUSIONRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    settings = ["training.engine=compiled", "training.batch_size=1000", FEWER]
    source = read_recipe(tmp_path / "engines.yaml", settings)
    trainer = bare_trainer(make_plan(source, tmp_path / "runs"))
    trainer.set_first_rates()
    with pytest.raises(NotCompiledError, match="ended from outside"):  # (so it was begun)
        trainer.take(Ask(trainer.train.batch(trainer.first_rows()), True))


def test_a_program_is_its_operations_and_what_it_reads() -> None:
    own = torch.full((2, 3), 2.0)
    program, further = traced(lambda x: (x.t() * own.t(),), [torch.ones(2, 3)])
    assert [form.shape for form in program.forms] == [(2, 3), (2, 3)]
    again = Program.from_json(program.to_json())
    assert again == program
    (product,) = again.module()(torch.ones(2, 3), *further)
    assert torch.equal(product, torch.full((3, 2), 2.0))


def test_programs_that_differ_in_operations_forms_or_threads_have_libraries_of_their_own() -> None:
    program, _ = traced(lambda x: (x + 1,), [torch.ones(2)])
    others = [
        traced(lambda x: (x + 2,), [torch.ones(2)])[0],
        traced(lambda x: (x + 1,), [torch.ones(3)])[0],
        replace(program, threads=program.threads + 1),
    ]
    assert len({own.key for own in (program, *others)}) == 4
    assert program.key == traced(lambda x: (x + 1,), [torch.zeros(2)])[0].key


def test_an_eager_step_imports_no_compiler(tmp_path: Path) -> None:
    (tmp_path / "engines.yaml").write_text(RECIPE)
    program = """
import sys
from pathlib import Path
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.train.bare import bare_trainer

def first_step():
    raise SystemExit if log else log.append(1)

log = []
trainer = bare_trainer(make_plan(read_recipe(Path("engines.yaml"), []), Path("runs")))
trainer.set_first_rates()
try:
    trainer.one_epoch(0, first_step)
finally:
    heavy = ("torch._dynamo", "torch._inductor", "torch.distributed.checkpoint", "sympy")
    print(trainer.engine, [name for name in heavy if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "eager []\n", done.stderr


def test_a_run_without_a_compiler_is_eager_and_says_that_this_is_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engines.yaml").write_text(RECIPE)
    source = read_recipe(tmp_path / "engines.yaml", ["training.epochs=5000"])
    plan = make_plan(source, tmp_path / "runs")
    assert plan["training.engine"] == "compiled"
    monkeypatch.setenv("CXX", "no-such-compiler")
    engine = engine_of(plan, CPU, SINGLE)
    assert engine == "eager"
    why = why_engine(plan, engine, CPU, SINGLE)
    assert why == "auto: compiled needs a C++ compiler, and there is no no-such-compiler on PATH"


@needs_compiler
def test_a_cache_that_cannot_be_written_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "engines.yaml").write_text(RECIPE)
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUSIONRUN_CACHE", str(tmp_path / "file"))
    source = read_recipe(tmp_path / "engines.yaml", ["training.engine=compiled"])
    with pytest.raises(UserError, match=r"a cache to write to .*file/compiled: Not a directory"):
        engine_of(make_plan(source, tmp_path / "runs"), CPU, SINGLE)
