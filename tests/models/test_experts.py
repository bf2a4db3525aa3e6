"""Backbones, scaling, and the expert around them. B batch, F features."""

import pytest
import torch
import torch.nn.functional as F

from fusionrun.models.experts import CNN, MLP, Expert
from fusionrun.models.scaler import Scaler

MLP_SIZES = {"hidden": (5, 4), "features": 3, "dropout": 0.0, "activation": "relu"}


def mlp(**keys):
    return MLP(**{"input_shape": (6,), **MLP_SIZES, **keys})


def cnn(**keys):
    sizes = {"input_shape": (2, 8, 8), "channels": (4, 5), "features": 3, "dropout": 0.0}
    return CNN(**{**sizes, **keys})


def test_a_new_scaler_changes_nothing():
    x = torch.randn(4, 6)
    assert torch.equal(Scaler((6,))(x), x)


def test_a_scaler_normalises_each_feature():
    scaler, x = Scaler((2,)), torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    scaler.mean.copy_(torch.tensor([2.0, 20.0]))
    scaler.std.copy_(torch.tensor([1.0, 10.0]))
    assert scaler(x).tolist() == [[-1.0, -1.0], [1.0, 1.0]]


def test_a_scaler_normalises_each_channel():
    scaler = Scaler((2, 1, 1))
    scaler.mean.copy_(torch.tensor([[[1.0]], [[2.0]]]))
    assert scaler(torch.zeros(1, 2, 3, 3)).mean((0, 2, 3)).tolist() == [-1.0, -2.0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64])
def test_a_scaler_gives_float32(dtype):
    assert Scaler((6,))(torch.ones(2, 6, dtype=dtype)).dtype == torch.float32


def test_a_scaler_has_nothing_to_train():
    assert not list(Scaler((6,)).parameters())


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_an_mlp_is_linear_and_activation_for_every_layer(activation):
    net, x, act = mlp(activation=activation), torch.randn(4, 6), getattr(F, activation)
    expected = x
    for layer in net.layers:
        expected = act(expected @ layer.weight.T + layer.bias)
    torch.testing.assert_close(net(x), expected)


def test_an_mlp_without_hidden_layers_is_one_layer():
    assert len(mlp(hidden=()).layers) == 1


def test_dropout_acts_in_training_only():
    net, x = mlp(dropout=0.5), torch.randn(64, 6)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_features_themselves_are_not_dropped():
    net = mlp(hidden=(), dropout=0.9).train()
    x = torch.randn(8, 6)
    assert torch.equal(net(x), net(x))


def test_a_cnn_is_blocks_then_a_mean_then_a_layer():
    net, x = cnn().eval(), torch.randn(4, 2, 8, 8)
    expected = x
    for conv, norm in zip(net.convs, net.norms, strict=True):
        expected = F.conv2d(expected, conv.weight, padding=1)
        expected = expected * norm.weight.view(1, -1, 1, 1) / (1 + norm.eps) ** 0.5
        expected = F.max_pool2d(expected.clamp(min=0), 2)
    assert expected.shape == (4, 5, 2, 2)
    expected = (expected.mean((2, 3)) @ net.output.weight.T + net.output.bias).clamp(min=0)
    torch.testing.assert_close(net(x), expected)


def test_a_cnn_trains_on_a_batch_of_one_at_its_smallest_image():
    assert cnn(input_shape=(2, 4, 4)).train()(torch.randn(1, 2, 4, 4)).isfinite().all()


def test_a_cnn_drops_before_the_last_layer():
    net, x = cnn(dropout=0.5).eval(), torch.randn(64, 2, 8, 8)
    still = net(x)
    net.dropout = 0.0
    assert torch.equal(net(x), still)
    net.train()
    net.dropout = 0.5
    assert not torch.equal(net(x), net(x))


def test_an_expert_on_raw_input_scales_and_encodes():
    expert = Expert(mlp(), scaler_shape=(6,), norm=False).eval()
    expert.scaler.mean.fill_(2.0)
    expert.scaler.std.fill_(4.0)
    raw = torch.randn(4, 6)
    torch.testing.assert_close(expert(raw), expert.backbone((raw - 2) / 4))
    assert torch.equal(expert(raw), expert.encode(expert.scale(raw)))


def test_an_expert_gives_a_vector_its_image_shape():
    expert = Expert(cnn(input_shape=(1, 8, 4)), scaler_shape=(32,), norm=False)
    raw = torch.arange(64.0).view(2, 32)
    assert torch.equal(expert.scale(raw), raw.view(2, 1, 8, 4))


def test_an_expert_gives_a_grey_image_its_channel():
    expert = Expert(cnn(input_shape=(1, 8, 8)), scaler_shape=(1, 1), norm=False)
    assert expert.scale(torch.randn(3, 8, 8)).shape == (3, 1, 8, 8)


def test_an_mlp_expert_reads_an_image_in_one_row():
    expert = Expert(mlp(input_shape=(48,)), scaler_shape=(3, 1, 1), norm=False)
    assert expert(torch.randn(2, 3, 4, 4)).shape == (2, 3)


def test_a_shared_norm_normalises_the_features():
    expert = Expert(mlp(features=16), scaler_shape=(6,), norm=True)
    features = expert(torch.randn(4, 6) * 10)
    torch.testing.assert_close(features.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.var(1, unbiased=False), torch.ones(4), atol=1e-2, rtol=0)
