"""The closed forms against torch's own schedulers, their bounds, defaults, and the schema."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from math import isclose
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fusionrun.schedules import (
    default_milestones,
    default_step_size,
    default_T_0,
    default_T_max,
    default_total,
    rate,
    rates,
)
from fusionrun.schema.base import AUTO
from fusionrun.schema.json_schema import field_docs
from fusionrun.schema.schedulers import SCHEDULERS, Scheduler, Schedulers, Warmup

BASES = (1e-4, 5e-5, 0.1)
EPOCHS = (1, 2, 7, 60, 200)
WARMUPS = (None, {"epochs": 1}, {"epochs": 5, "start_factor": 0.01})
NOT_WARMABLE = ("LinearLR", "OneCycleLR")


def schedule(type: str, **numbers: Any) -> Scheduler:
    kind = SCHEDULERS.find(type)
    assert kind is not None
    return kind.model_validate({"type": type, **numbers})


def torch_rates(section: Scheduler, base: float, epochs: int) -> list[float]:
    """What torch's scheduler of the same name gives, stepped once an epoch."""
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base)
    scheduler = torch_scheduler(section, optimizer, base)
    seen = []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def torch_scheduler(section: Scheduler, optimizer: Any, base: float) -> Any:
    from torch.optim import lr_scheduler

    numbers = section.model_dump(exclude={"type", "warmup"})
    if section.type == "OneCycleLR":
        numbers |= {"max_lr": numbers.pop("peak") * base, "cycle_momentum": False}
    kind = getattr(lr_scheduler, section.type)
    warmup: Warmup | None = getattr(section, "warmup", None)
    if warmup is None:
        return kind(optimizer, **numbers)
    first = lr_scheduler.LinearLR(optimizer, warmup.start_factor, total_iters=warmup.epochs)
    then = kind(optimizer, **numbers)
    return lr_scheduler.SequentialLR(optimizer, [first, then], milestones=[warmup.epochs])


