"""One step of several runs as one against the same step of each alone, for every fusion type."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fusionrun.data.load import load_data
from fusionrun.plan.plan import Plan
from fusionrun.plan.sweep import plan_points
from fusionrun.schema.fusions import FUSIONS
from fusionrun.train import together as together_module
from fusionrun.train.assemble import loss_settings, make_network, make_tables, make_updater
from fusionrun.train.buffers import Allocate, own_memory
from fusionrun.train.evaluate import split_logits
from fusionrun.train.ranks import SINGLE
from fusionrun.train.step import Ask, AskLogits, Step
from fusionrun.train.tables import Table
from fusionrun.train.together import SideBySide, Together
from tests.small_runs import SMALL

CPU = torch.device("cpu")
TYPES = sorted(FUSIONS.names())


def made(plan: Plan, allocate: Allocate = own_memory) -> tuple[Step, Table]:
    rows = load_data(plan.settings.data, plan.data)
    network = make_network(plan, rows["train"])
    updater = make_updater(plan, network, CPU, SINGLE, allocate)
    updater.set_rates({name: component.lr for name, component in plan.components.items()})
    generator = torch.Generator().manual_seed(plan.seed)
    step = Step(network, updater, loss_settings(plan), "float32", CPU, generator)
    return step, make_tables(plan, network, rows, CPU)["train"]


def points(recipe: str, folder: Path) -> list[Plan]:
    path = folder / "r.yaml"
    path.write_text(recipe)
    return [point.plan for point in plan_points(path, [], folder)[1]]


def of_fusion(kind: str) -> str:
    """The small recipe with a fusion of that type, and what several runs can compute as one."""
    dropout = "" if kind == "productOfExperts" else ", dropout: 0.2"
    recipe = SMALL.replace("{type: concatenation, dropout: 0.2}", f"{{type: {kind}{dropout}}}")
    return recipe.replace("weight: 0.1", "weight: 0.1, cross_expert_attention: false")


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("kind", TYPES)
def test_a_step_of_several_is_that_of_each(kind: str, window: int, tmp_path: Path) -> None:
    recipe = of_fusion(kind).replace("accumulation: 3", f"accumulation: {window}")
    plans = points(f"{recipe}sweep: {{seeds: [0, 1, 2, 3]}}\n", tmp_path)
    memory = SideBySide(4)
    beside = [made(plan, memory.place_of(run)) for run, plan in enumerate(plans)]
    rows = [torch.arange(run, run + 32) for run in range(4)]
    together = Together({run: step for run, (step, _) in enumerate(beside)}, memory)
    # (runs at unequal distances are copied)
    for runs in ((0, 1, 2, 3), (0, 1, 3)):
        together({run: Ask(beside[run][1].batch(rows[run]), False, 32, {}) for run in runs})
    for run, plan in enumerate(plans):
        alone, table = made(plan)
        torch.manual_seed(plan.seed)
        for _ in range(1 if run == 2 else 2):
            alone(table.batch(rows[run]), last_in_epoch=False)
        assert torch.allclose(alone.updater.flat, beside[run][0].updater.flat, atol=1e-6)
        if window > 1:  # (else the gradient is spent)
            assert torch.allclose(alone.updater.grad, beside[run][0].updater.grad, atol=1e-5)


def test_a_missing_view_is_missing_beside_others(tmp_path: Path) -> None:
    # (features of unequal widths, which the fusion projects)
    recipe = SMALL.replace("features: 16", "features: 12", 1)
    plans = points(f"{recipe}sweep: {{seeds: [0, 1]}}\n", tmp_path)
    memory, rows = SideBySide(2), torch.arange(32)
    beside = [made(plan, memory.place_of(run)) for run, plan in enumerate(plans)]
    together = Together({run: step for run, (step, _) in enumerate(beside)}, memory)
    present = torch.rand(32, 2, generator=torch.Generator().manual_seed(0)) > 0.3
    given = {"present": present, "weights": present.T.float()}
    batches = [replace(table.batch(rows), **given) for _, table in beside]
    together({run: Ask(batch, False, 32, {}) for run, batch in enumerate(batches)})
    for run, plan in enumerate(plans):
        alone, table = made(plan)
        torch.manual_seed(plan.seed)
        alone(replace(table.batch(rows), **given), last_in_epoch=False)
        assert torch.allclose(alone.updater.flat, beside[run][0].updater.flat, atol=1e-6)


@pytest.mark.parametrize("kind", ["concatenation", "boundedProduct"])  # (layers alone, and more)
def test_a_step_that_is_left_out_leaves_nothing_for_the_next(kind: str, tmp_path: Path) -> None:
    recipe = of_fusion(kind).replace("accumulation: 3", "accumulation: 1")
    more = "training: {max_skipped_steps: 1}\nsweep: {seeds: [0, 1]}\n"
    plans = points(recipe + more, tmp_path)
    memory, rows = SideBySide(2), torch.arange(32)
    beside = [made(plan, memory.place_of(run)) for run, plan in enumerate(plans)]
    together = Together({run: step for run, (step, _) in enumerate(beside)}, memory)
    batches = [table.batch(rows) for _, table in beside]
    broken = batches[0].inputs[0].clone().fill_(math.nan)
    first = [replace(batches[0], inputs=[broken, *batches[0].inputs[1:]]), batches[1]]
    together({run: Ask(batch, False, 32, {}) for run, batch in enumerate(first)})
    before = memory.weights.clone()
    together({run: Ask(batch, False, 32, {}) for run, batch in enumerate(batches)})
    assert [step.updater.nonfinite_steps() for step, _ in beside] == [1, 0]
    assert not torch.equal(memory.weights[0], before[0])


@pytest.mark.parametrize("kind", TYPES)
def test_logits_of_several_are_those_of_each(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together_module, "_EVALUATION_BATCH", 64)
    plans = points(f"{of_fusion(kind)}sweep: {{seeds: [0, 1, 2]}}\n", tmp_path)
    memory = SideBySide(3)
    beside = [made(plan, memory.place_of(run)) for run, plan in enumerate(plans)]
    together = Together({run: step for run, (step, _) in enumerate(beside)}, memory)
    found = together({run: AskLogits(table) for run, (_, table) in enumerate(beside)})
    for run, (step, table) in enumerate(beside):
        assert len(table) > 64
        assert step.network.training
        alone = split_logits(step.network, table, "float32")
        torch.testing.assert_close(found[run], alone, rtol=1e-5, atol=1e-5)


def test_logits_of_a_run_have_the_same_bits_beside_others_and_alone(tmp_path: Path) -> None:
    plans = points(f"{of_fusion('concatenation')}sweep: {{seeds: [0, 1, 2]}}\n", tmp_path)
    memory = SideBySide(3)
    beside = [made(plan, memory.place_of(run)) for run, plan in enumerate(plans)]
    together = Together({run: step for run, (step, _) in enumerate(beside)}, memory)
    asks = {run: AskLogits(table) for run, (_, table) in enumerate(beside)}
    own = SideBySide(1)
    step, table = made(plans[2], own.place_of(0))
    alone = Together({0: step}, own).one(AskLogits(table))
    for runs in ((0, 1, 2), (0, 2)):
        found = together({run: asks[run] for run in runs})
        assert all(torch.equal(*pair) for pair in zip(found[2], alone, strict=True))


def test_a_step_has_the_same_bits_beside_others_and_alone(tmp_path: Path) -> None:
    rows = 3  # (of 47 columns: as they come, only the first run's begin on a boundary)
    plans = points(f"{of_fusion('concatenation')}sweep: {{seeds: [0, 1, 2]}}\n", tmp_path)
    memory, own = SideBySide(3), SideBySide(1)
    beside = [made(plan, memory.place_of(run)) for run, plan in enumerate(plans)]
    step, table = made(plans[1], own.place_of(0))
    ask = Ask(table.batch(torch.arange(rows)), True, rows, {})
    Together({run: step for run, (step, _) in enumerate(beside)}, memory)(
        dict.fromkeys(range(3), ask)
    )
    Together({0: step}, own).one(ask)
    assert torch.equal(memory.weights[1], own.weights[0])
