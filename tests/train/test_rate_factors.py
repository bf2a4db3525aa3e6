"""Rates by tensor: layers in order, muP's table, and that an optimizer takes every factor."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fusionrun.blueprint import Tensor as Shape
from fusionrun.layers import Mup, depths, layers_of, mup, mup_factors
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.schema.backbones import DenseNet121, ResNet18, ResNeXt29, WideResNet
from fusionrun.schema.experts import CNN, MLP, Expert
from fusionrun.store.components import load_file
from fusionrun.store.layout import RunLayout
from fusionrun.train import job
from fusionrun.train.buffers import clip_groups
from fusionrun.train.rate_factors import rate_factors
from fusionrun.train.updates import Updater
from tests.small_runs import SMALL, prepared
from tests.train.test_updates import (
    ADAMW,
    DECAY,
    EXPERTS,
    NAMES,
    OPTIMIZERS,
    RATES,
    batch,
    loss,
    network,
    take,
)

pytestmark = pytest.mark.usefixtures("numerics")

IMAGE = (3, 32, 32)


def shapes(*names: str) -> dict[str, Shape]:
    """Matrices, and vectors where a name ends with a star."""
    return {n.rstrip("*"): Shape((8,) if n.endswith("*") else (8, 8)) for n in names}


def first_names(blueprint: dict[str, Shape]) -> list[str]:
    return [layer[0] for layer in layers_of(blueprint)]


# --- layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expert", "number", "ends"),
    [
        (MLP(model="mlp", view="v", hidden=(9, 9)), 3, ("layers.0.weight", "layers.2.bias")),
        (MLP(model="mlp", view="v", hidden=()), 1, ("layers.0.weight", "layers.0.bias")),
        (CNN(model="cnn", view="v"), 3, ("convs.0.weight", "output.bias")),
        (ResNet18(model="resnet18", view="v"), 9, ("conv1.weight", "layer4.1.bn2.bias")),
        (ResNeXt29(model="resnext29", view="v"), 10, ("conv1.weight", "layer3.2.bn3.bias")),
        (WideResNet(model="wideresnet", view="v", depth=16), 7, ("conv1.weight", "bn.bias")),
        (DenseNet121(model="densenet121", view="v"), 8, ("conv0.weight", "norm5.bias")),
    ],
    ids=lambda value: getattr(value, "model", ""),
)
def test_a_built_in_backbone_has_its_layers_in_order(
    expert: Expert, number: int, ends: tuple[str, str]
) -> None:
    blueprint = expert.blueprint(IMAGE)
    layers = layers_of(blueprint)
    assert len(layers) == number
    assert (layers[0][0], layers[-1][-1]) == ends
    trainable = {name for name, tensor in blueprint.items() if tensor.trainable}
    assert {name for layer in layers for name in layer} == trainable


def test_a_vision_transformer_of_timm_has_a_layer_a_block() -> None:
    names = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias*"]
    for block in range(3):
        names += [f"blocks.{block}.{n}" for n in ("norm1.weight*", "attn.qkv.weight", "mlp.fc1.w")]
    blueprint = shapes(*(f"model.{name}" for name in [*names, "norm.weight*"]))
    layers = layers_of(blueprint)
    assert layers[0] == tuple(f"model.{name.rstrip('*')}" for name in names[:4])
    assert [layer[0] for layer in layers[1:]] == [
        f"model.blocks.{n}.norm1.weight" for n in range(3)
    ]
    assert layers[-1][-1] == "model.norm.weight"
    assert depths(layers)["model.cls_token"] == 3
    assert depths(layers)["model.norm.weight"] == 0


def test_stages_of_blocks_have_a_layer_a_block() -> None:
    blueprint = shapes(
        "model.stem.0.weight",
        "model.stem.1.weight*",
        "model.stages.0.blocks.0.conv_dw.weight",
        "model.stages.0.blocks.0.norm.weight*",
        "model.stages.0.blocks.1.conv_dw.weight",
        "model.stages.1.downsample.0.weight*",
        "model.stages.1.downsample.1.weight",
        "model.stages.1.blocks.0.conv_dw.weight",
        "model.head.norm.weight*",
    )
    assert [name.removeprefix("model.") for name in first_names(blueprint)] == [
        "stem.0.weight",
        "stages.0.blocks.0.conv_dw.weight",
        "stages.0.blocks.1.conv_dw.weight",
        "stages.1.downsample.0.weight",
        "stages.1.blocks.0.conv_dw.weight",
    ]


def test_torchvisions_encoder_layers_and_residual_blocks_are_layers() -> None:
    encoder = shapes(*(f"model.encoder.layers.encoder_layer_{n}.mlp.0.weight" for n in range(2)))
    assert len(layers_of({**shapes("model.conv_proj.weight"), **encoder})) == 3
    residual = shapes(
        "model.layer1.0.conv1.weight",
        "model.layer1.0.downsample.0.weight",
        "model.layer1.1.conv1.weight",
    )
    assert [len(layer) for layer in layers_of(residual)] == [2, 1]


# --- muP --------------------------------------------------------------------------------------


def test_mup_is_the_papers_table() -> None:
    assert mup("AdamW", 512, 64) == Mup(inputs=1, hidden=1 / 8, outputs=1 / 8, vectors=1)
    assert mup("SGD", 512, 64) == Mup(inputs=8, hidden=1, outputs=1 / 8, vectors=8)
    assert set(mup("SGD", 64, 64)) == set(mup("Adam", 64, 64)) == {1}


def test_each_kind_of_tensor_has_its_own_factor() -> None:
    four = Mup(inputs=2, hidden=3, outputs=5, vectors=7)
    expert = shapes("backbone.cls", "backbone.layers.0.weight", "backbone.layers.0.bias*")
    expert |= shapes("backbone.layers.1.weight", "norm.weight*")
    assert list(mup_factors("experts.a", expert, four).values()) == [7, 2, 7, 3, 7]
    assert mup_factors("heads.a", shapes("weight", "bias*"), four) == {"weight": 5, "bias": 7}
    fusion = shapes("norm.weight", "hidden.weight", "hidden.bias*", "embedding", "factors")
    assert list(mup_factors("fusion", fusion, four).values()) == [7, 3, 7, 7, 3]
    assert mup_factors("global_head", shapes("weight"), four) == {"weight": 5}


# --- in the updater ---------------------------------------------------------------------------

FACTORS = {
    "experts.a": {"0.weight": 0.25, "1.weight": 0.25, "3.bias": 0.5},
    "heads.b": {"weight": 2.0},
    "fusion": {"weight": 0.0625},
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_with_factors_equal_plain_torch_with_a_group_for_each_tensor(kind: str) -> None:
    settings = OPTIMIZERS[kind]
    parts = network()
    twin = copy.deepcopy(parts)
    made = Updater(parts, clip_groups(EXPERTS, None, None), settings, DECAY, rate_factors=FACTORS)
    made.set_rates(RATES)
    groups = [
        {
            "params": [parameter],
            "lr": RATES[name] * FACTORS.get(name, {}).get(key, 1.0),
            "weight_decay": DECAY[name],
        }
        for name, module in twin.items()
        for key, parameter in module.named_parameters()
    ]
    extra = (
        {"momentum": settings.momentum, "nesterov": settings.nesterov}
        if settings.type == "SGD"
        else {"betas": settings.betas, "eps": settings.eps}
    )
    plain = getattr(torch.optim, settings.type)(groups, lr=1.0, **extra)
    for seed in range(10):
        take(made, parts, seed)
        loss(twin, *batch(seed)).backward()  # type: ignore[no-untyped-call]
        plain.step()
        plain.zero_grad()
    for name in NAMES:
        for one, other in zip(parts[name].parameters(), twin[name].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_factors_of_one_change_no_bit_and_make_no_further_call() -> None:
    parts, twin = network(), network()
    ones = {name: {k: 1.0 for k, _ in m.named_parameters()} for name, m in parts.items()}
    for own, factors in ((parts, None), (twin, ones)):
        made = Updater(own, clip_groups(EXPERTS, 0.5, 0.3), ADAMW, DECAY, rate_factors=factors)
        made.set_rates(RATES)
        for seed in range(3):
            take(made, own, seed)
    for name in NAMES:
        pairs = zip(parts[name].parameters(), twin[name].parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_factor_of_a_parameter_that_is_not_there_is_refused() -> None:
    groups = clip_groups(EXPERTS, None, None)
    with pytest.raises(ValueError, match=r"experts\.a: no parameter wieght"):
        Updater(network(), groups, ADAMW, DECAY, rate_factors={"experts.a": {"wieght": 0.5}})


# --- whole runs -------------------------------------------------------------------------------


def trained(folder: Path, *settings: str) -> RunLayout:
    recipe = SMALL + "training: {epochs: 1, batch_size: 32, device: cpu}\n"
    layout = prepared(folder, *settings, recipe=recipe)
    assert job.run(layout) == "completed"
    return layout


def test_a_pretrained_expert_learns_slower_towards_its_input(tmp_path: Path) -> None:
    sgd = ("training.optimizer.type=SGD",)
    before = trained(tmp_path / "before", *sgd)
    start = before.components("last") / "experts" / "fourier.safetensors"
    asked = (*sgd, f"experts.fourier.weights={start}", "training.optimizer.momentum=0")
    moved = {}
    for name, extra in (("whole", ()), ("by layer", ("learning_rates.layer_decay=0.5",))):
        layout = trained(tmp_path / name, *asked, *extra)
        after = load_file(layout.components("last") / "experts" / "fourier.safetensors")
        moved[name] = distances(load_file(start), after)
    first, last = "backbone.layers.0.weight", "backbone.layers.1.weight"
    ratios = {name: moved["by layer"][name] / moved["whole"][name] for name in (first, last)}
    assert ratios[first] == pytest.approx(0.5, rel=0.05)
    assert ratios[last] == pytest.approx(1.0, rel=0.05)


def test_heads_that_never_learn_have_no_rate_to_spread(tmp_path: Path) -> None:
    weights = ("lambda_loss", "knowledge_distillation_weight")
    untrained = [f"knowledge_transfer.{weight}=0" for weight in weights]
    assert trained(tmp_path / "a", *untrained, "learning_rates={rules: [{mup: {base_width: 4}}]}")


def distances(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    return {name: (one[name].float() - other[name].float()).norm().item() for name in one}


def test_a_plan_says_what_every_tensors_factor_is(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"{SMALL}learning_rates: {{rules: [{{mup: {{base_width: 8}}}}]}}\n")
    plan = make_plan(read_recipe(path), tmp_path)
    assert rate_factors(plan) == {
        "experts.fourier": {"backbone.layers.1.weight": 0.5},
        "heads.fourier": {"weight": 0.5},
        "heads.zernike": {"weight": 0.5},
        "fusion": {"hidden.weight": 0.5, "output.weight": 0.5},
        "global_head": {"weight": 0.5},
    }
    sgd = make_plan(read_recipe(path, ["training.optimizer.type=SGD"]), tmp_path)
    factors = rate_factors(sgd)
    assert factors["experts.zernike"] == dict.fromkeys(
        ("backbone.layers.0.weight", "backbone.layers.0.bias", "norm.weight", "norm.bias"), 2.0
    )
    assert factors["heads.zernike"] == {"weight": 0.5, "bias": 2.0}
