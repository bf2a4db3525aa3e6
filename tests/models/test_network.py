"""The network's wiring, its components, and how their first weights are drawn."""

import pytest
import torch
from torch import nn

from fusionrun.errors import UserError
from fusionrun.models.build import ExpertSpec, FusionSpec, build_network, component_seed
from fusionrun.models.network import FusionNetwork
from fusionrun.schema.experts import CNN, MLP
from fusionrun.schema.fusions import FUSIONS

CLASSES, B = 4, 6
SMALL_MLP = MLP(model="mlp", view="v", hidden=(5,), features=8)
SMALL_CNN = CNN(model="cnn", view="i", channels=(3,), features=6)
KINDS = pytest.mark.parametrize("kind", FUSIONS.names())


def expert_spec(name, expert, shape, norm=False):
    scaler_shape = shape if len(shape) == 1 else (*shape[:-2], 1, 1)
    return ExpertSpec(name, expert.module, expert.module_args(shape), scaler_shape, norm)


def specs(norm=False):
    return [
        expert_spec("vector", SMALL_MLP, (7,), norm),
        expert_spec("image", SMALL_CNN, (2, 4, 4), norm),
    ]


def fusion_spec(kind, widths=(8, 6), attention=False):
    sizes = {} if kind == "productOfExperts" else {"dim": 8, "hidden_dim": 8, "dropout": 0.2}
    if kind == "TransformerBase":
        sizes |= {"num_heads": 2, "num_layers": 1}
    section = FUSIONS.find(kind)(type=kind, **sizes)
    return FusionSpec(section.module, section.module_args(widths, CLASSES, attention))


def network(kind="concatenation", seed=0, norm=False, experts=None):
    return build_network(experts or specs(norm), fusion_spec(kind), num_classes=CLASSES, seed=seed)


def batch():
    return [torch.randn(B, 7), torch.randn(B, 2, 4, 4)]


@KINDS
def test_both_paths_give_logits(kind):
    out = network(kind)(batch())
    assert out.expert_logits.shape == (2, B, CLASSES)
    assert out.global_logits.shape == (B, CLASSES)


def test_components_are_named_and_ordered_as_in_the_contract():
    assert list(network().components()) == [
        "experts.vector",
        "experts.image",
        "heads.vector",
        "heads.image",
        "fusion",
        "global_head",
    ]


def test_components_hold_every_parameter_once():
    net = network("TransformerBase")
    parts = [id(p) for c in net.components().values() for p in c.parameters()]
    assert sorted(parts) == sorted(id(p) for p in net.parameters())


@pytest.mark.parametrize("name", ["keys", "train", "forward", "type", "0", "a-b"])
def test_an_expert_may_be_called_anything(name):
    net = network(experts=[expert_spec(name, SMALL_MLP, (7,)), specs()[1]])
    assert f"experts.{name}" in net.components()


def test_heads_for_other_experts_are_refused():
    net = network()
    with pytest.raises(ValueError, match=r"heads: got \['x'\], expected \['vector', 'image'\]"):
        FusionNetwork(
            dict(zip(net.names, net.experts, strict=True)),
            {"x": nn.Linear(8, 4)},
            net.fusion,
            net.global_head,
        )


def test_each_head_reads_its_experts_features():
    net, x = network(norm=True).eval(), batch()
    logits = net(x).expert_logits
    for i, (expert, head) in enumerate(zip(net.experts, net.heads, strict=True)):
        assert torch.equal(logits[i], head(expert.encode(x[i])))


def test_the_global_head_reads_the_fused_vector():
    net, x = network().eval(), batch()
    fused = net.fusion([e.encode(v) for e, v in zip(net.experts, x, strict=True)])
    assert torch.equal(net(x).global_logits, net.global_head(fused))


def test_product_of_experts_joins_the_heads_logits():
    net, x = network("productOfExperts").eval(), batch()
    out = net(x)
    torch.testing.assert_close(out.global_logits, out.expert_logits.log_softmax(-1).sum(0))


def test_product_of_experts_trains_the_heads_through_the_global_path():
    net = network("productOfExperts")
    net(batch()).global_logits.square().sum().backward()
    assert all(head.weight.grad.any() for head in net.heads)


def test_raw_views_are_scaled_by_their_experts():
    net, raw = network(), batch()
    net.experts[0].scaler.mean.fill_(1.0)
    scaled = net.scale(raw)
    assert torch.equal(scaled[0], raw[0] - 1)
    assert torch.equal(scaled[1], raw[1])


@KINDS
@pytest.mark.parametrize("training", [False, True])
def test_what_stands_in_a_missing_view_changes_nothing(kind, training):
    """The image expert has a BatchNorm, which would spread a missing view over the batch."""
    net, x = network(kind, norm=True).train(training), batch()
    present = torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0], [1, 0], [1, 1]]).bool()
    spoilt = [v.clone() for v in x]
    for i, view in enumerate(spoilt):
        view[~present[:, i]] = torch.nan
    for clean, dirty in zip(run(net, x, present), run(net, spoilt, present), strict=True):
        assert dirty.isfinite().all()
        assert torch.equal(clean, dirty)


