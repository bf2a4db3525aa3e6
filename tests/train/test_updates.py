"""The updater against plain torch: one optimizer a component, one clip_grad_norm_ a group."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.errors import TrainingError
from fusionrun.train.buffers import ALIGNMENT_BYTES, clip_groups
from fusionrun.train.loss_scale import LossScale
from fusionrun.train.norms import StepRecord
from fusionrun.train.optimizer import OptimizerSettings
from fusionrun.train.updates import Updater

Components = dict[str, nn.Module]

EXPERTS = ("a", "b")
NAMES = ("experts.a", "heads.a", "experts.b", "heads.b", "fusion", "global_head")
ADAMW = OptimizerSettings("AdamW")
SGD = OptimizerSettings("SGD", momentum=0.9, nesterov=True)
PLAIN_SGD = OptimizerSettings("SGD")
OPTIMIZERS = {
    "SGD": PLAIN_SGD,
    "SGD nesterov": SGD,
    "SGD nesterov foreach": replace(SGD, fused=False),
    "Adam": OptimizerSettings("Adam", betas=(0.8, 0.95), eps=1e-6),
    "AdamW": ADAMW,
    "AdamW foreach": replace(ADAMW, fused=False),
}
DECAY = {name: 0.01 * i for i, name in enumerate(NAMES)}
RATES = {name: 0.01 * (1 + i // 2) for i, name in enumerate(NAMES)}


def network(dtype: torch.dtype = torch.float64) -> Components:
    torch.manual_seed(0)
    parts: Components = {}
    for name in EXPERTS:
        # No bias before the norm: its gradient is rounding alone, which Adam would blow up.
        parts[f"experts.{name}"] = nn.Sequential(
            nn.Linear(5, 7, bias=False),
            nn.BatchNorm1d(7, momentum=None),
            nn.ReLU(),
            nn.Linear(7, 3),
        )
        parts[f"heads.{name}"] = nn.Linear(3, 4)
    parts["fusion"] = nn.Linear(3, 3)
    parts["global_head"] = nn.Linear(3, 4)
    return {name: module.to(dtype) for name, module in parts.items()}


def batch(seed: int, rows: int = 8, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (rows,), generator=generator)
    return torch.randn(2, rows, 5, generator=generator, dtype=dtype), labels


def loss(parts: Mapping[str, nn.Module], inputs: Tensor, labels: Tensor) -> Tensor:
    features = [parts[f"experts.{name}"](inputs[i]) for i, name in enumerate(EXPERTS)]
    total = F.cross_entropy(parts["global_head"](parts["fusion"](sum(features))), labels)
    for name, own in zip(EXPERTS, features, strict=True):
        total = total + F.cross_entropy(parts[f"heads.{name}"](own), labels)
    return total


def updater(
    parts: Mapping[str, nn.Module],
    settings: OptimizerSettings = ADAMW,
    *,
    expert_norm: float | None = 0.5,
    fusion_norm: float | None = 0.3,
    accumulation: int = 1,
    loss_scale: LossScale | None = None,
    max_skipped: int = 0,
) -> Updater:
    groups = clip_groups(EXPERTS, expert_norm, fusion_norm)
    made = Updater(
        parts, groups, settings, DECAY, accumulation, loss_scale, max_skipped=max_skipped
    )
    made.set_rates(RATES)
    return made


def take(made: Updater, parts: Components, seed: int, last: bool = False) -> StepRecord | None:
    made.scale(loss(parts, *batch(seed))).backward()  # type: ignore[no-untyped-call]
    return made.after_backward(last)


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(before: Mapping[str, list[Tensor]], parts: Components) -> set[str]:
    """Names of the components of which any bit has changed."""
    return {
        name
        for name, module in parts.items()
        if not all(map(torch.equal, before[name], weights(module)))
    }


def snapshot(parts: Components) -> dict[str, list[Tensor]]:
    return {name: weights(module) for name, module in parts.items()}


class PlainTorch:
    """What an engineer would write by hand."""

    def __init__(self, parts: Components, settings: OptimizerSettings, accumulation: int) -> None:
        self.parts, self.accumulation, self.pending = parts, accumulation, 0
        own: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, settings.type)
        extra = (
            {"momentum": settings.momentum, "nesterov": settings.nesterov}
            if settings.type == "SGD"
            else {"betas": settings.betas, "eps": settings.eps}
        )
        self.optimizers = {
            name: own(m.parameters(), lr=RATES[name], weight_decay=DECAY[name], **extra)
            for name, m in parts.items()
        }

    def after_backward(self, last: bool) -> list[float]:
        self.pending += 1
        norms = []
        closes = last or self.pending == self.accumulation
        for group in clip_groups(EXPERTS, 0.5, 0.3):
            if group.accumulates and not closes:
                continue
            own = [p for name in group.components for p in self.parts[name].parameters()]
            for parameter in own if group.accumulates else []:
                assert parameter.grad is not None
                parameter.grad /= self.pending
            assert group.max_norm is not None
            norms.append(nn.utils.clip_grad_norm_(own, group.max_norm).item())
            for name in group.components:
                self.optimizers[name].step()
                self.optimizers[name].zero_grad()
        self.pending = 0 if closes else self.pending
        return norms


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_fifty_steps_equal_plain_torch(kind: str, accumulation: int) -> None:
    parts = network()
    twin = copy.deepcopy(parts)
    made = updater(parts, OPTIMIZERS[kind], accumulation=accumulation)
    plain = PlainTorch(twin, OPTIMIZERS[kind], accumulation)

    for step in range(50):
        last = step % 10 == 9  # with windows of three, the last of an epoch holds one batch
        record = take(made, parts, step, last)
        loss(twin, *batch(step)).backward()  # type: ignore[no-untyped-call]
        norms = plain.after_backward(last)
        assert record is not None
        assert record.norms.tolist() == pytest.approx(norms, rel=1e-10)

    for name in NAMES:
        torch.testing.assert_close(weights(parts[name]), weights(twin[name]), rtol=0, atol=1e-12)


def test_float32_equals_plain_torch_to_rounding() -> None:
    parts = network(torch.float32)
    twin = copy.deepcopy(parts)
    made, plain = updater(parts), PlainTorch(twin, ADAMW, 1)

    for step in range(10):
        data = batch(step, dtype=torch.float32)
        loss(parts, *data).backward()  # type: ignore[no-untyped-call]
        made.after_backward()
        loss(twin, *data).backward()  # type: ignore[no-untyped-call]
        plain.after_backward(False)

    for name in NAMES:
        torch.testing.assert_close(weights(parts[name]), weights(twin[name]), rtol=1e-4, atol=1e-5)


def without_statistics(parts: Components) -> Components:
    """In evaluation mode, so that a batch's rows do not see each other."""
    return {name: module.eval() for name, module in parts.items()}