def cases(epochs: int, base: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every kind with several sets of parameters, autos resolved for a run."""
    for T_max, factor in itertools.product((default_T_max(epochs, 0), 1, 7, 50), (0.0, 0.1)):
        yield "CosineAnnealingLR", {"T_max": T_max, "eta_min": factor * base}
    for T_0, T_mult in itertools.product((default_T_0(epochs), 1, 3, 10), (1, 2, 3)):
        numbers = {"T_0": T_0, "T_mult": T_mult}
        yield "CosineAnnealingWarmRestarts", {**numbers, "eta_min": 0.1 * base}
    for step_size, gamma in ((default_step_size(epochs), 0.1), (1, 0.9), (7, 0.5), (5, 1.0)):
        yield "StepLR", {"step_size": step_size, "gamma": gamma}
    for milestones in (default_milestones(epochs), (), (1,), (30, 3), (4, 4, 100)):
        yield "MultiStepLR", {"milestones": milestones, "gamma": 0.3}
    yield from (("ExponentialLR", {"gamma": gamma}) for gamma in (0.95, 0.5, 1.0))
    for total, power in itertools.product((default_total(epochs), 1, 12), (0.5, 1.0, 2.0)):
        yield "PolynomialLR", {"total_iters": total, "power": power}
    for factor, total in itertools.product((1 / 3, 1e-3, 1.0), (1, 5, 40)):
        yield "ConstantLR", {"factor": factor, "total_iters": total}
    for start, end, total in ((1 / 3, 1.0, 5), (1.0, 0.1, 30), (0.01, 0.5, 1), (0.2, 0.2, 4)):
        yield "LinearLR", {"start_factor": start, "end_factor": end, "total_iters": total}
    for strategy, (start, peak) in itertools.product(
        ("cos", "linear"), ((0.3, 1.0), (0.05, 0.5), (0.9, 1.0))
    ):
        shape = {"pct_start": start, "peak": peak, "div_factor": 10.0, "final_div_factor": 100.0}
        yield "OneCycleLR", {**shape, "total_steps": epochs, "anneal_strategy": strategy}
    yield "OneCycleLR", {"total_steps": epochs}


def comparisons(kind: str, epochs: int) -> Iterator[tuple[Scheduler, float]]:
    """Sections of one kind, each alone and after each warm-up, with each base rate."""
    for base in BASES:
        for name, numbers in cases(epochs, base):
            if name == kind:
                for warmup in WARMUPS[:1] if kind in NOT_WARMABLE else WARMUPS:
                    more = {} if warmup is None else {"warmup": warmup}
                    yield schedule(kind, **numbers, **more), base


def agrees_with_torch(section: Scheduler, base: float, epochs: int) -> bool:
    """Whether every rate agrees to 1e-12; near zero torch's own sums cancel."""
    pairs = zip(rates(section, base, epochs), torch_rates(section, base, epochs), strict=True)
    return all(isclose(*pair, rel_tol=1e-12, abs_tol=1e-15 * base) for pair in pairs)


@pytest.mark.parametrize("epochs", EPOCHS)
@pytest.mark.parametrize("kind", SCHEDULERS.names())
def test_rates_equal_those_of_torch(kind: str, epochs: int) -> None:
    compared = list(comparisons(kind, epochs))
    assert len(compared) >= 3 * len(BASES)
    assert [case for case in compared if not agrees_with_torch(*case, epochs)] == []


@pytest.mark.parametrize("epochs", EPOCHS)
def test_origin_schedules_begin_at_exactly_the_full_rate(epochs: int) -> None:
    for base in (*BASES, 7e-5, 1.3e-4, 6e-4):
        restarts = schedule(
            "CosineAnnealingWarmRestarts", T_0=default_T_0(epochs), eta_min=0.1 * base
        )
        cosine = schedule("CosineAnnealingLR", T_max=epochs, eta_min=0.1 * base)
        assert rate(restarts, base, 0) == base
        assert rate(cosine, base, 0) == base


def test_every_restart_is_at_exactly_the_full_rate() -> None:
    section = schedule("CosineAnnealingWarmRestarts", T_0=1, T_mult=3, eta_min=1e-5)
    restarts = [(3**wave - 1) // 2 for wave in range(1, 20)]
    assert [rate(section, 1e-4, epoch) for epoch in restarts] == [1e-4] * len(restarts)


def test_cosine_meets_its_floor_exactly() -> None:
    section = schedule("CosineAnnealingLR", T_max=30, eta_min=3e-5)
    assert rate(section, 1e-4, 30) == 3e-5


def test_schedule_proper_starts_at_its_own_epoch_0_after_the_warmup() -> None:
    numbers = {"T_max": 10, "eta_min": 1e-5}
    alone = schedule("CosineAnnealingLR", **numbers)
    warmed = schedule("CosineAnnealingLR", **numbers, warmup={"epochs": 4})
    assert rates(warmed, 1e-4, 14)[4:] == rates(alone, 1e-4, 10)


@pytest.mark.parametrize(
    "section",
    [
        schedule("CosineAnnealingLR", T_max=10, eta_min=2e-4),
        schedule("CosineAnnealingWarmRestarts", T_0=3, eta_min=2e-4),
    ],
    ids=lambda section: section.type,
)
def test_floor_above_the_base_holds_the_rate_at_the_base(section: Scheduler) -> None:
    assert rates(section, 1e-4, 25) == (1e-4,) * 25


def test_constant_rate_is_constant_lr_with_factor_1() -> None:
    assert rates(schedule("ConstantLR", factor=1.0), 0.3, 9) == (0.3,) * 9


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_one_cycle_keeps_its_final_rate_when_it_is_over(strategy: str) -> None:
    section = schedule("OneCycleLR", total_steps=20, anneal_strategy=strategy)
    assert set(rates(section, 0.1, 50)[19:]) == {0.1 / 25 / 1e4}


@pytest.mark.parametrize(("pct_start", "total_steps"), [(0.5, 2), (0.1, 10)])
def test_one_cycle_whose_top_is_epoch_0_starts_at_its_peak(
    pct_start: float, total_steps: int
) -> None:
    section = schedule("OneCycleLR", pct_start=pct_start, total_steps=total_steps, peak=0.5)
    assert rate(section, 0.1, 0) == 0.05


COUNTS = st.integers(1, 300)
FACTORS = st.floats(0.0, 1.0, exclude_min=True)
FLOORS = st.floats(0.0, 1e6)
DIVISORS = st.floats(1.0, 1e300)
WARMUP = st.none() | st.fixed_dictionaries({"epochs": COUNTS, "start_factor": FACTORS})
NUMBERS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "CosineAnnealingLR": {"T_max": COUNTS, "eta_min": FLOORS},
    "CosineAnnealingWarmRestarts": {"T_0": COUNTS, "T_mult": COUNTS, "eta_min": FLOORS},
    "StepLR": {"step_size": COUNTS, "gamma": FACTORS},
    "MultiStepLR": {"milestones": st.lists(COUNTS, max_size=9).map(tuple), "gamma": FACTORS},
    "ExponentialLR": {"gamma": FACTORS},
    "PolynomialLR": {"total_iters": COUNTS, "power": st.floats(1e-9, 1e9)},
    "ConstantLR": {"factor": FACTORS, "total_iters": COUNTS},
    "LinearLR": {"start_factor": FACTORS, "end_factor": FACTORS, "total_iters": COUNTS},
    "OneCycleLR": {
        "peak": FACTORS,
        "pct_start": st.floats(0.0, 1.0, exclude_min=True, exclude_max=True),
        "div_factor": DIVISORS,
        "final_div_factor": DIVISORS,
        "total_steps": COUNTS,
        "anneal_strategy": st.sampled_from(["cos", "linear"]),
    },
}


def sections(kind: str) -> st.SearchStrategy[Scheduler]:
    more = {} if kind in NOT_WARMABLE else {"warmup": WARMUP}
    return st.fixed_dictionaries(NUMBERS[kind] | more).map(lambda drawn: schedule(kind, **drawn))


SECTIONS = st.sampled_from(SCHEDULERS.names()).flatmap(sections)


@given(section=SECTIONS, base=st.floats(1e-12, 1e6), epoch=st.integers(0, 999))
def test_rate_lies_between_zero_and_the_base(section: Scheduler, base: float, epoch: int) -> None:
    assert 0.0 <= rate(section, base, epoch) <= base


def test_bounds_are_tried_on_every_kind() -> None:
    assert tuple(NUMBERS) == SCHEDULERS.names()


def test_kind_without_a_closed_form_is_named() -> None:
    class Wobble(Scheduler):
        """A kind that nobody registered."""

    with pytest.raises(TypeError, match="no closed form is registered for Wobble"):
        rate(Wobble(type="Wobble"), 0.1, 0)


def test_schedules_import_neither_torch_nor_numpy() -> None:
    script = "import sys, fusionrun.schedules; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (3, 1), (4, 1), (8, 2), (60, 15)])
def test_first_wave_is_a_quarter_of_the_epochs(epochs: int, expected: int) -> None:
    assert default_T_0(epochs) == expected


@pytest.mark.parametrize(
    ("epochs", "warmup", "expected"), [(60, 0, 60), (60, 5, 55), (5, 5, 1), (3, 9, 1)]
)
def test_cosine_falls_over_the_epochs_after_the_warmup(
    epochs: int, warmup: int, expected: int
) -> None:
    assert default_T_max(epochs, warmup) == expected


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (2, 1), (60, 20)])
def test_steps_are_a_third_of_the_epochs(epochs: int, expected: int) -> None:
    assert default_step_size(epochs) == expected


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, (1,)), (2, (1,)), (4, (2, 3)), (60, (30, 45)), (200, (100, 150))]
)
def test_milestones_are_at_half_and_three_quarters(epochs: int, expected: tuple[int, ...]) -> None:
    assert default_milestones(epochs) == expected


