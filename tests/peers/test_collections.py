"""Models of timm and torchvision as experts: sized, planned, trained, taken back."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fusionrun import outside
from fusionrun.errors import RecipeError, UserError
from fusionrun.launch import prepare
from fusionrun.models.outside import Outside, build, describe
from fusionrun.plan.plan import Plan
from fusionrun.store.layout import RunLayout
from fusionrun.train import job

PlanOf = Callable[..., Plan]
FAMILIES = [
    "timm:resnet18",
    "timm:mobilenetv3_small_050",
    "timm:vit_tiny_patch16_224",
    "timm:convnext_atto",
    "timm:efficientnet_b0",
    "torchvision:mobilenet_v3_small",
]


def expert(model: str, view: str = "colour", more: str = "") -> str:
    return f"{{model: '{model}', view: {view}{more}}}"


def trained(folder: Path, plan: Plan) -> RunLayout:
    text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    layout = prepare(plan, text, folder / "runs", new=True).layout
    assert job.run(layout) == "completed"
    return layout


# --- what a plan knows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "channels"),
    [*((model, 3) for model in FAMILIES), (FAMILIES[0], 1), (FAMILIES[-1], 1)],
)
def test_a_description_is_what_the_library_builds(model: str, channels: int) -> None:
    library, name = model.split(":")
    shape = (channels, 32, 32)
    found = describe(library, name, shape, {})
    sizes = {"features": found["features"], "args": found["args"], "pretrained": False}
    net = Outside(input_shape=shape, library=library, name=name, **sizes).eval()
    tensors = {n: list(t.shape) for n, t in net.model.state_dict().items()}
    assert tensors == {n: size for n, (_, size, _) in found["tensors"].items()}
    assert net(torch.randn(2, *shape)).shape == (2, found["features"])


# The published count is 11,689,512 with a classifier of 1,000 classes.
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_resnet18_has_the_published_parameters(library: str) -> None:
    found = describe(library, "resnet18", (3, 32, 32), {})
    count = sum(prod(shape) for _, shape, trainable in found["tensors"].values() if trainable)
    assert found["features"] == 512
    assert count == 11_689_512 - (512 * 1000 + 1000)


def test_a_second_plan_imports_neither_torch_nor_the_library(folder: Path, plan: PlanOf) -> None:
    plan(expert("timm:resnet18"))
    code = (
        "import sys\nfrom fusionrun.cli.main import main\nsys.argv = ['fusionrun', 'plan', "
        "'recipe.yaml']\ntry:\n    main()\nfinally:\n"
        "    print([m for m in ('torch', 'timm', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "11,177,536" in done.stdout
    assert done.stderr == "[]\n"


def test_a_damaged_description_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = outside._describe(REQUEST)
    monkeypatch.setenv("FUSIONRUN_CACHE", str(folder / "cache"))
    (folder / "cache/models").mkdir(parents=True)
    kept = outside.kept_at(REQUEST)
    kept.write_text("{")
    assert outside._describe.__wrapped__(REQUEST) == before
    assert kept.stat().st_size > 100


REQUEST = (
    '{"args": {}, "input_shape": [3, 32, 32], "library": "timm", "name": "mobilenetv3_small_050"}'
)


def test_a_cache_that_cannot_be_written_is_done_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cache").write_text("a file where a directory should be")
    monkeypatch.setenv("FUSIONRUN_CACHE", str(folder / "cache"))
    assert outside._describe.__wrapped__(REQUEST).features == 1024


def test_a_model_for_images_of_one_size_is_made_for_this_one() -> None:
    found = describe("timm", "vit_tiny_patch16_224", (3, 32, 48), {})
    assert found["args"] == {"img_size": (32, 48)}


def test_arguments_reach_the_library() -> None:
    net = build("timm", "convnext_atto", 3, {"drop_path_rate": 0.25}).model
    rates = [m.drop_prob for m in net.modules() if type(m).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.25)


# --- what cannot be ---------------------------------------------------------------------------


def test_an_unknown_name_is_told_with_the_nearest(plan: PlanOf) -> None:
    expected = r"models of timm 1\.\S+\n  did you mean 'resnet18'\?"
    with pytest.raises(RecipeError, match=expected) as caught:
        plan(expert("timm:resnet81"))
    assert [p.key for p in caught.value.problems] == ["experts.one.model"]


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        ("timm:resnet18", {"nonsense": 1}, "unexpected keyword argument 'nonsense'"),
        ("torchvision:squeezenet1_0", {}, "does not end in a Linear"),
        ("timm:vit_tiny_patch16_224", {"img_size": 64}, r"Input height \(32\) doesn't match"),
    ],
)
def test_what_the_library_refuses_is_told_in_its_words(
    model: str, args: dict[str, Any], message: str
) -> None:
    library, name = model.split(":")
    assert re.search(message, describe(library, name, (3, 32, 32), args)["unfit"])


def test_what_the_library_refuses_is_pointed_at(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match=r"says of resnet18: .*'nonsense'") as caught:
        plan(expert("timm:resnet18", more=", args: {nonsense: 1}"))
    assert [p.key for p in caught.value.problems] == ["experts.one.args"]


def test_two_kinds_of_first_weights_are_refused(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match="one of the two"):
        plan(expert("timm:resnet18", more=", pretrained: true, weights: x"))


def test_pretrained_weights_out_of_reach_are_told_with_the_fix(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    given = {"library": "timm", "name": "resnet18", "args": {}, "pretrained": True}
    with pytest.raises(UserError, match=r"(?s)timm:resnet18: the weights .*Fix: train once where"):
        Outside(input_shape=(3, 32, 32), features=512, **given)


# --- trained and taken back -------------------------------------------------------------------


@pytest.mark.parametrize("model", FAMILIES[:5])
def test_two_steps_train_and_the_exported_expert_loads_back_strictly(
    model: str, folder: Path, plan: PlanOf
) -> None:
    settings = ("data.split={train: 0.5, val: 0.25, test: 0.25}",)
    made = plan(expert(model), *settings)
    assert made.steps.fusion_steps == 2
    layout = trained(folder, made)
    tensors = load_file(layout.component("last", "experts.one"))
    prefix = "backbone.model."
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    args = made.settings.experts["one"].module_args((3, 32, 32))["args"]
    fresh = build(*model.split(":"), 3, args).model
    fresh.load_state_dict(own, strict=True)
    counts = [t for n, t in own.items() if n.endswith("num_batches_tracked")]
    assert all(count == 2 for count in counts)


def test_a_librarys_own_file_starts_the_backbone(folder: Path, plan: PlanOf) -> None:
    import timm

    whole = timm.create_model("mobilenetv3_small_050", num_classes=7)
    save_file(whole.state_dict(), folder / "timm.safetensors")
    given = expert("timm:mobilenetv3_small_050", more=", weights: timm.safetensors, freeze: true")
    made = plan(given)
    weights = made.components["experts.one"].weights
    assert weights is not None
    assert weights.prefix == "backbone.model."
    assert set(weights.left_out) == {"classifier.weight", "classifier.bias"}
    tensors = load_file(trained(folder, made).component("last", "experts.one"))
    for name, tensor in whole.state_dict().items():
        if name not in weights.left_out:
            assert torch.equal(tensors[f"backbone.model.{name}"], tensor), name


def test_a_torchvision_resnet_gives_what_ours_gives_from_the_same_weights(folder: Path) -> None:
    import torchvision

    from fusionrun.models.resnet import ResNet

    theirs = torchvision.models.resnet18()
    theirs.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool, theirs.fc = torch.nn.Identity(), torch.nn.Identity()
    ours = ResNet(input_shape=(3, 32, 32), channels=(64, 128, 256, 512), blocks=2)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_torchvision_densenet_gives_what_ours_gives_from_the_same_weights(folder: Path) -> None:
    import torchvision

    from fusionrun.models.densenet import DenseNet
    from fusionrun.schema.backbones import DenseNet121

    theirs = torchvision.models.densenet121()
    theirs.features.conv0 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.features.norm0 = theirs.features.relu0 = theirs.features.pool0 = torch.nn.Identity()
    theirs.classifier = torch.nn.Identity()
    section = DenseNet121(model="densenet121", view="v")
    ours = DenseNet(**section.module_args((3, 32, 32)))
    state = {n.removeprefix("features."): t for n, t in theirs.state_dict().items()}
    ours.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
