"""Values that are wrong together, or wrong for this data: each refused, whole message compared."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fusionrun.blueprint import expert_component
from fusionrun.errors import DataError, RecipeError
from fusionrun.plan.plan import Plan
from fusionrun.plan.screen import screen
from fusionrun.schema.backbones import WideResNet
from fusionrun.schema.experts import MLP
from fusionrun.store.components import save_components
from fusionrun.store.layout import RunLayout

PlanOf = Callable[..., Plan]
MULTIPLICATIVE = "fusion: {type: multiplicative}"


def alone(expert: str) -> str:
    return f"experts:\n  one: {expert}\n"


def refused(golden: str, plan: PlanOf, rest: str, *settings: str, **where: str) -> None:
    with pytest.raises(RecipeError, match=r"\S") as caught:
        plan(rest, *settings, **where)
    assert str(caught.value) == textwrap.dedent(golden).strip("\n")


# ------------------------------------------------------------------ experts and the data


def test_a_view_that_the_data_lacks(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:5:27  experts.one.view
          5 |   one: {model: mlp, view: pixel}
            |                           ^^^^^
          got       'pixel'
          expected  one of the data's views: a, b, pixels
          did you mean 'pixels'?
    """
    refused(golden, plan, MULTIPLICATIVE, experts=alone("{model: mlp, view: pixel}"))


