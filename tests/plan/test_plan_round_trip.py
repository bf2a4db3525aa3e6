"""A plan as JSON and as a recipe comes back the same; its hash knows what decides a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrun.errors import UserError
from fusionrun.plan.as_recipe import as_recipe
from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.plan.stored import read_plan, sealed
from fusionrun.recipe.read import read_recipe
from tests.data.needs import shipped_recipes

PlanOf = Callable[..., Plan]
RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = shipped_recipes()
MULTIPLICATIVE = "fusion: {type: multiplicative}"


def plan_file(path: Path) -> Plan:
    return make_plan(read_recipe(path), Path("runs"))


def stored(plan: Plan) -> Any:
    return json.loads(json.dumps(plan.to_json()))


# ------------------------------------------------------------------ JSON


@pytest.mark.parametrize("name", SHIPPED)
def test_a_plan_comes_back_from_json_as_it_was(name: str) -> None:
    made = plan_file(RECIPES / name)
    back = Plan.from_json(stored(made), "plan.json")
    assert back == made
    assert back.hash == made.hash
    assert back.settings == made.settings


def test_json_holds_what_programs_rely_on(plan: PlanOf) -> None:
    content = stored(plan())
    one = content["components"]["experts.one"]
    assert (one["input_dim"], one["lr"], one["optimizer"]) == (64, 1.3e-4, "SGD")
    assert len(one["rates"]) == content["values"]["training.epochs"]["value"]
    assert {"parameters", "weight_decay", "schedule", "clip", "accumulation", "rules"} <= set(one)
    assert content["values"]["fusion.dim"] == {
        "value": 64,
        "source": "rule",
        "why": "the largest input_dim: 64 of expert one",
    }
    assert {"code", "message"} == set(content["warnings"][0])
    assert {"name", "hash", "data", "steps", "memory"} <= set(content)


def test_a_stored_plan_is_read_back(plan: PlanOf, tmp_path: Path) -> None:
    made = plan()
    (tmp_path / "plan.json").write_text(json.dumps(sealed(made)))
    assert read_plan(tmp_path / "plan.json") == made


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda content: content["values"]["seed"].update(value=1), "content of sha256"),
        (lambda content: content["values"]["name"].update(value="other"), "content of sha256"),
        (lambda content: content["warnings"].clear(), "content of sha256"),
        (lambda content: content.pop("sha256"), "no sha256 of its content"),
    ],
)
def test_an_edited_plan_is_refused(
    change: Callable[[dict[str, Any]], object], got: str, plan: PlanOf, tmp_path: Path
) -> None:
    content = sealed(plan())
    change(content)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"plan.json: damaged, or edited .*\n  got       {got}"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing; a run directory holds its plan there"),
        ("{", "damaged, not JSON"),
        ("\xff", "damaged, not JSON"),
        ("[]", "not a plan: it has no 'format'"),
        ("{}", "not a plan: it has no 'format'"),
        ('{"format": 99}', "got plan format 99, expected 1"),
        ('{"format": 1}', "damaged .KeyError: 'memory'"),
        ('{"format": 1, "memory": 3}', "damaged .AttributeError"),
    ],
)
def test_what_is_no_plan_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        read_plan(path)


# ------------------------------------------------------------------ a recipe again


def numbers(plan: Plan) -> dict[str, Any]:
    """Values but for those that are no leaf of the recipe's: a given number needs no rule."""
    return {key: value.value for key, value in plan.values.items()}


