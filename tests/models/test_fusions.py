"""Each join against its formula by hand; missing views; attention. B batch, E experts, D width."""

import math

import pytest
import torch
import torch.nn.functional as F

from fusionrun.models.build import FusionSpec, _load
from fusionrun.models.fusions.attention import ExpertAttention
from fusionrun.models.fusions.product_of_experts import ProductOfExperts
from fusionrun.schema.fusions import FUSIONS

B, D, HIDDEN = 5, 8, 6
WIDTHS = (D, 3, 12)
E = len(WIDTHS)
WITH_AND_WITHOUT = pytest.mark.parametrize("attention", [False, True])
KINDS = [name for name in FUSIONS.names() if FUSIONS.find(name).uses_features]
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


def section(kind, **keys):
    sizes = {"dim": D, "hidden_dim": HIDDEN, "dropout": 0.2, "feature_norm": "fusion"}
    if kind == "TransformerBase":
        sizes |= {"num_heads": 4, "num_layers": 2}
    if kind == "productOfExperts":
        sizes = {"feature_norm": "fusion"}
    return FUSIONS.find(kind)(type=kind, **{**sizes, **keys})


def spec(kind, widths=WIDTHS, attention=False, **keys):
    chosen = section(kind, **keys)
    return FusionSpec(chosen.module, chosen.module_args(widths, 10, attention))


def build(kind, widths=WIDTHS, attention=False, **keys):
    chosen = spec(kind, widths, attention, **keys)
    fusion = _load(chosen.module)(**chosen.args)
    if kind != "productOfExperts":
        # Off their neutral start, so that a norm left out is seen.
        torch.nn.init.normal_(fusion.norm.weight, 1, 0.3)
        torch.nn.init.normal_(fusion.norm.bias, 0, 0.3)
    return fusion.eval()


def features(widths=WIDTHS):
    return [torch.randn(B, width, requires_grad=True) for width in widths]


def normed(fusion, rows):
    """f_i as the contract says it: projected where the width differs, a LayerNorm each."""
    out = []
    for i, row in enumerate(rows):
        if row.shape[1] != D:
            row = F.linear(row, *fusion.projections[str(i)].parameters())
        out.append(F.layer_norm(row, (D,), fusion.norm.weight[i], fusion.norm.bias[i]))
    return out


def behind(fusion, joined):
    hidden = (joined @ fusion.hidden.weight.T + fusion.hidden.bias).clamp(min=0)
    return hidden @ fusion.output.weight.T + fusion.output.bias


FORMULAS = {
    "multiplicative": lambda fusion, f: f[0] * f[1] * f[2],
    "multiplicativeAddition": lambda fusion, f: f[0] * f[1] * f[2] + f[0] + f[1] + f[2],
    "multiplicativeShifted": lambda fusion, f: (1 + f[0]) * (1 + f[1]) * (1 + f[2]),
    "simpleAddition": lambda fusion, f: f[0] + f[1] + f[2],
    "concatenation": lambda fusion, f: torch.cat(f, 1),
    "boundedProduct": lambda fusion, f: math.prod(
        1 + torch.tanh(x @ w.T) for x, w in zip(f, fusion.factors, strict=True)
    ),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_join_is_its_formula(kind):
    fusion, rows = build(kind), features()
    expected = behind(fusion, FORMULAS[kind](fusion, normed(fusion, rows)))
    torch.testing.assert_close(fusion(rows), expected)


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_missing_view_is_the_neutral_element(kind):
    fusion, rows = build(kind), features()
    f = normed(fusion, rows)
    zero, one = torch.zeros(B, D), torch.ones(B, D)
    expected = {
        "multiplicative": lambda: f[0] * f[2],
        "multiplicativeAddition": lambda: f[0] * f[2] + f[0] + f[2],
        "multiplicativeShifted": lambda: (1 + f[0]) * one * (1 + f[2]),
        "simpleAddition": lambda: f[0] + f[2],
        "concatenation": lambda: torch.cat([f[0], zero, f[2]], 1),
        "boundedProduct": lambda: (
            (1 + torch.tanh(f[0] @ fusion.factors[0].T))
            * (1 + torch.tanh(f[2] @ fusion.factors[2].T))
        ),
    }[kind]()
    present = torch.tensor([True, False, True]).expand(B, E)
    torch.testing.assert_close(fusion(rows, present), behind(fusion, expected))


def test_transformer_is_an_encoder_over_tokens_then_the_mean():
    fusion, rows = build("TransformerBase", attention=True), features()
    x = torch.stack(normed(fusion, rows), 1) + fusion.embedding
    for layer in fusion.layers:
        x = x + attention_by_hand(layer.attention, layer.attention_norm(x), heads=4)
        x = x + layer.contract(layer.expand(layer.feed_forward_norm(x)).clamp(min=0))
    expected = behind(fusion, fusion.encoder_norm(x).mean(1))
    torch.testing.assert_close(fusion(rows), expected)


def attention_by_hand(attention, x, heads):
    """Softmax(Q Kᵀ / √d) V, head by head."""
    query, key, value = attention.qkv(x).chunk(3, -1)
    d = x.shape[-1] // heads
    out = []
    for h in range(heads):
        q, k, v = (t[..., h * d : (h + 1) * d] for t in (query, key, value))
        out.append((q @ k.transpose(1, 2) / d**0.5).softmax(-1) @ v)
    return attention.output(torch.cat(out, -1))


def test_attention_equals_torchs_own():
    ours, theirs = ExpertAttention(D, 4), torch.nn.MultiheadAttention(D, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.output.weight)
        theirs.out_proj.bias.copy_(ours.output.bias)
    x = torch.randn(B, E, D)
    torch.testing.assert_close(ours(x, None), theirs(x, x, x)[0])


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="num_heads: got 3, expected a number that divides 8"):
        build("TransformerBase", attention=True, num_heads=3)


