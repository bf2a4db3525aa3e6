"""BatchNorm by the whole batch against torch's own, on one rank. Two ranks: `test_ranks.py`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fusionrun.models.densenet import DenseNet
from fusionrun.schema.backbones import DenseNet121
from fusionrun.train.batch_statistics import OneRow, WholeBatch, has_batch_norm
from fusionrun.train.ranks import SINGLE

NORMS = {
    "1d": (nn.BatchNorm1d(3), (6, 3)),
    "2d": (nn.BatchNorm2d(3), (6, 3, 4, 5)),
    "no affine": (nn.BatchNorm2d(3, affine=False), (6, 3, 2, 2)),
    "cumulative": (nn.BatchNorm1d(3, momentum=None), (6, 3)),
    "no statistics": (nn.BatchNorm1d(3, track_running_stats=False), (6, 3)),
    "wide eps": (nn.BatchNorm1d(3, eps=0.3, momentum=0.7), (6, 3)),
}


def whole(x: Tensor) -> WholeBatch:
    return WholeBatch(SINGLE, len(x), len(x), len(x))


@pytest.mark.parametrize("kind", NORMS)
def test_output_gradients_and_running_statistics_are_torchs(kind: str) -> None:
    torch.manual_seed(0)
    norm, shape = copy.deepcopy(NORMS[kind][0]).double(), NORMS[kind][1]
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    twin = copy.deepcopy(norm)
    x = torch.randn(shape, dtype=torch.float64) * 3 + 5
    upstream = torch.randn(shape, dtype=torch.float64)
    found = []
    for module, context in ((norm, whole(x)), (twin, torch.enable_grad())):
        given = x.clone().requires_grad_()
        with context:
            for _ in range(2):
                out = module(given)
            out.backward(upstream)
        found.append([out, given.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_float32_with_a_mean_far_from_zero_keeps_its_precision() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3) + 1000
    norm = nn.BatchNorm1d(3)
    with whole(x):
        out = norm(x)
    exact = copy.deepcopy(norm).double()(x.double())
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-3)


def test_half_precision_comes_back_as_it_came() -> None:
    x = torch.randn(8, 3, 4, 4)
    norm = nn.BatchNorm2d(3)
    with whole(x), torch.autocast("cpu", dtype=torch.bfloat16):
        out = norm(x.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), copy.deepcopy(norm)(x), rtol=0.02, atol=0.05)


def test_evaluation_is_torchs_own() -> None:
    x, norm = torch.randn(4, 3), nn.BatchNorm1d(3).eval()
    with whole(x):
        assert torch.equal(norm(x), norm(x))
        inside = norm(x)
    assert torch.equal(inside, norm(x))


def test_a_single_value_a_channel_gives_the_shift_and_leaves_the_statistics() -> None:
    norm = nn.BatchNorm1d(3)
    nn.init.constant_(norm.bias, 2.0)
    x = torch.randn(1, 3, requires_grad=True)
    with whole(x):
        out = norm(x)
    out.sum().backward()
    assert out.tolist() == [[2.0, 2.0, 2.0]]
    assert x.grad is not None
    assert not x.grad.any()
    assert norm.running_mean is not None
    assert not norm.running_mean.any()


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 4, 5)])
def test_a_lone_row_is_normalised_as_by_the_whole_batch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    twin = copy.deepcopy(norm)
    x = torch.randn(shape, dtype=torch.float64)
    found = []
    for module, context in ((norm, OneRow()), (twin, whole(x))):
        given = x.clone().requires_grad_()
        with context:
            out = module(given)
        out.square().sum().backward()
        found.append([out, given.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_a_norm_is_found_anywhere_in_a_network() -> None:
    assert has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2))))
    assert not has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))


def test_a_lone_image_that_is_halved_to_a_pixel_can_be_trained_on() -> None:
    section = DenseNet121(model="densenet121", view="v", growth=2)
    net = DenseNet(**section.module_args((8, 8)))
    x = torch.randn(1, 1, 8, 8)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net(x)
    with whole(x):
        net(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
