"""From a plan to what trains: device, network with its first weights, losses, updater."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from fusionrun.blueprint import scaler_shape
from fusionrun.data.load import Rows, fit_scaling
from fusionrun.data.split import PARTS
from fusionrun.errors import UserError
from fusionrun.models.build import ExpertSpec, FusionSpec, build_network
from fusionrun.models.network import FusionNetwork
from fusionrun.models.stacked import stacks_of
from fusionrun.plan.plan import Plan, Weights
from fusionrun.schema.base import AUTO
from fusionrun.store.components import load_file
from fusionrun.train.buffers import Allocate, clip_groups, own_memory
from fusionrun.train.kept_memory import keep_freed_memory
from fusionrun.train.loss_scale import LossScale
from fusionrun.train.losses import LossSettings
from fusionrun.train.metrics import Metrics
from fusionrun.train.optimizer import OptimizerSettings
from fusionrun.train.ranks import SINGLE, Ranks
from fusionrun.train.rate_factors import rate_factors
from fusionrun.train.stacking import in_stacks, stack_experts
from fusionrun.train.tables import Table
from fusionrun.train.updates import Updater

if TYPE_CHECKING:
    from fusionrun.models.experts import Expert


_NUM_THREADS: Final = torch.get_num_threads()
"""Torch's own choice, before any run has made another one."""


def choose_device(wanted: str) -> torch.device:
    """The device of a run: `auto` is CUDA where there is one.

    Raises:
        UserError: `cuda` was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError(
            "training.device: got 'cuda', and torch finds no CUDA device here; "
            "expected auto or cpu, or a machine with a GPU and a CUDA build of torch"
        )
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def half_on_cpu(plan: Plan, device: torch.device) -> str:
    """What a plan could not know: that `auto` has found no GPU for a GPU's precision; or empty."""
    settings = plan.settings.training
    if settings.device != AUTO or settings.precision == "float32" or device.type != "cpu":
        return ""
    return (
        f"no GPU here: precision {settings.precision} rounds on the CPU as it does there, and most "
        "CPUs are slower with it than with float32"
    )