def test_a_missing_token_is_as_if_it_were_not_there():
    three, rows = build("TransformerBase", (D, D, D), attention=True), features((D, D, D))
    two = build("TransformerBase", (D, D), attention=True)
    kept = {"norm.weight", "norm.bias", "embedding"}
    state = {k: v[[0, 2]] if k in kept else v for k, v in three.state_dict().items()}
    two.load_state_dict(state)
    present = torch.tensor([True, False, True]).expand(B, E)
    torch.testing.assert_close(three(rows, present), two([rows[0], rows[2]]))


def tokens_influence(fusion):
    """(E, E): whether token j before the encoder changes token i behind it."""
    x = torch.randn(1, E, D, requires_grad=True)
    encoded = fusion.encode(x, None)[0].square().sum(-1)
    rows = [torch.autograd.grad(out, x, retain_graph=True)[0][0].abs().sum(-1) for out in encoded]
    return torch.stack(rows) > 0


def test_without_cross_expert_attention_no_token_sees_another():
    fusion = build("TransformerBase", attention=False)
    assert torch.equal(tokens_influence(fusion), torch.eye(E, dtype=torch.bool))


def test_with_cross_expert_attention_every_token_sees_every_other():
    assert tokens_influence(build("TransformerBase", attention=True)).all()


def test_the_encoder_tells_experts_apart():
    fusion = build("TransformerBase", (D, D), attention=True)
    torch.nn.init.ones_(fusion.norm.weight)
    torch.nn.init.zeros_(fusion.norm.bias)
    a, b = features((D, D))
    assert not torch.allclose(fusion([a, b]), fusion([b, a]))


def test_cross_expert_attention_is_one_residual_layer_before_the_join():
    fusion, rows = build("simpleAddition", attention=True), features()
    x = torch.stack(normed(fusion, rows), 1)
    x = x + attention_by_hand(fusion.attention, x, heads=8)
    torch.testing.assert_close(fusion(rows), behind(fusion, x.sum(1)))


@EACH_KIND
@WITH_AND_WITHOUT
def test_all_views_present_is_the_same_as_no_mask(kind, attention):
    fusion, rows = build(kind, attention=attention), features()
    present = torch.ones(B, E, dtype=torch.bool)
    torch.testing.assert_close(fusion(rows, present), fusion(rows))


def gradients(fusion, rows, present):
    """Output and every gradient, with dropout drawn alike each time."""
    torch.manual_seed(1)
    wanted = [*rows, *fusion.parameters()]
    out = fusion(rows, present)
    return [out, *torch.autograd.grad(out.square().sum(), wanted)]