def run(net, x, present):
    torch.manual_seed(1)
    out = net(x, present)
    loss = out.expert_logits.square().sum() + out.global_logits.square().sum()
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    return [*out, *gradients]


@KINDS
def test_every_parameter_gets_a_gradient(kind):
    net = network(kind, norm=True)
    out = net([torch.randn(64, 7), torch.randn(64, 2, 4, 4)])
    (out.expert_logits.square().sum() + out.global_logits.square().sum()).backward()
    flat = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert flat == []


def weights(net):
    return {
        f"{component}/{name}": tensor
        for component, module in net.components().items()
        for name, tensor in module.state_dict().items()
    }


def same(a, b):
    return {key for key in a if key in b and torch.equal(a[key], b[key])}


def test_one_seed_gives_one_network():
    a, b = weights(network(seed=3)), weights(network(seed=3))
    assert same(a, b) == set(a)


def test_another_seed_gives_other_weights_in_every_component():
    changed = set(a := weights(network(seed=3))) - same(a, weights(network(seed=4)))
    assert {key.partition("/")[0] for key in changed} == set(network().components())


def test_another_expert_leaves_the_first_weights_of_the_others():
    more = [expert_spec("extra", SMALL_MLP, (9,)), *specs()]
    net = build_network(more, fusion_spec("simpleAddition", (8, 8, 6)), num_classes=CLASSES, seed=0)
    a, b = weights(network("simpleAddition")), weights(net)
    kept = {key for key in a if not key.startswith("fusion/")}
    assert kept <= same(a, b)


def test_two_experts_of_one_size_start_differently():
    net = build_network(
        [expert_spec(n, SMALL_MLP, (7,)) for n in ("a", "b")],
        fusion_spec("simpleAddition", (8, 8)),
        num_classes=CLASSES,
        seed=0,
    )
    a, b = (e.backbone.layers[0].weight for e in net.experts)
    assert not torch.equal(a, b)


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    network()
    assert torch.equal(torch.get_rng_state(), before)


def test_component_seeds_are_what_they_always_were():
    """Pinned: a change would alter every run's first weights."""
    assert component_seed(0, "fusion") == 5466141637149299570
    assert component_seed(0, "experts.a") != component_seed(1, "experts.a")


def test_a_module_that_is_not_installed_is_named():
    with pytest.raises(UserError, match=r"cannot load 'no_such_package\.x:Y'.*install the package"):
        build_network(specs(), FusionSpec("no_such_package.x:Y"), num_classes=CLASSES, seed=0)


def test_the_components_tensor_keys_are_frozen():
    """What a saved component contains: a change breaks every component saved before."""
    net = build_network(
        specs(norm=True),
        fusion_spec("TransformerBase", attention=True),
        num_classes=CLASSES,
        seed=0,
    )
    keys = {name: set(module.state_dict()) for name, module in net.components().items()}
    assert keys == FROZEN


FROZEN = {
    "experts.vector": {
        "scaler.mean",
        "scaler.std",
        "backbone.layers.0.weight",
        "backbone.layers.0.bias",
        "backbone.layers.1.weight",
        "backbone.layers.1.bias",
        "norm.weight",
        "norm.bias",
    },
    "experts.image": {
        "scaler.mean",
        "scaler.std",
        "backbone.convs.0.weight",
        "backbone.norms.0.weight",
        "backbone.norms.0.bias",
        "backbone.norms.0.running_mean",
        "backbone.norms.0.running_var",
        "backbone.norms.0.num_batches_tracked",
        "backbone.output.weight",
        "backbone.output.bias",
        "norm.weight",
        "norm.bias",
    },
    "heads.vector": {"weight", "bias"},
    "heads.image": {"weight", "bias"},
    "fusion": {
        "projections.1.weight",
        "projections.1.bias",
        "norm.weight",
        "norm.bias",
        "embedding",
        "layers.0.attention_norm.weight",
        "layers.0.attention_norm.bias",
        "layers.0.attention.qkv.weight",
        "layers.0.attention.qkv.bias",
        "layers.0.attention.output.weight",
        "layers.0.attention.output.bias",
        "layers.0.feed_forward_norm.weight",
        "layers.0.feed_forward_norm.bias",
        "layers.0.expand.weight",
        "layers.0.expand.bias",
        "layers.0.contract.weight",
        "layers.0.contract.bias",
        "encoder_norm.weight",
        "encoder_norm.bias",
        "hidden.weight",
        "hidden.bias",
        "output.weight",
        "output.bias",
    },
    "global_head": {"weight", "bias"},
}


def test_an_exported_vector_expert_is_ten_lines_of_torch():
    """What the keys promise to someone who has only the file."""
    net = network()
    expert = net.experts[0]
    t, raw = expert.state_dict(), torch.randn(3, 7)
    x = (raw - t["scaler.mean"]) / t["scaler.std"]
    for i in range(2):
        x = torch.relu(x @ t[f"backbone.layers.{i}.weight"].T + t[f"backbone.layers.{i}.bias"])
    torch.testing.assert_close(expert(raw), x)