def prepare_process(plan: Plan, device: torch.device) -> None:
    """Fix what the bits of a result depend on: generators, threads, denormals, kernels. And keep
    freed memory, which changes none.

    With `training.deterministic: false` kernels are what is fastest: on a GPU they are measured
    when they first run, and may add up in any order.
    """
    deterministic = plan.settings.training.deterministic
    threads = plan.settings.training.threads
    # (One process may train several runs: the one before must not decide for this one.)
    torch.set_num_threads(_NUM_THREADS if threads == AUTO else threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(plan.seed)
    precision = plan.settings.training.matmul_precision
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not deterministic
    # What use_deterministic_algorithms(True) does, but for importing the compiler: 2.3 s a start.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # Nothing here reads memory before it is written: filling it each time only takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if device.type == "cpu":
        keep_freed_memory()


def make_network(
    plan: Plan, train: Rows, before: Mapping[str, Mapping[str, torch.Tensor]] | None = None
) -> FusionNetwork:
    """The network on the CPU, with its first weights and its scaling.

    Scaling is fitted on the training rows; an expert that starts from another run's expert keeps
    the scaling it was trained with.

    Args:
        plan: of the run.
        train: the rows it trains on.
        before: tensors that components begin with, by the component's name.
    """
    before = before or {}
    network = build_network(
        list(_expert_specs(plan)),
        _fusion_spec(plan),
        num_classes=len(plan.data.classes),
        seed=plan.seed,
    )
    experts = network.experts_by_name
    fitted: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, expert in plan.settings.experts.items():
        weights = plan.components[f"experts.{name}"].weights
        module = experts[name]
        if weights is not None:
            _start_from(module, weights)
        is_fitted = f"experts.{name}" in before or (weights is not None and not weights.prefix)
        if not is_fitted and plan.settings.data.normalize == "standard":
            if expert.view not in fitted:
                mean, std = fit_scaling(train.views[expert.view])
                fitted[expert.view] = (torch.from_numpy(mean), torch.from_numpy(std))
            _set_scaling(module, *fitted[expert.view])
        if plan.components[f"experts.{name}"].never_trains:
            module.requires_grad_(False)  # it has no place among what the optimizer holds
    for name, component in network.components().items():
        if name in before:
            component.load_state_dict(before[name])
    if not heads_learn(plan):
        # Weight decay would move parameters that no loss reaches.
        for head in network.heads:
            head.requires_grad_(False)
    return network


def _start_from(expert: Expert, weights: Weights) -> None:
    """Take a file's tensors; what the file has none for stays as it is: scaling, a shared norm."""
    tensors = load_file(Path(weights.path), expected_sha256=weights.sha256)
    own = {f"{weights.prefix}{n}": t for n, t in tensors.items() if n not in weights.left_out}
    expert.load_state_dict({**expert.state_dict(), **own} if weights.prefix else own)


def heads_learn(plan: Plan) -> bool:
    """Whether any loss term ever reaches the experts' heads."""
    taught = any(weight > 0 for losses in plan.losses for weight in losses.values())
    return taught or not plan.settings.fusion.uses_features


def _set_scaling(expert: Expert, mean: torch.Tensor, std: torch.Tensor) -> None:
    expert.scaler.mean.copy_(mean)
    expert.scaler.std.copy_(std)


def _expert_specs(plan: Plan) -> list[ExpertSpec]:
    shared = plan.settings.fusion.feature_norm == "shared"
    last = plan.settings.training.memory_format == "channels_last"
    specs = []
    for name, expert in plan.settings.experts.items():
        shape = plan.data.views[expert.view]
        specs.append(
            ExpertSpec(
                name,
                expert.module,
                expert.module_args(shape),
                scaler_shape(shape),
                norm=shared,
                channels_last=last and expert.convolves,
            )
        )
    return specs


def _fusion_spec(plan: Plan) -> FusionSpec:
    settings = plan.settings
    widths = tuple(plan.components[f"experts.{name}"].input_dim for name in settings.experts)
    attends = settings.knowledge_transfer.cross_expert_attention
    arguments = settings.fusion.module_args(widths, len(plan.data.classes), attends)
    return FusionSpec(settings.fusion.module, arguments)


def loss_settings(plan: Plan, epoch: int = 0) -> LossSettings:
    """What the loss terms weigh in an epoch, counted from 0."""
    transfer, stage = plan.settings.knowledge_transfer, plan.stage_at(epoch)
    weights = stage.losses if stage else plan.losses[0]
    return LossSettings(
        lambda_loss=weights["lambda_loss"],
        distillation_weight=weights["knowledge_distillation_weight"],
        temperature=transfer.temperature,
        teacher=transfer.teacher,
        weighting=transfer.loss_weighting,
        log_variance_lr=transfer.log_variance_lr,
    )


def make_updater(
    plan: Plan,
    network: FusionNetwork,
    device: torch.device,
    ranks: Ranks = SINGLE,
    allocate: Allocate = own_memory,
) -> Updater:
    """The updater of all components; they must be on `device` already.

    Experts that can be computed together are, from here on.
    """
    components, stacks = network.components(), _stacks(plan, network)
    transfer, optimizer = plan.settings.knowledge_transfer, plan.settings.training.optimizer
    groups = clip_groups(
        in_stacks(network, stacks),
        transfer.expert_gradient_clipping,
        transfer.fusion_gradient_clipping,
    )
    settings = OptimizerSettings(
        type=optimizer.type,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        betas=optimizer.betas,
        eps=optimizer.eps,
    )
    decay = {name: component.weight_decay for name, component in plan.components.items()}
    later = {name: component.frozen_epochs for name, component in plan.components.items()}
    scale = LossScale(device) if plan.settings.training.precision == "fp16" else None
    updater = Updater(
        components,
        groups,
        settings,
        decay,
        transfer.expert_gradient_accumulation,
        scale,
        ranks,
        max_skipped=plan.settings.training.max_skipped_steps,
        frozen_epochs=later,
        combination=transfer.gradient_combination,
        rate_factors=_trained(rate_factors(plan), components),
        allocate=allocate,
    )
    stack_experts(network, updater, stacks)
    return updater


def _trained(
    factors: Mapping[str, Mapping[str, float]], components: Mapping[str, torch.nn.Module]
) -> dict[str, dict[str, float]]:
    """The factors of parameters that have a rate at all: heads may have none."""
    return {
        name: {k: f for k, f in own.items() if components[name].get_parameter(k).requires_grad}
        for name, own in factors.items()
    }


def make_tables(
    plan: Plan, network: FusionNetwork, rows: Mapping[str, Rows], device: torch.device
) -> dict[str, Table]:
    """The rows of every part that has any, on the device."""
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    return {
        part: Table(part_rows, network.experts_by_name, views, device)
        for part, part_rows in rows.items()
        if part in PARTS and len(part_rows.labels)
    }


def asked_metrics(plan: Plan, results: Mapping[str, Mapping[str, Metrics]]) -> dict[str, Any]:
    """Of a split's paths the metrics that the recipe asks for, in its order."""
    wanted = plan.settings.evaluation.metrics
    return {
        part: {path: {m: metrics[m] for m in wanted} for path, metrics in paths.items()}
        for part, paths in results.items()
    }


def _stacks(plan: Plan, network: FusionNetwork) -> list[tuple[str, ...]]:
    """The experts that train from the first epoch on, as far as they are alike."""
    names = [n for n in network.names if not plan.components[f"experts.{n}"].frozen_epochs]
    heads = dict(zip(network.names, network.heads, strict=True))
    experts = network.experts_by_name
    return stacks_of({n: experts[n] for n in names}, heads)
