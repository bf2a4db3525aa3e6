"""Whether a file's tensors are an expert's: strict, all faults at once, classifiers aside."""

from __future__ import annotations

import pytest

from fusionrun.errors import ComponentError
from fusionrun.store.fit import Fit, Kind, check_fit, fit_backbone
from fusionrun.store.safetensors_header import Header, TensorInfo

EXPERT: dict[str, Kind] = {
    "scaler.mean": ("F32", (3, 1, 1)),
    "backbone.conv1.weight": ("F32", (8, 3, 3, 3)),
    "backbone.bn1.weight": ("F32", (8,)),
    "backbone.bn1.bias": ("F32", (8,)),
}


def header(**tensors: tuple[str, tuple[int, ...]]) -> Header:
    return of({name.replace("__", "."): kind for name, kind in tensors.items()})


def of(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Header:
    infos = {name: TensorInfo(dtype, shape, (0, 0)) for name, (dtype, shape) in tensors.items()}
    return Header(infos, {}, 0)


def fit(found: Header) -> Fit:
    return fit_backbone(found, EXPERT, "f", prefix="backbone.", classifier=("fc",))


def bare(**others: tuple[str, tuple[int, ...]]) -> Header:
    own = {n.removeprefix("backbone."): (k[0], tuple(k[1])) for n, k in list(EXPERT.items())[1:]}
    return of(own | {name.replace("__", "."): kind for name, kind in others.items()})


def test_tensors_that_are_as_needed_fit() -> None:
    check_fit(header(w=("F32", (2, 3))), {"w": ("F32", [2, 3])}, "f")


def test_tensors_that_do_not_fit_are_all_listed() -> None:
    found = header(weigth=("F32", (2,)), b=("F32", (3,)), h=("F16", (1,)), ok=("I64", ()))
    needed: dict[str, Kind] = {
        "weight": ("F32", (2,)),
        "b": ("F32", (4,)),
        "h": ("F32", (1,)),
        "ok": ("I64", ()),
    }
    with pytest.raises(ComponentError, match=r"f\.safetensors: its tensors do not fit") as caught:
        check_fit(found, needed, "f.safetensors")
    assert str(caught.value).splitlines()[1:] == [
        "  weight is missing, F32 [2]; did you mean 'weigth'?",
        "  b is F32 [3], needed is F32 [4]",
        "  h is F16 [1], needed is F32 [1]",
        "  weigth is not known here, F32 [2]",
    ]


def test_a_file_of_quite_another_kind_shows_some_of_each_fault() -> None:
    needed: dict[str, Kind] = {f"layers.{number}.weight": ("F32", (1,)) for number in range(500)}
    found = of({f"blocks.{number}.w": ("F32", (1,)) for number in range(20)})
    with pytest.raises(ComponentError, match=r"and 492 more are missing\n") as caught:
        check_fit(found, needed, "f")
    assert str(caught.value).endswith("\n  and 12 more are not known")
    assert len(str(caught.value).splitlines()) == 1 + 9 + 9


def test_an_experts_file_is_one_as_it_is() -> None:
    assert fit(of({n: (k[0], tuple(k[1])) for n, k in EXPERT.items()})) == Fit()


def test_a_file_with_the_origins_names_is_the_backbone() -> None:
    assert fit(bare()) == Fit("backbone.")


def test_a_classifier_is_left_out_whatever_its_classes() -> None:
    found = bare(fc__weight=("F32", (1000, 8)), fc__bias=("F32", (1000,)))
    assert fit(found) == Fit("backbone.", ("fc.weight", "fc.bias"))


def test_a_name_that_only_begins_like_the_classifier_is_not_it() -> None:
    with pytest.raises(ComponentError, match=r"fc_norm\.weight is not known here"):
        fit(bare(fc_norm__weight=("F32", (8,))))


def test_a_backbone_is_strict_too() -> None:
    found = bare(bn2__weight=("F32", (8,)), fc__bias=("F16", (2,)))
    with pytest.raises(ComponentError, match=r"do not fit\n  bn2\.weight is not known") as caught:
        fit(found)
    assert "fc.bias" not in str(caught.value)


def test_a_first_convolution_for_other_channels_is_told_in_words() -> None:
    found = bare(conv1__weight=("F32", (8, 1, 3, 3)))
    expected = r"reads images of 1 channel, this expert's view has 3: name a view of 1, or other"
    with pytest.raises(ComponentError, match=expected):
        fit(found)


def test_a_later_convolution_for_other_channels_is_not_called_the_first() -> None:
    needed: dict[str, Kind] = {"conv1.weight": ("F32", (8, 3, 3, 3)), "conv2.weight": KERNEL}
    found = of({"conv1.weight": ("F32", (8, 3, 3, 3)), "conv2.weight": ("F32", (8, 4, 3, 3))})
    with pytest.raises(ComponentError, match=r"needed is F32 \[8, 8, 3, 3\]$"):
        check_fit(found, needed, "f")


KERNEL: Kind = ("F32", (8, 8, 3, 3))


def test_a_convolution_of_another_width_is_no_matter_of_channels() -> None:
    with pytest.raises(ComponentError, match=r"\[4, 3, 3, 3\], needed is F32 \[8, 3, 3, 3\]$"):
        fit(bare(conv1__weight=("F32", (4, 3, 3, 3))))