def _of_widths(rules: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(rule for rule in rules if rule.startswith("mup"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_plan_as_a_recipe_resolves_to_the_same_plan(name: str, tmp_path: Path) -> None:
    made = plan_file(RECIPES / name)
    written = tmp_path / "resolved.yaml"
    written.write_text(as_recipe(made), encoding="utf-8")
    again = plan_file(written)
    assert numbers(again) == numbers(made)
    assert again.hash == made.hash
    # A rate that is given has no rules of its own; how it is spread by width stays. Of stages it
    # is not written down, and has its rules.
    before, after = (
        {n: c._replace(rules=_of_widths(c.rules)) for n, c in p.components.items()}
        for p in (made, again)
    )
    assert after == before
    assert {w.code for w in again.warnings} == {w.code for w in made.warnings}


def test_every_line_of_the_resolved_recipe_says_who_decided(plan: PlanOf) -> None:
    lines = as_recipe(plan()).splitlines()
    leaves = [line for line in lines[1:] if not line.rstrip().endswith(":")]
    assert lines[0].startswith("# resolved by fusionrun: plan ")
    assert all("  # " in line for line in leaves)
    assert "  dim: 64  # rule: the largest input_dim: 64 of expert one" in lines


def test_data_in_named_files_comes_back(write: Callable[..., Path], folder: Path) -> None:
    path = write(MULTIPLICATIVE)
    files = "split: {train: data.npz, test: data.npz}"
    path.write_text(path.read_text().replace("path: data.npz", files))
    made = plan_file(path)
    (folder / "again.yaml").write_text(as_recipe(made))
    assert plan_file(folder / "again.yaml").hash == made.hash
    assert [w.code for w in made.warnings][-1] == "no_validation"


def test_a_clip_turned_off_stays_off(plan: PlanOf, folder: Path) -> None:
    made = plan(f"{MULTIPLICATIVE}\nknowledge_transfer: {{fusion_gradient_clipping: null}}")
    (folder / "again.yaml").write_text(as_recipe(made))
    again = plan_file(folder / "again.yaml")
    assert again.components["fusion"].clip is None
    assert again.hash == made.hash


@pytest.mark.parametrize(
    "view",
    ["a b", "it's", 'say "a"', "a: #", "- a", "1e3", "null", "#", "\x85", "\u2028", "é", "."],
)
def test_hostile_view_names_survive(view: str, folder: Path) -> None:
    label = np.arange(30) % 3
    np.savez(folder / "hostile.npz", x=np.zeros((30, 3), "f4"), label=label)
    quoted = json.dumps(view)
    recipe = folder / "hostile.yaml"
    recipe.write_text(
        "version: 1\nname: hostile\n"
        f"data: {{source: npz, path: hostile.npz, views: {{{quoted}: x}}}}\n"
        f"experts: {{a: {{model: mlp, view: {quoted}}}, b: {{model: mlp, view: {quoted}}}}}\n"
        "fusion: {type: concatenation}\n",
        encoding="utf-8",
    )
    made = plan_file(recipe)
    (folder / "again.yaml").write_text(as_recipe(made), encoding="utf-8")
    again = plan_file(folder / "again.yaml")
    assert again.settings.experts["a"].view == view
    assert again.hash == made.hash


# ------------------------------------------------------------------ the hash


@pytest.mark.parametrize(
    "setting",
    [
        "name=other",
        "seed=7",
        "slurm={partition: gpu, nodes: 2}",
        "tracking.tensorboard=true",
        "sweep={seeds: [0, 1]}",
    ],
)
def test_the_hash_leaves_out_what_decides_no_number(setting: str, plan: PlanOf) -> None:
    assert plan(MULTIPLICATIVE, setting).hash == plan().hash


@pytest.mark.parametrize(
    "setting",
    [
        "preset=tuned",
        "fusion.type=concatenation",
        "fusion.dropout=0.3",
        "experts.one.features=65",
        "experts.two.view=a",
        "training.epochs=59",
        "training.batch_size=32",
        "training.precision=bf16",
        "data.normalize=none",
        "data.split.seed=1",
        "learning_rates.base_lr=1e-4",
        "knowledge_transfer.temperature=2",
        "schedulers.fusion={type: StepLR}",
        "augmentation.noise=0.1",
        "evaluation.metrics=[nll]",
    ],
)
def test_the_hash_changes_with_anything_else(setting: str, plan: PlanOf) -> None:
    assert plan(MULTIPLICATIVE, setting).hash != plan().hash


def test_the_hash_knows_neither_comments_nor_the_order_of_keys(write: Callable[..., Path]) -> None:
    path = write(f"{MULTIPLICATIVE}\ntraining: {{epochs: 9, batch_size: 16}}")
    before = plan_file(path).hash
    head, _, rest = path.read_text().partition("experts:")
    rest = rest.replace("{epochs: 9, batch_size: 16}", "{batch_size: 16, epochs: 9}")
    path.write_text(f"# a comment\nexperts:{rest}\n{head}x-note: mine\n")
    assert plan_file(path).hash == before


def test_the_order_of_the_experts_is_the_order_of_the_fusions_tensors(plan: PlanOf) -> None:
    lines = ["  one: {model: mlp, view: a}\n", "  two: {model: mlp, view: b}\n"]
    one, other = (plan(experts="experts:\n" + "".join(order)) for order in (lines, reversed(lines)))
    assert one.hash != other.hash


def test_the_hash_knows_what_the_data_holds(plan: PlanOf, folder: Path) -> None:
    before = plan().hash
    held = dict(np.load(folder / "data.npz"))
    held["label"][:2] = 1
    np.savez(folder / "data.npz", **held)
    assert plan().hash != before
