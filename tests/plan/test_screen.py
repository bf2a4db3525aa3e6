"""The screens, compared whole with `golden/`; the chain behind a value; how values are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fusionrun.errors import UserError
from fusionrun.plan.plan import Plan, Weights
from fusionrun.plan.reasons import every_value, why
from fusionrun.plan.resolve import make_plan
from fusionrun.plan.screen import screen
from fusionrun.plan.text import LINE_WIDTH, line_width, literal, size
from fusionrun.recipe.read import read_recipe
from fusionrun.store.layout import run_id
from tests.data.needs import shipped_recipes

PlanOf = Callable[..., Plan]
GOLDEN = Path(__file__).parent / "golden"
RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = shipped_recipes()
MULTIPLICATIVE = "fusion: {type: multiplicative}"


def concise(plan: Plan) -> str:
    return screen(plan, run_id(plan.name, plan.hash, plan.seed))


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Plan]:
    monkeypatch.chdir(GOLDEN)
    return lambda name: make_plan(read_recipe(Path(f"{name}.yaml")), Path("runs"))


@pytest.mark.parametrize("name", ["origin", "tuned"])
def test_the_concise_screen_is_as_agreed(name: str, golden: Callable[[str], Plan]) -> None:
    expected = (GOLDEN / f"{name}.screen.txt").read_text(encoding="utf-8")
    assert f"{concise(golden(name))}\n" == expected


@pytest.mark.parametrize("name", ["origin", "tuned"])
def test_the_full_screen_is_as_agreed(name: str, golden: Callable[[str], Plan]) -> None:
    expected = (GOLDEN / f"{name}.full.txt").read_text(encoding="utf-8")
    plan = golden(name)
    assert f"{concise(plan)}\n\n{every_value(plan)}\n" == expected


@pytest.mark.parametrize("name", SHIPPED)
def test_the_screen_of_a_shipped_recipe_fits_into_120_columns(name: str) -> None:
    plan = make_plan(read_recipe(RECIPES / name), Path("runs"))
    assert max(map(len, concise(plan).splitlines())) <= LINE_WIDTH <= 120


def test_the_full_screen_lists_every_value(plan: PlanOf) -> None:
    made = plan()
    listed = [line.split()[0] for line in every_value(made).splitlines()[1:]]
    assert listed == list(made.values)


# ------------------------------------------------------------------ the chain of one value


def test_why_shows_the_chain_of_a_rate(plan: PlanOf) -> None:
    assert why(plan(), "learning_rates.experts.one") == (
        "learning_rates.experts.one = 0.00013\n"
        "  rule: base_lr 0.0001 × 1.3 (input_dim 64 < 100)\n"
        "      0.0001   preset origin: the origin's table, base_lr of multiplicative\n"
        "    × 1.3      rule 2 of preset origin: input_dim 64 < 100\n"
        "    = 0.00013"
    )


def test_why_names_the_line_of_a_users_rule(plan: PlanOf) -> None:
    made = plan(
        f"{MULTIPLICATIVE}\n"
        "learning_rates:\n"
        "  rules:\n"
        "    - {when: {batch_size: {gt: 100}, fusion_type: multiplicative}, scale: {head_lr: 2}}\n"
    )
    assert why(made, "fusion") == (
        "learning_rates.fusion = 0.001\n"
        "  rule: head_lr 0.0005 × 2 (fusion_type is multiplicative, batch_size 128 > 100)\n"
        "      0.0005   preset origin: the origin's table, head_lr of multiplicative\n"
        "    × 2        rule 1 at recipe.yaml:10:7: fusion_type is multiplicative, "
        "batch_size 128 > 100\n"
        "    = 0.001"
    )


def test_why_names_the_place_of_a_written_value(plan: PlanOf) -> None:
    assert why(plan(), "experts.one.features") == (
        "experts.one.features = 64\n  recipe: recipe.yaml:5:40"
    )


def test_why_of_a_plain_default(plan: PlanOf) -> None:
    assert why(plan(), "experts.one.hidden") == "experts.one.hidden = [128]\n  default"


@pytest.mark.parametrize(
    "key",
    ["experts.one", "experts.one.lr", "heads.one", "heads.one.lr", "learning_rates.experts.one"],
)
def test_a_component_stands_for_its_rate(key: str, plan: PlanOf) -> None:
    assert why(plan(), key).startswith("learning_rates.experts.one = 0.00013\n")


def test_why_shows_a_long_value_whole(plan: PlanOf) -> None:
    rules = "[" + ", ".join(["{when: {}, scale: {base_lr: 0.5}}"] * 4) + "]"
    made = plan(f"{MULTIPLICATIVE}\nlearning_rates: {{rules: {rules}}}")
    assert why(made, "learning_rates.rules").startswith(f"learning_rates.rules = {rules}\n")


def test_why_of_a_section_lists_its_keys(plan: PlanOf) -> None:
    expected = (
        "'schedulers.fusion' is a section; ask for one of\n"
        "  schedulers.fusion.type\n"
        "  schedulers.fusion.T_max\n"
        "  schedulers.fusion.eta_min\n"
        "  schedulers.fusion.warmup"
    )
    with pytest.raises(UserError, match="is a section") as caught:
        why(plan(), "schedulers.fusion")
    assert str(caught.value) == expected


def test_why_of_an_unknown_key_names_the_nearest(plan: PlanOf) -> None:
    with pytest.raises(UserError, match="the plan has no value") as caught:
        why(plan(), "fusion.dimm")
    assert str(caught.value) == (
        "the plan has no value 'fusion.dimm'; did you mean 'fusion.dim'?\n--full lists all of them"
    )


def test_why_of_something_unlike_any_key(plan: PlanOf) -> None:
    with pytest.raises(UserError, match="no value 'qqq'\n--full lists all"):
        why(plan(), "qqq")


# ------------------------------------------------------------------ small parts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (1.0, "1"),
        (1e-4, "0.0001"),
        (1.3e-5, "1.3e-05"),
        (0.123456789, "0.123456789"),
        ("a b", "a b"),
        (("x", 1, False), "[x, 1, false]"),
        ({"when": {"lt": 100.0}}, "{when: {lt: 100}}"),
        ({}, "{}"),
        ((), "[]"),
        ("x" * 41, "x" * 39 + "…"),
    ],
)
def test_values_read_as_in_a_recipe(value: object, text: str) -> None:
    assert literal(value) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2_690_000, "2.69 MB")]
)
def test_sizes_are_in_units_that_read_well(count: int, text: str) -> None:
    assert size(count) == text


def test_weights_to_start_from_are_on_the_screen(golden: Callable[[str], Plan]) -> None:
    made = golden("tuned")
    weights = Weights("/x", "0", "run:a#experts.b")
    given = made.components["experts.fourier"]._replace(weights=weights)
    shown = concise(replace(made, components={**made.components, "experts.fourier": given}))
    assert "weights  experts.fourier starts from run:a#experts.b" in shown


def test_attention_between_experts_is_on_the_screen_where_it_is_not_usual(plan: PlanOf) -> None:
    setting = "knowledge_transfer.cross_expert_attention={}"
    said = "dropout 0.2, cross_expert_attention {}\n"
    assert said.format("true") in concise(plan(MULTIPLICATIVE, setting.format("true")))
    assert "cross_expert_attention" not in concise(plan(MULTIPLICATIVE))
    encoder = "fusion: {type: TransformerBase, num_layers: 1}"
    assert "num_layers 1, cross_expert_attention false\n" in concise(
        plan(encoder, setting.format("false"))
    )
    assert "cross_expert_attention" not in concise(plan(encoder))


@pytest.mark.parametrize("width", [60, 72, 80, 100, 118])
@pytest.mark.parametrize("name", ["origin", "tuned"])
def test_both_screens_fit_into_the_terminal(
    name: str, width: int, golden: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    plan = golden(name)
    shown = concise(plan) + ("\n" + every_value(plan)) * (width < LINE_WIDTH)
    assert max(map(len, shown.splitlines())) <= width


def test_a_narrow_screen_stacks_the_components(
    golden: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    plan = golden("tuned")
    assert concise(plan).startswith(
        f"tuned  ·  preset tuned  ·  seed 0  ·  run tuned-{plan.hash[:8]}-s0\n"
        "\n"
        "component: input_dim, parameters + head; rules\n"
        "  base rate  rate over 12 epochs  first → last\n"
        "experts.fourier: 64, 18,240 + 650; × 0.5 × 0.25\n"
        "   0.000125  ▁▃▇██▇▅▄▂▁▁▁         5e-06 → 5e-10\n"
        "experts.morphological: 64, 576 + 650; × 0.5 × 0.25\n"
        "   0.000125  ▁▃▇██▇▅▄▂▁▁▁         5e-06 → 5e-10\n"
        "fusion: 64, 0; nothing to train\n"
        "global_head: 64, 0; nothing to train\n"
    )


def test_a_less_wide_screen_only_lacks_the_rules(
    golden: Callable[[str], Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "105")
    heading, first = concise(golden("tuned")).splitlines()[2:4]
    assert heading.endswith("first → last")
    assert first.endswith("5e-06 → 5e-10")


@pytest.mark.parametrize(
    ("columns", "width"), [("20", 60), ("90", 90), ("500", LINE_WIDTH), ("", LINE_WIDTH)]
)
def test_lines_are_as_wide_as_the_terminal_within_bounds(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert line_width() == width


def test_one_of_a_thing_is_written_in_the_singular(plan: PlanOf) -> None:
    training = "training: {epochs: 1, batch_size: 100000}"
    shown = concise(plan(f"{MULTIPLICATIVE}\n{training}"))
    assert "1 epoch × 1 batch of 100000 (the last of 36) = 1;  experts step 1 time\n" in shown


def test_a_sweep_is_not_passed_over_in_silence(plan: PlanOf) -> None:
    text = concise(plan(f"{MULTIPLICATIVE}\nsweep: {{seeds: [0, 1]}}"))
    assert "\nsweep    this is the recipe without it" in text


def test_one_epoch_is_written_in_the_singular(plan: PlanOf) -> None:
    assert "rate over 1 epoch " in concise(plan(f"{MULTIPLICATIVE}\ntraining: {{epochs: 1}}"))