def test_two_batches_accumulated_equal_one_of_twice_the_size() -> None:
    one, two = without_statistics(network()), without_statistics(network())
    for parts in (one, two):
        parts["fusion"].requires_grad_(False)
        parts["global_head"].requires_grad_(False)
    whole, halves = updater(one), updater(two, accumulation=2)
    inputs, labels = batch(0, rows=16)

    loss(one, inputs, labels).backward()  # type: ignore[no-untyped-call]
    whole.after_backward()
    for half in (slice(0, 8), slice(8, 16)):
        loss(two, inputs[:, half], labels[half]).backward()  # type: ignore[no-untyped-call]
        halves.after_backward()

    for name in NAMES:
        torch.testing.assert_close(weights(two[name]), weights(one[name]), rtol=0, atol=1e-12)


def test_a_partial_window_divides_by_its_true_count() -> None:
    parts, twin = network(), network()
    short = updater(parts, PLAIN_SGD, expert_norm=None, accumulation=4)
    exact = updater(twin, PLAIN_SGD, expert_norm=None, accumulation=2)

    for made, own in ((short, parts), (exact, twin)):
        take(made, own, seed=0)
        take(made, own, seed=1, last=True)

    for name in NAMES:
        assert all(map(torch.equal, weights(parts[name]), weights(twin[name])))


def test_within_a_window_only_fusion_and_global_head_step() -> None:
    parts = network()
    made = updater(parts, accumulation=2)
    before = snapshot(parts)

    first = take(made, parts, seed=0)
    assert moved(before, parts) == {"fusion", "global_head"}
    second = take(made, parts, seed=1)

    assert first is not None
    assert second is not None
    assert first.groups == ("fusion",)
    assert second.groups == ("experts.a", "experts.b", "fusion")
    assert moved(before, parts) == set(NAMES)


