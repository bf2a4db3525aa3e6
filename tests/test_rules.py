"""The origin's numbers, to the digit, for every fusion type and every threshold."""

import pytest

from fusionrun import rules
from fusionrun.presets import ORIGIN, TUNED
from fusionrun.schema.rates import NumberTest, Rule, Scale, When

WIDTHS = (6, 64, 99, 100, 512, 1000, 1001, 1024, 2048)
BASE = {
    "multiplicative": (1e-4, 5e-4, 1e-4),
    "multiplicativeAddition": (1e-4, 1e-3, 1e-4),
    "TransformerBase": (5e-5, 2e-4, 5e-4),
    "concatenation": (1e-4, 1e-3, 1e-4),
    "simpleAddition": (1e-4, 1e-3, 1e-4),
    "multiplicativeShifted": (1e-4, 1e-3, 1e-4),
}
# What the contract's table and rules give, worked out by hand: (narrow, between, wide).
BASE_LR = {1e-4: (1.3e-4, 1e-4, 7e-5), 5e-5: (6.5e-5, 5e-5, 3.5e-5)}
HEAD_LR = {
    5e-4: (6e-4, 5e-4, 4e-4),
    1e-3: (1.2e-3, 1e-3, 8e-4),
    2e-4: (2.4e-4, 2e-4, 1.6e-4),
}


def adapted(number, rate, width, fusion_type="multiplicative", rules_=ORIGIN.rules):
    facts = {
        "input_dim": width,
        "fusion_type": fusion_type,
        "num_experts": 6,
        "batch_size": 128,
        "pretrained": False,
    }
    for rule in rules.applied_rules(rules_, rate, facts):
        number = rules.times(number, rule.factor)
    return number


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("fusion_type", BASE)
def test_rates_of_the_origin_match_the_contract_to_the_digit(fusion_type, width):
    table = ORIGIN.rates_for(fusion_type)
    assert (table.base_lr, table.head_lr, table.weight_decay) == BASE[fusion_type]
    band = 0 if width < 100 else 2 if width > 1000 else 1
    assert adapted(table.base_lr, "base_lr", width) == BASE_LR[table.base_lr][band]
    assert adapted(table.head_lr, "head_lr", width) == HEAD_LR[table.head_lr][band]


@pytest.mark.parametrize(("dim", "heads"), [(64, 8), (60, 6), (7, 7), (11, 1), (1, 1), (100, 5)])
def test_heads_are_eight_or_the_most_that_divide_the_width(dim, heads):
    assert rules.num_heads(dim) == heads


def test_rules_multiply_in_the_order_written_and_say_why():
    when = When(num_experts=NumberTest(ge=2, le=6), fusion_type=("concatenation", "multiplicative"))
    written = (
        Rule(when=When(), scale=Scale(base_lr=0.5)),
        Rule(when=when, scale=Scale(base_lr=0.1, head_lr=0.2)),
        Rule(when=When(pretrained=True), scale=Scale(base_lr=9.0)),
    )
    facts = {
        "input_dim": 64,
        "fusion_type": "multiplicative",
        "num_experts": 6,
        "batch_size": 128,
        "pretrained": False,
    }
    applied = rules.applied_rules(written, "base_lr", facts)
    assert [(rule.number, rule.factor) for rule in applied] == [(1, 0.5), (2, 0.1)]
    assert applied[0].because == "always"
    assert applied[1].because == "fusion_type is multiplicative, num_experts 6 ≥ 2 and ≤ 6"
    assert [r.number for r in rules.applied_rules(written, "head_lr", facts)] == [2]


def test_tuned_takes_a_tenth_for_pretrained_experts_only():
    facts = {"input_dim": 64, "fusion_type": "x", "num_experts": 1, "batch_size": 1}
    fresh = rules.applied_rules(TUNED.rules, "base_lr", {**facts, "pretrained": False})
    loaded = rules.applied_rules(TUNED.rules, "base_lr", {**facts, "pretrained": True})
    assert fresh == ()
    assert [rules.times(TUNED.rates_for("x").base_lr, r.factor) for r in loaded] == [1e-4]