@EACH_KIND
@WITH_AND_WITHOUT
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
def test_a_missing_view_changes_neither_output_nor_gradients(kind, attention, training, junk):
    fusion, rows = build(kind, attention=attention).train(training), features()
    present = torch.rand(B, E) > 0.5
    present[0], present[1] = False, True
    spoilt = [r.detach().clone() for r in rows]
    for i, row in enumerate(spoilt):
        row[~present[:, i]] = junk
        row.requires_grad_()
    pairs = zip(gradients(fusion, rows, present), gradients(fusion, spoilt, present), strict=True)
    for clean, dirty in pairs:
        assert dirty.isfinite().all()
        assert torch.equal(clean, dirty)


@EACH_KIND
@WITH_AND_WITHOUT
def test_a_sample_without_any_view_is_finite(kind, attention):
    fusion = build(kind, attention=attention)
    out = fusion(features(), torch.zeros(B, E, dtype=torch.bool))
    assert out.isfinite().all()
    torch.testing.assert_close(out, out[:1].expand(B, D))


@EACH_KIND
@WITH_AND_WITHOUT
def test_every_parameter_gets_a_gradient(kind, attention):
    # A network wide enough that no ReLU cuts a whole parameter off.
    fusion = build(kind, attention=attention, hidden_dim=64)
    fusion(features()).square().sum().backward()
    flat = [name for name, p in fusion.named_parameters() if p.grad is None or not p.grad.any()]
    assert flat == []


@EACH_KIND
def test_the_fused_vector_is_as_wide_as_dim(kind):
    assert build(kind, hidden_dim=3)(features()).shape == (B, D)


@EACH_KIND
def test_one_expert_alone_can_be_fused(kind):
    assert build(kind, (3,), attention=True)(features((3,))).shape == (B, D)


@EACH_KIND
def test_dropout_acts_behind_the_join_in_training_only(kind):
    fusion, rows = build(kind, dropout=0.5), features()
    assert torch.equal(fusion(rows), fusion(rows))
    fusion.train()
    assert not torch.equal(fusion(rows), fusion(rows))


@EACH_KIND
@WITH_AND_WITHOUT
def test_bfloat16_autocast_is_supported(kind, attention):
    fusion, rows = build(kind, attention=attention), features()
    present = torch.rand(B, E) > 0.3
    with torch.autocast("cpu", torch.bfloat16):
        out = fusion(rows, present)
    torch.testing.assert_close(out.float(), fusion(rows, present), atol=0.2, rtol=0.1)


def test_the_product_has_the_right_gradient_at_zero():
    from fusionrun.models.fusions.base import product

    x = torch.tensor([[[0.0, 2.0], [3.0, 0.0], [5.0, 0.0]]], requires_grad=True)
    product(x).sum().backward()
    assert x.grad.tolist() == [[[15.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]


def test_bounded_factors_keep_a_product_of_many_experts_finite():
    widths = (D,) * 64
    fusion = build("boundedProduct", widths)
    assert fusion([1e3 * torch.randn(B, D) for _ in widths]).isfinite().all()


def test_product_of_experts_is_the_sum_of_log_probabilities():
    z = torch.randn(E, B, 4)
    expected = sum(row.exp().div(row.exp().sum(-1, keepdim=True)).log() for row in z)
    torch.testing.assert_close(ProductOfExperts()(z), expected)


def test_product_of_experts_has_no_parameters():
    assert ProductOfExperts().state_dict() == {}


def test_product_of_experts_leaves_a_missing_view_out():
    z = torch.randn(E, B, 4)
    present = torch.tensor([True, False, True]).expand(B, E)
    torch.testing.assert_close(ProductOfExperts()(z, present), ProductOfExperts()(z[[0, 2]]))


def test_product_of_experts_without_any_view_is_even():
    out = ProductOfExperts()(torch.randn(E, B, 4), torch.zeros(B, E, dtype=torch.bool))
    assert torch.equal(out, torch.zeros(B, 4))


def test_product_of_experts_takes_no_gradient_from_a_missing_view():
    z = torch.randn(E, B, 4)
    z[1] = float("nan")
    z.requires_grad_()
    present = torch.tensor([True, False, True]).expand(B, E)
    ProductOfExperts()(z, present).square().sum().backward()
    assert z.grad.isfinite().all()
    assert not z.grad[1].any()