def test_nothing_steps_within_a_window_when_the_fusion_is_frozen() -> None:
    parts = network()
    parts["fusion"].requires_grad_(False)
    parts["global_head"].requires_grad_(False)

    assert take(updater(parts, accumulation=2), parts, seed=0) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_rate_of_zero_holds_that_component_and_no_other(kind: str, name: str) -> None:
    parts = network()
    made = updater(parts, OPTIMIZERS[kind])
    made.set_rates(RATES | {name: 0.0})
    before = snapshot(parts)

    for seed in range(3):
        take(made, parts, seed)

    assert moved(before, parts) == set(NAMES) - {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_of_one_component_never_moves_another(name: str) -> None:
    parts, twin = network(), network()
    usual, other = updater(parts), updater(twin)
    other.set_rates(RATES | {name: 0.5})

    take(usual, parts, seed=0)
    take(other, twin, seed=0)

    assert moved(snapshot(parts), twin) == {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_decay_of_one_component_never_moves_another(name: str) -> None:
    parts, twin = network(), network()
    usual = updater(parts)
    other = Updater(twin, clip_groups(EXPERTS, 0.5, 0.3), ADAMW, DECAY | {name: 0.5})
    other.set_rates(RATES)

    take(usual, parts, seed=0)
    take(other, twin, seed=0)

    assert moved(snapshot(parts), twin) == {name}


def test_a_clip_of_one_group_never_moves_another() -> None:
    parts, twin = network(), network()

    take(updater(parts, PLAIN_SGD, fusion_norm=None), parts, seed=0)
    take(updater(twin, PLAIN_SGD, fusion_norm=1e-3), twin, seed=0)

    assert moved(snapshot(parts), twin) == {"fusion", "global_head"}


def test_a_step_of_one_expert_never_moves_another() -> None:
    parts = network()
    made = updater(parts, PLAIN_SGD)
    made.set_rates(dict.fromkeys(NAMES, 0.0) | {"experts.a": 0.1})
    before = snapshot(parts)

    take(made, parts, seed=0)

    assert moved(before, parts) == {"experts.a"}


def test_norms_are_measured_without_a_limit_and_nothing_is_clipped() -> None:
    parts, twin = network(), network()

    record = take(updater(parts, PLAIN_SGD, expert_norm=None, fusion_norm=None), parts, seed=0)
    take(updater(twin, PLAIN_SGD, expert_norm=1e9, fusion_norm=math.inf), twin, seed=0)

    assert record is not None
    assert record.norms.min() > 0
    assert moved(snapshot(parts), twin) == set()


def test_the_summary_tells_the_share_of_clipped_steps() -> None:
    parts = network()
    made = updater(parts, expert_norm=None, fusion_norm=0.3)
    norms = torch.tensor([[1.0, 9.0, 0.2], [3.0, 9.0, 0.31], [math.nan, 9.0, math.inf]])
    groups = tuple(group.name for group in made.groups)
    records = [StepRecord(groups, row) for row in norms]

    got = made.summarize([*records, None])

    assert got["experts.a"] == (3, 2.0, 3.0, 0.0, 1, 0)
    assert got["fusion"].clipped_share == pytest.approx(1 / 3)
    assert got["fusion"].largest == pytest.approx(0.31)
    assert got["fusion"].nonfinite == 1


def test_no_steps_have_an_empty_summary() -> None:
    assert updater(network()).summarize([None]) == {}


def test_state_dicts_of_modules_keep_working() -> None:
    parts, source = network(), network()
    made = updater(parts)
    take(updater(source), source, seed=0)

    for name, module in parts.items():
        module.load_state_dict(source[name].state_dict())

    made.check()
    assert moved(snapshot(parts), source) == set()
    torch.testing.assert_close(made.buffers["fusion"].flat[:9].view(3, 3), parts["fusion"].weight)


@pytest.mark.parametrize("kind", ["AdamW", "SGD nesterov"])
def test_a_component_that_is_frozen_at_first_then_steps_as_one_that_is_new(kind: str) -> None:
    parts = network()
    groups = clip_groups(EXPERTS, None, None)
    late = {"experts.a": 1, "heads.b": 2}
    made = Updater(parts, groups, OPTIMIZERS[kind], DECAY, frozen_epochs=late)
    for epoch in range(3):
        held = [name for name, epochs in late.items() if epoch < epochs]
        before = snapshot(parts)
        made.set_rates({n: None if n in held else rate for n, rate in RATES.items()})
        twin = copy.deepcopy(parts)
        new = PlainTorch(twin, OPTIMIZERS[kind], 1)
        take(made, parts, epoch, last=True)
        assert moved(before, parts) == set(NAMES) - set(held)
        thawed = [name for name, epochs in late.items() if epoch == epochs]
        loss(twin, *batch(epoch)).backward()  # type: ignore[no-untyped-call]
        for name in thawed:
            new.optimizers[name].step()
            for left, right in zip(weights(parts[name]), weights(twin[name]), strict=True):
                torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)


def test_the_steps_of_a_late_component_are_its_own_in_the_state() -> None:
    parts = network()
    made = Updater(
        parts, clip_groups(EXPERTS, None, None), ADAMW, DECAY, frozen_epochs={"fusion": 1}
    )
    made.set_rates({**RATES, "fusion": None})
    take(made, parts, 0, last=True)
    made.set_rates(RATES)
    take(made, parts, 1, last=True)
    state = made.state_dict()
    assert (state["fusion"]["step"], state["global_head"]["step"]) == (1, 2)


def test_running_statistics_stay_in_the_module() -> None:
    parts = network()
    made = updater(parts)

    take(made, parts, seed=0)

    norm = parts["experts.a"].get_submodule("1")
    assert norm.get_buffer("num_batches_tracked") == 1
    assert not norm.get_buffer("running_mean").eq(0).any()
    assert "1.running_mean" not in made.buffers["experts.a"].offsets


def test_frozen_parameters_are_left_out() -> None:
    parts = network()
    frozen = parts["experts.a"].get_parameter("0.weight").requires_grad_(False)
    made = updater(parts)
    before = frozen.clone()

    take(made, parts, seed=0)

    assert torch.equal(frozen, before)
    assert "0.weight" not in made.buffers["experts.a"].offsets


def test_components_without_parameters_are_fine() -> None:
    parts = network() | {"fusion": nn.Identity(), "global_head": nn.Identity()}
    made = updater(parts)
    inputs, labels = batch(0)

    F.cross_entropy(parts["heads.a"](parts["experts.a"](inputs[0])), labels).backward()  # type: ignore[no-untyped-call]
    record = made.after_backward(last_in_epoch=True)

    assert record is not None
    assert record.groups == ("experts.a", "experts.b")


def test_everything_frozen_is_fine() -> None:
    parts = network()
    for module in parts.values():
        module.requires_grad_(False)

    assert updater(parts).after_backward(last_in_epoch=True) is None


def test_a_second_updater_takes_over_after_thawing() -> None:
    parts = network()
    parts["fusion"].requires_grad_(False)
    updater(parts)
    parts["fusion"].requires_grad_(True)
    before = snapshot(parts)

    take(updater(parts), parts, seed=0, last=True)

    assert moved(before, parts) == set(NAMES)


def test_parameters_are_aligned_and_the_gaps_stay_zero() -> None:
    parts = network()
    made = updater(parts)

    for seed in range(3):
        take(made, parts, seed)

    every = [p for module in parts.values() for p in module.parameters()]
    assert {p.data_ptr() % ALIGNMENT_BYTES for p in every} == {0}
    assert made.flat.count_nonzero() == sum(int(p.count_nonzero()) for p in every)


def test_channels_last_weights_keep_their_layout() -> None:
    expert = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = expert.weight.detach().clone()
    empty = {name: nn.Identity() for name in NAMES}

    updater(empty | {"experts.a": expert})

    assert expert.weight.is_contiguous(memory_format=torch.channels_last)
    assert expert.weight.grad is not None
    assert expert.weight.grad.stride() == expert.weight.stride()
    assert torch.equal(expert.weight, before)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("steps", [4, 5], ids=["at a window's end", "within a window"])
def test_a_loaded_state_continues_bit_for_bit(kind: str, steps: int) -> None:
    parts = network()
    made = updater(parts, OPTIMIZERS[kind], accumulation=2)
    for seed in range(steps):
        take(made, parts, seed)
    state, twin = copy.deepcopy(made.state_dict()), copy.deepcopy(parts)
    other = updater(twin, OPTIMIZERS[kind], accumulation=2)

    other.load_state_dict(state)
    for seed in range(steps, steps + 5):
        take(made, parts, seed)
        take(other, twin, seed)

    assert other.pending_batches == made.pending_batches
    assert moved(snapshot(parts), twin) == set()


def test_new_rates_keep_the_count_of_steps() -> None:
    parts = network()
    made = updater(parts, accumulation=2)
    for seed in range(4):
        take(made, parts, seed)
        made.set_rates(dict.fromkeys(NAMES, 0.1 * seed))

    state = made.state_dict()

    assert state["fusion"]["step"] == 4
    assert state["experts.a"]["step"] == 2


def test_a_state_of_another_shape_is_refused_and_changes_nothing() -> None:
    parts = network()
    made = updater(parts)
    take(made, parts, seed=0)
    before = copy.deepcopy(made.state_dict())
    wrong = copy.deepcopy(before)
    wrong["fusion"]["exp_avg"] = torch.ones(3)

    with pytest.raises(ValueError, match=r"state of fusion: exp_avg: expected \(24,\), got \(3,\)"):
        made.load_state_dict(wrong)

    assert torch.equal(made.state_dict()["experts.a"]["exp_avg"], before["experts.a"]["exp_avg"])


def test_a_state_of_another_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="missing: exp_avg, exp_avg_sq, step"):
        updater(network()).load_state_dict(updater(network(), SGD).state_dict())