def test_a_cnn_on_a_vector_without_a_shape(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:5:3  experts.one
          5 |   one: {model: cnn, view: b}
            |   ^^^
          got       view 'b' of shape 12 for model 'cnn'
          expected  an image, or the key 'shape' that says which image a row of 12 numbers is: \
[height, width] or [channels, height, width]
    """
    refused(golden, plan, MULTIPLICATIVE, experts=alone("{model: cnn, view: b}"))


def test_a_shape_of_another_size_than_the_vector(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:5:37  experts.one.shape
          5 |   one: {model: cnn, view: b, shape: [4, 4]}
            |                                     ^^^^^^
          got       view 'b' of shape 12 for model 'cnn'
          expected  a 'shape' of 12 numbers in all; 4 × 4 is 16
    """
    refused(golden, plan, MULTIPLICATIVE, experts=alone("{model: cnn, view: b, shape: [4, 4]}"))


@pytest.mark.parametrize(
    ("expert", "setting", "argument", "column"),
    [
        ("{model: cnn, view: b, shape: [3, 4]}", "shape=[4, 4]", "experts.one.shape", 19),
        ("{model: cnn, view: pixels}", "channels=[8, 8, 8, 8]", "experts.one.channels", 22),
        ("{model: cnn, view: pixels}", "view=b", "experts.one.view", 18),
        ("{model: mlp, view: b}", "model=cnn", "experts.one.model", 19),
        ("{model: cnn, view: b, shape: [3, 4]}", "view=a", "experts.one.view", 18),
    ],
)
def test_a_setting_after_which_a_view_does_not_fit_is_pointed_at(
    plan: PlanOf, expert: str, setting: str, argument: str, column: int
) -> None:
    with pytest.raises(RecipeError, match="for model 'cnn'") as caught:
        plan(MULTIPLICATIVE, f"experts.one.{setting}", experts=alone(expert))
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert (problem.key, str(problem.place), problem.place.column) == (argument, "--set", column)


def test_too_many_blocks_are_pointed_at_where_the_channels_stand(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:5:45  experts.one.channels
          5 |   one: {model: cnn, view: pixels, channels: [8, 8, 8, 8]}
            |                                             ^^^^^^^^^^^^
          got       view 'pixels' of shape 1 × 8 × 8 for model 'cnn'
          expected  an image of at least 16 × 16 for 4 blocks that halve it each; 8 × 8 allows 3 \
in 'channels'
    """
    expert = "{model: cnn, view: pixels, channels: [8, 8, 8, 8]}"
    refused(golden, plan, MULTIPLICATIVE, experts=alone(expert))


# ------------------------------------------------------------------ channels last


@pytest.fixture
def save(folder: Path) -> Callable[..., None]:
    """Write other views into the data file: `save(x=(8, 8, 3))`."""

    def write_views(**shapes: tuple[int, ...]) -> None:
        views = {name: np.zeros((60, *shape), np.uint8) for name, shape in shapes.items()}
        np.savez(folder / "data.npz", **views, label=np.arange(60) % 3)

    return write_views


def test_an_image_with_channels_last_is_refused(plan: PlanOf, save: Callable[..., None]) -> None:
    save(x=(8, 9, 3))
    golden = """
        recipe.yaml:5:27  experts.one.view
          5 |   one: {model: cnn, view: x}
            |                           ^
          got       view 'x' of shape 8 × 9 × 3 for model 'cnn'
          expected  (channels, height, width), and this looks like channels last; transpose it: \
numpy.moveaxis(x, -1, 1); if it is 8 channels of 9 × 3, say shape: [8, 9, 3]
    """
    refused(golden, plan, MULTIPLICATIVE, experts=alone("{model: cnn, view: x}"))


def test_a_shape_confirms_that_the_channels_come_first(
    plan: PlanOf, save: Callable[..., None]
) -> None:
    save(x=(8, 9, 3))
    expert = "{model: cnn, view: x, shape: [8, 9, 3], channels: [4]}"
    assert plan(experts=alone(expert)).data.views["x"] == (8, 9, 3)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 3), (4, 8, 4), (64, 4, 4), (8, 8, 2)])
def test_an_image_with_channels_first_is_taken(
    plan: PlanOf, save: Callable[..., None], shape: tuple[int, ...]
) -> None:
    save(x=shape)
    assert plan(experts=alone("{model: cnn, view: x, channels: [4]}")).data.views["x"] == shape


# ------------------------------------------------------------------ the data itself


def data_refused(golden: str, plan: PlanOf, folder: Path, *settings: str, **where: str) -> None:
    with pytest.raises(DataError, match=r"\S") as caught:
        plan(MULTIPLICATIVE, *settings, **where)
    found = str(caught.value).replace(f"{folder}/", "")
    assert found == textwrap.dedent(golden).strip("\n")


def test_a_path_that_is_not_there_is_pointed_at(plan: PlanOf, folder: Path) -> None:
    (folder / "data.npz").rename(folder / "date.npz")
    golden = """
        recipe.yaml:3:27  data.path
          3 | data: {source: npz, path: data.npz}
            |                           ^^^^^^^^
          no such file: data.npz
          did you mean 'date.npz'?
    """
    data_refused(golden, plan, folder)


def test_a_setting_of_the_data_is_pointed_at(plan: PlanOf, folder: Path) -> None:
    golden = """
        --set  data.label
           | data.label=lable
           |            ^^^^^
          no array for data.label in data.npz
          got       'lable'
          expected  one of label, a, b, pixels
          did you mean 'label'?
    """
    data_refused(golden, plan, folder, "data.label=lable")


def test_a_shipped_name_that_does_not_exist_is_pointed_at(plan: PlanOf, folder: Path) -> None:
    with pytest.raises(DataError, match=r"--set  data\.path\n.*=package:nope\n +\| +\^{12}\n"):
        plan(MULTIPLICATIVE, "data.path=package:nope")


def test_a_file_of_a_split_is_pointed_at(plan: PlanOf, folder: Path) -> None:
    with pytest.raises(DataError, match=r"--set  data\.split\.test\n.*\n +\| +\^{8}\n.*none"):
        plan(MULTIPLICATIVE, "data.path=null", "data.split={train: data.npz, test: none.npz}")


@pytest.mark.parametrize("views", ["[a, c, b]", "{x: a, y: c}"])
def test_an_array_of_a_view_is_pointed_at(plan: PlanOf, folder: Path, views: str) -> None:
    with pytest.raises(DataError, match=r"--set  data\.views\.[cy]\n.*\n +\| +\^\n") as caught:
        plan(MULTIPLICATIVE, f"data.views={views}")
    _, line, caret, *_ = str(caught.value).splitlines()
    assert line[caret.index("^")] == "c"


@pytest.mark.parametrize("views", ["{v: [x, z]}", "{v: z}"])
def test_a_column_of_a_table_is_pointed_at(plan: PlanOf, folder: Path, views: str) -> None:
    (folder / "d.csv").write_text("x,y,label\n" + "1,2,a\n1,2,b\n" * 5)
    with pytest.raises(DataError, match=r"data\.views\.v.*\n.*\n +\| +\^\n") as caught:
        plan(MULTIPLICATIVE, f"data={{source: csv, path: d.csv, views: {views}}}")
    _, line, caret, *_ = str(caught.value).splitlines()
    assert line[caret.index("^")] == "z"


def test_what_is_wrong_beside_the_data_is_told_with_it(plan: PlanOf, folder: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)data\.path.*rates\.experts\.oen.*selection\.path"):
        plan(
            MULTIPLICATIVE,
            "data.path=none.npz",
            "learning_rates.experts={oen: 1e-3}",
            "training.selection={path: Two}",
        )


def test_one_expert_alone_is_not_blamed_for_a_default_beside_bad_data(
    plan: PlanOf, folder: Path
) -> None:
    with pytest.raises(DataError, match=r"data\.path") as caught:
        plan(MULTIPLICATIVE, "data.path=none.npz", experts=alone("{model: mlp, view: a}"))
    assert "knowledge_transfer" not in str(caught.value)


# ------------------------------------------------------------------ all at once


def test_all_experts_are_reported_at_once(plan: PlanOf) -> None:
    experts = "experts:\n  one: {model: mlp, view: c}\n  two: {model: cnn, view: a}\n"
    with pytest.raises(RecipeError, match=r"experts\.one\.view") as caught:
        plan(experts=experts)
    assert [p.key for p in caught.value.problems] == ["experts.one.view", "experts.two"]


# ------------------------------------------------------------------ fusion and transfer


def test_heads_that_do_not_divide_the_width(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:7:44  fusion.num_heads
          7 | fusion: {type: TransformerBase, num_heads: 7}
            |                                            ^
          got       7 heads for dim 64
          expected  a number that divides 64: 1, 2, 4, 8, 16, 32, 64
    """
    refused(golden, plan, "fusion: {type: TransformerBase, num_heads: 7}")


def test_distillation_with_one_expert(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:7:53  knowledge_transfer.knowledge_distillation_weight
          7 | knowledge_transfer: {knowledge_distillation_weight: 0.1}
            |                                                     ^^^
          got       0.1 with one expert
          expected  0, or at least two experts to learn from each other
    """
    rest = f"{MULTIPLICATIVE}\nknowledge_transfer: {{knowledge_distillation_weight: 0.1}}"
    refused(golden, plan, rest, experts=alone("{model: mlp, view: a}"))


def test_attention_where_no_features_are_joined(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:46  knowledge_transfer.cross_expert_attention
          8 | knowledge_transfer: {cross_expert_attention: true}
            |                                              ^^^^
          got       true with fusion type productOfExperts
          expected  false: productOfExperts joins the heads' outputs, not features
    """
    rest = "fusion: {type: productOfExperts}\nknowledge_transfer: {cross_expert_attention: true}"
    refused(golden, plan, rest)


# ------------------------------------------------------------------ optimizer


def test_momentum_with_adamw(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:37  training.optimizer.momentum
          8 | training: {optimizer: {type: AdamW, momentum: 0.9}}
            |                                     ^^^^^^^^
          got       momentum with type AdamW
          expected  momentum only with SGD
          remove 'momentum', or change 'type'
    """
    refused(
        golden, plan, f"{MULTIPLICATIVE}\ntraining: {{optimizer: {{type: AdamW, momentum: 0.9}}}}"
    )


def test_betas_with_the_origins_sgd(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:24  training.optimizer.betas
          8 | training: {optimizer: {betas: [0.9, 0.99]}}
            |                        ^^^^^
          got       betas with type SGD
          expected  betas only with Adam or AdamW
          remove 'betas', or change 'type'
    """
    refused(golden, plan, f"{MULTIPLICATIVE}\ntraining: {{optimizer: {{betas: [0.9, 0.99]}}}}")


def test_nesterov_without_momentum(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:49  training.optimizer.nesterov
          8 | training: {optimizer: {momentum: 0.0, nesterov: true}}
            |                                                 ^^^^
          got       nesterov without momentum
          expected  a momentum above 0, or nesterov: false
    """
    rest = f"{MULTIPLICATIVE}\ntraining: {{optimizer: {{momentum: 0.0, nesterov: true}}}}"
    refused(golden, plan, rest)


def test_no_momentum_turns_nesterov_off_by_itself(plan: PlanOf) -> None:
    made = plan(f"{MULTIPLICATIVE}\ntraining: {{optimizer: {{momentum: 0.0}}}}")
    assert made["training.optimizer.nesterov"] is False


@pytest.mark.parametrize("optimizer", ["{type: SGD, betas: auto}", "{type: AdamW, momentum: auto}"])
def test_auto_says_nothing_about_an_optimizer(optimizer: str, plan: PlanOf) -> None:
    made = plan(f"{MULTIPLICATIVE}\ntraining: {{optimizer: {optimizer}}}")
    assert made["training.optimizer.betas"] == (0.9, 0.999)


# ------------------------------------------------------------------ names


def test_a_rate_for_an_expert_that_is_not_there(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:28  learning_rates.experts.oen
          8 | learning_rates: {experts: {oen: 1e-3}}
            |                            ^^^
          got       'oen'
          expected  one of the recipe's experts: one, two
          did you mean 'one'?
    """
    refused(golden, plan, f"{MULTIPLICATIVE}\nlearning_rates: {{experts: {{oen: 1e-3}}}}")


def test_a_selection_on_a_path_that_is_not_there(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:30  training.selection.path
          8 | training: {selection: {path: Two}}
            |                              ^^^
          got       'Two'
          expected  one of the paths: global, mean_of_experts, one, two
          did you mean 'two'?
    """
    refused(golden, plan, f"{MULTIPLICATIVE}\ntraining: {{selection: {{path: Two}}}}")


def test_a_sweep_over_keys_that_are_not_there(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:16  sweep.grid."fusion.dims"
          8 | sweep: {grid: {fusion.dims: [1]}, zip: {colour: [3]}}
            |                ^^^^^^^^^^^
          got       'fusion.dims'
          expected  one of the recipe's keys: fusion.type, fusion.feature_norm, fusion.dim, \
fusion.hidden_dim, fusion.dropout
          did you mean 'fusion.dim'?

        recipe.yaml:8:41  sweep.zip.colour
          8 | sweep: {grid: {fusion.dims: [1]}, zip: {colour: [3]}}
            |                                         ^^^^^^
          got       'colour'
          expected  one of the recipe's keys: version, name, preset, seed, data.source, \
data.normalize, data.split.train, data.split.val, data.split.test, data.split.stratify, \
data.split.seed, data.fusion_holdout, …
    """
    rest = f"{MULTIPLICATIVE}\nsweep: {{grid: {{fusion.dims: [1]}}, zip: {{colour: [3]}}}}"
    refused(golden, plan, rest)


def test_a_sweep_may_turn_on_rates_of_one_expert(plan: PlanOf) -> None:
    made = plan(f"{MULTIPLICATIVE}\nsweep: {{grid: {{learning_rates.experts.one: [1e-3, 1e-4]}}}}")
    assert made['sweep.grid."learning_rates.experts.one"'] == (1e-3, 1e-4)


def test_problems_of_several_kinds_come_at_once(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match="oen") as caught:
        plan(
            "fusion: {type: TransformerBase, num_heads: 7}",
            "learning_rates.experts={oen: 1e-3}",
            "training.selection={path: Two}",
        )
    assert [p.key for p in caught.value.problems] == [
        "fusion.num_heads",
        "learning_rates.experts.oen",
        "training.selection.path",
    ]


# ------------------------------------------------------------------ weights to start from


def weighted(weights: str) -> str:
    return alone(f"{{model: mlp, view: a, hidden: [], features: 8, weights: {weights}}}")


def test_weights_of_a_file_that_is_not_there(plan: PlanOf, folder: Path) -> None:
    golden = f"""
        recipe.yaml:5:64  experts.one.weights
          5 |   one: {{model: mlp, view: a, hidden: [], features: 8, weights: none.safetensors}}
            |                                                                ^^^^^^^^^^^^^^^^
          {folder}/none.safetensors
          got       no such file
          expected  a safetensors file
    """
    refused(golden, plan, MULTIPLICATIVE, experts=weighted("none.safetensors"))


def test_weights_with_other_tensors(plan: PlanOf, folder: Path) -> None:
    tensors = {
        "scaler.mean": torch.zeros(4),
        "scaler.std": torch.zeros(4),
        "backbone.layers.0.weight": torch.zeros(9, 4),
        "x": torch.zeros(3),
    }
    save_file(tensors, folder / "wrong.safetensors")
    golden = f"""
        recipe.yaml:5:64  experts.one.weights
          5 |   one: {{model: mlp, view: a, hidden: [], features: 8, weights: wrong.safetensors}}
            |                                                                ^^^^^^^^^^^^^^^^^
          {folder}/wrong.safetensors: its tensors do not fit
          backbone.layers.0.bias is missing, F32 [8]
          backbone.layers.0.weight is F32 [9, 4], needed is F32 [8, 4]
          x is not known here, F32 [3]
    """
    refused(golden, plan, MULTIPLICATIVE, experts=weighted("wrong.safetensors"))


def test_weights_of_an_expert_with_a_norm_at_its_output(plan: PlanOf, folder: Path) -> None:
    expert = MLP(model="mlp", view="a", hidden=(), features=8)
    blueprint = expert_component(expert, (4,), "shared")
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in blueprint.items()}
    save_file(tensors, folder / "tuned.safetensors")
    with pytest.raises(
        RecipeError, match=r"LayerNorm at its output: fusion\.feature_norm: shared$"
    ):
        plan(experts=weighted("tuned.safetensors"))


def test_weights_of_a_run_that_is_not_there(plan: PlanOf, folder: Path) -> None:
    golden = """
        recipe.yaml:5:64  experts.one.weights
          5 |   one: {model: mlp, view: a, hidden: [], features: 8, weights: run:none#experts.one}
            |                                                                ^^^^^^^^^^^^^^^^^^^^
          run 'none': not found; runs: no such directory of runs
          Look elsewhere with --runs DIR or the environment variable FUSIONRUN_RUNS.
    """
    with pytest.raises(RecipeError, match="no such directory of runs") as caught:
        plan(experts=weighted("run:none#experts.one"))
    found = str(caught.value).replace(f"{folder}/", "")
    assert found == textwrap.dedent(golden).strip("\n")


@pytest.fixture
def run(folder: Path) -> str:
    """A run that holds `experts.other`, an expert on four numbers with eight features."""
    layout = RunLayout(folder / "runs" / "earlier-00000000-s0")
    layout.root.mkdir(parents=True)
    layout.plan.write_text("{}")
    expert = MLP(model="mlp", view="a", hidden=(), features=8)
    blueprint = expert_component(expert, (4,), "fusion")
    record = {
        "run_id": layout.id,
        "plan_hash": "00000000",
        "which": "best",
        "epoch": 0,
        "step": 1,
        "chosen_on": None,
        "test_split": "touched once, after training",
        "classes": ["0", "1", "2"],
    }
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in blueprint.items()}
    save_components(layout.components("best"), {"experts.other": tensors}, record=record)
    return layout.id


def test_weights_of_a_run_are_found(plan: PlanOf, run: str) -> None:
    weights = plan(experts=weighted(f"run:{run}#experts.other")).components["experts.one"].weights
    assert weights is not None
    assert weights.path.endswith(f"{run}/components/best/experts/other.safetensors")
    assert len(weights.sha256) == 64


def test_weights_of_an_expert_that_the_run_lacks(plan: PlanOf, run: str) -> None:
    with pytest.raises(RecipeError, match=r"experts\.one\.weights(.|\n)*experts\.othr"):
        plan(experts=weighted(f"run:{run}#experts.othr"))


def test_weights_of_a_run_for_another_width(plan: PlanOf, run: str) -> None:
    wider = weighted(f"run:{run}#experts.other").replace("features: 8", "features: 9")
    with pytest.raises(RecipeError, match=r"is F32 \[8, 4\], needed is F32 \[9, 4\]"):
        plan(experts=wider)


def test_weights_of_every_expert_are_checked_at_once(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match="no such file") as caught:
        plan(MULTIPLICATIVE, "experts.one.weights=x.safetensors", "experts.two.weights=y.st")
    assert [p.key for p in caught.value.problems] == ["experts.one.weights", "experts.two.weights"]


@pytest.fixture
def published(folder: Path) -> Path:
    """Weights of a WRN-10-1 for one channel, as published: with a classifier of 1,000 classes."""
    expert = WideResNet(model="wideresnet", view="pixels", depth=10, width=1)
    tensors = {n: torch.zeros(t.shape) for n, t in expert.blueprint((8, 8)).items()}
    for name in tensors:
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
    tensors |= {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
    save_file(tensors, folder / "wrn.safetensors")
    return folder / "wrn.safetensors"


WRN = "{model: wideresnet, depth: 10, width: 1, view: pixels, weights: wrn.safetensors}"


def test_a_published_file_starts_the_backbone_and_the_screen_says_what_is_left_out(
    plan: PlanOf, published: Path
) -> None:
    made = plan(experts=alone(WRN))
    weights = made.components["experts.one"].weights
    assert weights is not None
    assert (weights.prefix, weights.left_out) == ("backbone.", ("fc.bias", "fc.weight"))
    shown = " ".join(screen(made, "x").split())
    assert (
        "experts.one starts from wrn.safetensors, its backbone alone: scaling is fitted here, "
        "the classifier (fc.bias, fc.weight) is replaced by a new head"
    ) in shown


def test_a_published_file_for_other_channels_is_refused_in_words(
    plan: PlanOf, published: Path, save: Callable[..., None]
) -> None:
    save(pixels=(3, 8, 8))
    with pytest.raises(RecipeError, match=r"reads images of 1 channel, this expert's view has 3"):
        plan(experts=alone(WRN))


# ------------------------------------------------------------------ models of other libraries


def test_an_argument_of_a_library_that_is_not_the_users_to_give(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:5:60  experts.one.args
          5 |   one: {model: "torchvision:resnet18", view: pixels, args: {num_classes: 3}}
            |                                                            ^^^^^^^^^^^^^^^^
          got       'num_classes'
          expected  other arguments than num_classes, in_chans, pretrained, weights
          the classifier is taken off: each expert has a head of its own
    """
    expert = '{model: "torchvision:resnet18", view: pixels, args: {num_classes: 3}}'
    refused(golden, plan, MULTIPLICATIVE, experts=alone(expert))


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed here")
def test_a_model_of_a_library_that_is_not_installed_names_the_command(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:5:16  experts.one.model
          5 |   one: {model: "timm:resnet18", view: pixels}
            |                ^^^^^^^^^^^^^^^
          got       'timm:resnet18'
          expected  a model that can be had here
          timm is not installed here: pip install 'fusionrun[timm]'
    """
    refused(golden, plan, MULTIPLICATIVE, experts=alone('{model: "timm:resnet18", view: pixels}'))


def test_an_order_of_channels_that_nobody_convolves(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:27  training.memory_format
          8 | training: {memory_format: channels_last}
            |                           ^^^^^^^^^^^^^
          got       channels_last, and no expert that convolves images
          expected  auto or contiguous; or an expert such as cnn, resnet18 or wideresnet
    """
    refused(golden, plan, f"{MULTIPLICATIVE}\ntraining: {{memory_format: channels_last}}")
