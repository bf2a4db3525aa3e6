"""The blueprint told without torch equals what torch builds, tensor by tensor."""

from itertools import product

import pytest
import torch

from fusionrun import blueprint as bp
from fusionrun.models.build import ExpertSpec, FusionSpec, build_network
from fusionrun.schema.experts import CNN, MLP
from fusionrun.schema.fusions import FUSIONS

DTYPES = {torch.float32: "F32", torch.int64: "I64"}


def of_module(module):
    trainable = {name for name, _ in module.named_parameters()}
    return {
        name: bp.Tensor(tuple(tensor.shape), DTYPES[tensor.dtype], name in trainable)
        for name, tensor in module.state_dict().items()
    }


def mlp(**keys):
    return MLP(model="mlp", view="v", **keys)


def cnn(**keys):
    return CNN(model="cnn", view="v", **keys)


EXPERTS = [
    (mlp(), (7,)),
    (mlp(hidden=(), features=3), (1,)),
    (mlp(hidden=(9, 5, 4), dropout=0.3, activation="gelu"), (6,)),
    (mlp(), (8, 8)),
    (mlp(), (3, 5, 4)),
    (cnn(), (8, 8)),
    (cnn(), (3, 4, 9)),
    (cnn(channels=(5,), features=2, dropout=0.1), (1, 2, 2)),
    (cnn(channels=(4, 6, 8), shape=(16, 15)), (240,)),
    (cnn(shape=(2, 6, 5)), (60,)),
]


def sized(kind, dim, hidden_dim):
    sizes = {"dim": dim, "hidden_dim": hidden_dim, "dropout": 0.2, "feature_norm": "fusion"}
    if kind == "TransformerBase":
        sizes |= {"num_heads": 2, "num_layers": hidden_dim % 3 + 1}
    if kind == "productOfExperts":
        sizes = {"feature_norm": "fusion"}
    return FUSIONS.find(kind)(type=kind, **sizes)


def build(experts, fusion, feature_norm, classes, attention=False):
    specs = [
        ExpertSpec(
            f"e{i}",
            expert.module,
            expert.module_args(shape),
            bp.scaler_shape(shape),
            feature_norm == "shared",
        )
        for i, (expert, shape) in enumerate(experts)
    ]
    widths = tuple(expert.input_dim(shape) for expert, shape in experts)
    args = fusion.module_args(widths, classes, attention)
    return build_network(specs, FusionSpec(fusion.module, args), num_classes=classes, seed=0)


@pytest.mark.parametrize("feature_norm", ["fusion", "shared"])
@pytest.mark.parametrize(("expert", "shape"), EXPERTS)
def test_an_experts_blueprint_is_its_state(expert, shape, feature_norm):
    expert.check(shape)
    net = build([(expert, shape)], sized("simpleAddition", 4, 4), feature_norm, 3)
    module = net.components()["experts.e0"]
    assert bp.expert_component(expert, shape, feature_norm) == of_module(module)
    assert module(torch.randn(2, *shape)).shape == (2, expert.input_dim(shape))


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(
    ("widths", "dim", "hidden_dim"),
    list(product([(4,), (4, 6), (6, 6, 5, 6)], [4, 6], [3, 8])),
)
@pytest.mark.parametrize("kind", FUSIONS.names())
def test_a_fusions_blueprint_is_its_state(kind, widths, dim, hidden_dim, attention):
    fusion = sized(kind, dim, hidden_dim)
    experts = [(mlp(hidden=(), features=width), (2,)) for width in widths]
    parts = build(experts, fusion, "fusion", 3, attention).components()
    assert bp.fusion_component(fusion, widths, 3, attention) == of_module(parts["fusion"])
    assert bp.global_head_component(fusion, 3) == of_module(parts["global_head"])
    for i, width in enumerate(widths):
        assert bp.head_component(width, 3) == of_module(parts[f"heads.e{i}"])


def test_parameters_are_counted_without_buffers():
    tensors = bp.expert_component(cnn(channels=(2,), features=3), (1, 4, 4), "shared")
    convolution, batch_norm, output, norm = 2 * 1 * 9, 2 * 2, 2 * 3 + 3, 2 * 3
    assert bp.num_parameters(tensors) == convolution + batch_norm + output + norm


def test_parameters_equal_torchs_count():
    expert, shape = mlp(hidden=(9, 5)), (11,)
    net = build([(expert, shape)], sized("boundedProduct", 4, 8), "shared", 3)
    count = sum(p.numel() for p in net.components()["experts.e0"].parameters())
    assert bp.num_parameters(bp.expert_component(expert, shape, "shared")) == count


def test_a_fusion_without_tensors_counts_zero():
    assert (
        bp.num_parameters(bp.fusion_component(sized("productOfExperts", 0, 0), (4,), 3, False)) == 0
    )


@pytest.mark.parametrize(
    ("view", "expected"), [((7,), (7,)), ((8, 9), (1, 1)), ((3, 8, 9), (3, 1, 1))]
)
def test_a_view_is_scaled_by_feature_or_by_channel(view, expected):
    assert bp.scaler_shape(view) == expected