def test_lost_gradients_are_noticed_at_the_epochs_end() -> None:
    parts = network()
    made = updater(parts)
    parts["fusion"].zero_grad()

    with pytest.raises(TrainingError, match="fusion: the gradient of weight has left"):
        take(made, parts, seed=0, last=True)


def test_lost_parameters_are_noticed_at_the_epochs_end() -> None:
    parts = network()
    made = updater(parts)
    parts["fusion"].to(torch.float32).to(torch.float64)

    with pytest.raises(TrainingError, match="fusion: the parameter of weight has left"):
        take(made, parts, seed=0, last=True)


def test_a_step_without_rates_is_refused() -> None:
    made = Updater(network(), clip_groups(EXPERTS, None, None), ADAMW, DECAY)

    with pytest.raises(TrainingError, match="set_rates"):
        made.after_backward()


def test_rates_must_name_every_component() -> None:
    with pytest.raises(ValueError, match=r"rates: .*missing: fusion; unknown: fushion"):
        updater(network()).set_rates(
            {name.replace("fusion", "fushion"): rate for name, rate in RATES.items()}
        )


def test_a_component_in_two_groups_is_refused() -> None:
    groups = (*clip_groups(EXPERTS, None, None), *clip_groups((), None, None))

    with pytest.raises(ValueError, match="more than once: fusion, global_head"):
        Updater(network(), groups, ADAMW, DECAY)


