"""The published backbones: their sizes against the publications, their tensors against torch."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fusionrun.blueprint import Tensor, num_parameters
from fusionrun.models.experts import Backbone, Expert
from fusionrun.schema.backbones import Published
from fusionrun.schema.experts import EXPERTS

DTYPES = {torch.float32: "F32", torch.int64: "I64"}
NAMES = ["resnet18", "resnext29", "densenet121", "wideresnet"]
SMALL: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "resnext29": {"cardinality": 2, "width": 4},
    "densenet121": {"growth": 4},
    "wideresnet": {"depth": 10, "width": 1},
}


def expert(name: str, **keys: Any) -> Published:
    kind = EXPERTS.find(name)
    assert kind is not None
    return kind.model_validate({"model": name, "view": "v", **keys})  # type: ignore[return-value]


def module(section: Published, shape: tuple[int, ...], device: str = "cpu") -> Backbone:
    assert section.module is not None
    with torch.device(device):
        built: Backbone = resolve_name(section.module)(**section.module_args(shape))
    return built


# With a classifier of ten classes on three channels. The papers' tables: ResNeXt's 7 (34.4 and
# 68.1 million), WRN's 4 (8.9, 11.0 and 36.5 million). To the digit: resnet18 and densenet121 are
# torchvision's 11,689,512 and 7,978,856 with the stem and the classifier exchanged for CIFAR's.
@pytest.mark.parametrize(
    ("name", "keys", "published"),
    [
        ("resnet18", {}, 11_173_962),
        ("resnext29", {}, 34_426_698),
        ("resnext29", {"cardinality": 16}, 68_155_210),
        ("densenet121", {}, 6_956_298),
        ("wideresnet", {}, 36_479_194),
        ("wideresnet", {"depth": 40, "width": 4}, 8_949_210),
        ("wideresnet", {"depth": 16, "width": 8}, 10_961_370),
    ],
)
def test_the_parameters_are_those_of_the_publication(
    name: str, keys: dict[str, Any], published: int
) -> None:
    section = expert(name, **keys)
    head = 10 * section.input_dim((3, 32, 32)) + 10
    assert num_parameters(section.blueprint((3, 32, 32))) + head == published


def test_torchvisions_counts_are_ours_but_for_stem_and_classifier() -> None:
    small_stem, imagenet_stem = 3 * 64 * 3 * 3, 3 * 64 * 7 * 7
    own = num_parameters(expert("resnet18").blueprint((3, 32, 32)))
    assert own == 11_689_512 - (512 * 1000 + 1000) - imagenet_stem + small_stem
    own = num_parameters(expert("densenet121").blueprint((3, 32, 32)))
    assert own == 7_978_856 - (1024 * 1000 + 1000) - imagenet_stem - 2 * 64 + small_stem


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        *((name, {}) for name in NAMES),
        *SMALL.items(),
        ("resnext29", {"cardinality": 16, "width": 64}),
        ("densenet121", {"growth": 5}),
        ("wideresnet", {"depth": 16, "width": 3, "dropout": 0.3}),
    ],
)
@pytest.mark.parametrize("shape", [(28, 28), (3, 32, 32)])
def test_the_blueprint_is_the_modules_state(
    name: str, keys: dict[str, Any], shape: tuple[int, ...]
) -> None:
    section = expert(name, **keys)
    built = module(section, shape, "meta")
    trainable = {name for name, _ in built.named_parameters()}
    assert section.blueprint(shape) == {
        name: Tensor(tuple(tensor.shape), DTYPES[tensor.dtype], name in trainable)
        for name, tensor in built.state_dict().items()
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 9, 17), "smallest"])
def test_any_image_gives_input_dim_features(name: str, shape: Any) -> None:
    section = expert(name, **SMALL[name])
    if shape == "smallest":
        shape = (2, 2**section.halvings, 2**section.halvings)
    section.check(shape)
    features = module(section, shape).eval()(torch.randn(2, *shape))
    assert features.shape == (2, section.input_dim(shape))
    assert features.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_cannot_be_halved_is_told(name: str) -> None:
    section = expert(name)
    least = 2**section.halvings
    with pytest.raises(
        ValueError, match=rf"at least {least} × {least}: {name} halves it .* 3 × 40"
    ):
        section.check((3, 3, 40))


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_with_a_shape_is_an_image(name: str) -> None:
    section = expert(name, shape=(16, 15), **SMALL[name])
    section.check((240,))
    assert section.module_args((240,))["input_shape"] == (1, 16, 15)


@pytest.mark.parametrize("depth", [9, 4, 29])
def test_a_depth_that_no_wide_resnet_has_is_told(depth: int) -> None:
    with pytest.raises(ValidationError, match="6 n \\+ 4 layers: 10, 16, 22, 28"):
        expert("wideresnet", depth=depth)


def test_a_wide_resnets_dropout_acts_in_training_only() -> None:
    section = expert("wideresnet", depth=10, width=1, dropout=0.5)
    net, x = module(section, (8, 8)), torch.randn(4, 1, 8, 8)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = module(expert(name, **SMALL[name]), (16, 16))
    net(torch.randn(2, 1, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


# --- the order of an image's numbers in memory ------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["cnn", *NAMES])
def test_channels_last_changes_features_and_gradients_by_rounding_alone(
    name: str, channels: int
) -> None:
    section, shape = expert(name, **SMALL.get(name, {})), (channels, 16, 16)
    one, other = (
        Expert(module(section, shape).double(), scaler_shape=(), norm=False, channels_last=last)
        for last in (False, True)
    )
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, *shape, dtype=torch.float64)
    plain, last = one.encode(x), other.encode(x)
    torch.testing.assert_close(last, plain)
    for features in (plain, last):
        features.square().sum().backward()
    for own, same in zip(one.parameters(), other.parameters(), strict=True):
        assert own.grad is not None
        torch.testing.assert_close(same.grad, own.grad)


def test_a_convolution_of_one_channel_keeps_to_channels_last() -> None:
    seen = []
    net = module(expert("resnet18"), (1, 8, 8)).eval()
    net.conv1.register_forward_hook(lambda *call: seen.append(call[2].stride()))
    for last in (False, True):
        Expert(net, scaler_shape=(), norm=False, channels_last=last).encode(torch.zeros(2, 1, 8, 8))
    assert seen == [(64 * 64, 64, 8, 1), (64 * 64, 1, 8 * 64, 64)]
