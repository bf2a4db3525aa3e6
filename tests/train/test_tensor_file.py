"""Files of checkpoints, against those of safetensors itself."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save

from fusionrun.train.tensor_file import TensorFile

TENSORS = {
    "fusion/weight": torch.rand(3, 5),
    "experts.ü/conv": torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last),
    "half": torch.rand(7).to(torch.bfloat16),
    "half too": torch.rand(3).to(torch.float16),
    "mask": torch.tensor([True, False, True]),
    "steps": torch.tensor(3),
    "double": torch.rand(2, dtype=torch.float64),
    "none": torch.empty(0, 4),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "A": torch.arange(3, dtype=torch.int32),
}


def test_the_file_is_the_one_that_safetensors_writes() -> None:
    file = TensorFile(TENSORS)
    file.fill(TENSORS)
    assert bytes(file.content()) == save({name: t.contiguous() for name, t in TENSORS.items()})
    assert file.size == len(file.content())


def test_a_file_without_tensors_is_one_too() -> None:
    file = TensorFile({})
    file.fill({})
    assert bytes(file.content()) == save({})


def test_a_file_is_filled_in_again() -> None:
    file = TensorFile(TENSORS)
    for number in range(2):
        changed = {name: torch.full_like(tensor, number) for name, tensor in TENSORS.items()}
        assert file.fits(changed)
        file.fill(changed)
        torch.testing.assert_close(load(bytes(file.content())), changed)


def test_what_was_filled_in_stays_when_the_tensors_change() -> None:
    weight = torch.ones(3)
    file = TensorFile({"weight": weight})
    file.fill({"weight": weight})
    weight.zero_()
    assert load(bytes(file.content()))["weight"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "other",
    [{"b": torch.ones(3)}, {"a": torch.ones(4)}, {"a": torch.ones(3, dtype=torch.float64)}, {}],
    ids=["name", "shape", "type", "none"],
)
def test_other_tensors_do_not_fit(other: dict[str, torch.Tensor]) -> None:
    assert not TensorFile({"a": torch.zeros(3)}).fits(other)