def test_a_parameter_of_two_components_is_refused() -> None:
    parts = network()
    parts["heads.b"] = parts["heads.a"]

    with pytest.raises(ValueError, match=r"share a parameter: heads\.a: weight, and heads\.b"):
        updater(parts)


def test_parameters_of_two_types_are_refused() -> None:
    parts = network()
    parts["fusion"].float()

    with pytest.raises(ValueError, match=r"torch.float32 on cpu, torch.float64 on cpu"):
        updater(parts)


def test_an_accumulation_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="accumulation: expected 1 or more, got 0"):
        updater(network(), accumulation=0)


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match="nesterov: expected a momentum"):
        OptimizerSettings("SGD", nesterov=True)


@pytest.mark.parametrize("kind", ["SGD nesterov", "AdamW"])
def test_a_loss_scale_changes_nothing_but_the_gradients_range(kind: str) -> None:
    parts, twin = network(), network()
    scaled = updater(parts, OPTIMIZERS[kind], accumulation=2, loss_scale=LossScale("cpu"))
    usual = updater(twin, OPTIMIZERS[kind], accumulation=2)

    for seed in range(5):
        with_scale, without = take(scaled, parts, seed), take(usual, twin, seed)
        assert with_scale is not None
        assert without is not None
        torch.testing.assert_close(with_scale.norms, without.norms, rtol=1e-10, atol=0)

    for name in NAMES:
        torch.testing.assert_close(weights(parts[name]), weights(twin[name]), rtol=0, atol=1e-12)