@pytest.mark.parametrize(("epochs", "expected"), [(1, 1), (60, 60), (0, 1)])
def test_total_is_all_epochs_and_at_least_one(epochs: int, expected: int) -> None:
    assert default_total(epochs) == expected


def test_scheduler_of_every_component_is_auto_by_default() -> None:
    sections = Schedulers()
    assert [sections.experts, sections.fusion, sections.global_head] == [AUTO] * 3


def test_auto_may_stand_for_a_whole_schedule() -> None:
    assert Schedulers.model_validate({"fusion": "auto"}).fusion == AUTO


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("CosineAnnealingLR", ["T_max", "eta_min"]),
        ("CosineAnnealingWarmRestarts", ["T_0", "eta_min"]),
        ("StepLR", ["step_size"]),
        ("MultiStepLR", ["milestones"]),
        ("PolynomialLR", ["total_iters"]),
        ("OneCycleLR", ["total_steps"]),
    ],
)
def test_auto_is_accepted_where_a_rule_can_decide(kind: str, keys: list[str]) -> None:
    section = schedule(kind, **dict.fromkeys(keys, AUTO))
    assert [getattr(section, key) for key in keys] == [AUTO] * len(keys)
    assert section == schedule(kind)


def test_kind_decides_the_section_class() -> None:
    sections = Schedulers.model_validate({"experts": {"type": "StepLR", "gamma": 0.5}})
    assert sections.experts == schedule("StepLR", gamma=0.5)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="unknown type"):
        Schedulers.model_validate({"experts": {"type": "CosineAnealingLR"}})