def overflow(made: Updater, last: bool = False) -> StepRecord | None:
    made.buffers["heads.b"].grad[3] = math.inf
    return made.after_backward(last)


@pytest.mark.parametrize("kind", ["SGD nesterov", "Adam", "AdamW"])
def test_an_overflow_skips_the_step_and_halves_the_scale(kind: str) -> None:
    parts = network()
    scale = LossScale("cpu", initial=1024.0)
    made = updater(parts, OPTIMIZERS[kind], loss_scale=scale)
    take(made, parts, seed=0)
    before, state = snapshot(parts), copy.deepcopy(made.state_dict())

    record = overflow(made)

    assert moved(before, parts) == set()
    assert scale.value == 512.0
    assert made.summarize([record])["experts.b"].skipped == 1
    after = made.state_dict()
    assert all(torch.equal(after["experts.a"][key], v) for key, v in state["experts.a"].items())
    assert made.grad.count_nonzero() == 0


def test_the_scale_is_constant_within_a_window() -> None:
    parts = network()
    scale = LossScale("cpu", initial=1024.0)
    made = updater(parts, accumulation=2, loss_scale=scale)

    made.buffers["fusion"].grad[0] = math.nan
    made.after_backward()
    assert scale.value == 1024.0
    made.after_backward()

    assert scale.value == 512.0


def test_the_scale_doubles_after_good_windows_only() -> None:
    scale = LossScale("cpu", initial=8.0, growth_interval=2)
    seen = []

    for overflowed in (0, 1, 0, 0, 0, 0, 0):
        scale.update(torch.tensor(float(overflowed)))
        seen.append(scale.value.item())

    assert seen == [8, 4, 4, 8, 8, 16, 16]


def test_the_loss_scale_follows_torchs_own_rule() -> None:
    ours = LossScale("cpu", initial=2.0**10, growth_interval=3)
    value, growth = torch.full((), 2.0**10), torch.zeros((), dtype=torch.int32)

    for overflowed in torch.rand(40, generator=torch.Generator().manual_seed(0)).lt(0.2).float():
        ours.update(overflowed)
        torch._amp_update_scale_(value, growth, overflowed, 2.0, 0.5, 3)
        assert ours.value == value


def test_a_loss_scale_without_a_fused_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a fused optimizer"):
        updater(network(), OPTIMIZERS["AdamW foreach"], loss_scale=LossScale("cpu"))


def test_the_loss_scale_is_part_of_the_state() -> None:
    parts = network()
    made = updater(parts, loss_scale=LossScale("cpu", initial=64.0))
    overflow(made)
    scale = LossScale("cpu")
    other = updater(network(), loss_scale=scale)

    other.load_state_dict(made.state_dict())

    assert scale.value == 32.0


# --- gradients that are not finite ----------------------------------------------------------


def poisoned(made: Updater, parts: Components, seed: int, value: float) -> None:
    loss(parts, *batch(seed)).backward()  # type: ignore[no-untyped-call]
    made.buffers["heads.b"].grad[0] = value
    made.after_backward()


def state(made: Updater) -> dict[str, Tensor]:
    """Weights, moments and counters."""
    kept = {f"{n}/{k}": t.clone() for n, own in made.state_dict().items() for k, t in own.items()}
    del kept["updater/nonfinite"]
    return {**kept, "flat": made.flat.clone()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("settings", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_with_a_gradient_that_is_not_finite_moves_nothing(
    settings: OptimizerSettings, value: float
) -> None:
    parts = network()
    made = updater(parts, settings, max_skipped=1)
    take(made, parts, 0)
    before = state(made)
    poisoned(made, parts, 1, value)
    assert same(state(made), before)
    assert (made.nonfinite_steps(), made.left_out.item()) == (1, 1)
    take(made, parts, 2)
    assert not same(state(made), before)
    assert (made.nonfinite_steps(), made.left_out.item()) == (1, 0)


@pytest.mark.parametrize("settings", [ADAMW, SGD, replace(SGD, fused=False)])
def test_after_one_too_many_nothing_moves_any_more(settings: OptimizerSettings) -> None:
    parts = network()
    made = updater(parts, settings)
    take(made, parts, 0)
    before = state(made)
    poisoned(made, parts, 1, math.nan)
    take(made, parts, 2)
    assert same(state(made), before)