def test_schedule_without_a_type_is_refused() -> None:
    with pytest.raises(ValidationError, match="no type"):
        Schedulers.model_validate({"experts": {"T_max": 3}})


def test_key_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="T_max\n  Extra inputs are not permitted"):
        Schedulers.model_validate({"experts": {"type": "StepLR", "T_max": 3}})


@pytest.mark.parametrize("kind", NOT_WARMABLE)
def test_schedule_that_rises_by_itself_takes_no_warmup(kind: str) -> None:
    with pytest.raises(ValidationError, match="warmup\n  Extra inputs are not permitted"):
        schedule(kind, warmup={"epochs": 3})


@pytest.mark.parametrize(
    ("kind", "numbers", "message"),
    [
        ("StepLR", {"gamma": 1.5}, "less than or equal to 1"),
        ("ExponentialLR", {"gamma": 1.01}, "less than or equal to 1"),
        ("ConstantLR", {"factor": 2.0}, "less than or equal to 1"),
        ("LinearLR", {"end_factor": 1.1}, "less than or equal to 1"),
        ("OneCycleLR", {"peak": 10.0}, "less than or equal to 1"),
        ("OneCycleLR", {"div_factor": 0.5}, "greater than or equal to 1"),
        ("OneCycleLR", {"pct_start": 1.0}, "less than 1"),
        ("PolynomialLR", {"power": 0.0}, "greater than 0"),
        ("CosineAnnealingLR", {"T_max": 0}, "greater than or equal to 1"),
        ("CosineAnnealingLR", {"eta_min": -1e-6}, "greater than or equal to 0"),
        ("MultiStepLR", {"milestones": (3, 0)}, "greater than or equal to 1"),
        ("StepLR", {"warmup": {"epochs": 2, "start_factor": 3.0}}, "less than or equal to 1"),
    ],
)
def test_numbers_that_could_raise_a_rate_or_mean_nothing_are_refused(
    kind: str, numbers: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        schedule(kind, **numbers)


def test_json_schema_lists_every_kind_beside_auto() -> None:
    kinds, auto = Schedulers.model_json_schema()["properties"]["experts"]["anyOf"]
    assert (
        tuple(kind["properties"]["type"]["const"] for kind in kinds["oneOf"]) == SCHEDULERS.names()
    )
    assert auto == {"const": AUTO}


@pytest.mark.parametrize("kind", SCHEDULERS.names())
def test_every_key_of_a_schedule_is_described(kind: str) -> None:
    section = type(schedule(kind))
    assert set(field_docs(section)) == set(section.model_fields)


def test_dumped_schedule_reads_back_the_same() -> None:
    sections = Schedulers.model_validate(
        {"experts": {"type": "MultiStepLR", "milestones": (3, 5), "warmup": {"epochs": 2}}}
    )
    assert Schedulers.model_validate(sections.model_dump()) == sections
