"""Augmentation that the views cannot bear is refused with its line; the screen says what is on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fusionrun.errors import RecipeError
from fusionrun.plan.augmentation import in_words
from fusionrun.plan.plan import Plan
from fusionrun.plan.screen import screen
from tests.plan.test_checks import MULTIPLICATIVE, alone, refused

PlanOf = Callable[..., Plan]
IMAGE = "experts:\n  one: {model: cnn, view: pixels, features: 8}\n"
BESIDE_A_VECTOR = f"{IMAGE}  two: {{model: mlp, view: a, features: 8}}\n"


def with_(augmentation: str) -> str:
    return f"{MULTIPLICATIVE}\naugmentation: {{{augmentation}}}"


def test_a_flip_of_vectors(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:16  augmentation.flip
          8 | augmentation: {flip: true}
            |                ^^^^
          got       flip
          expected  a view of images for flip, (channels, height, width) in the data: \
here there are a of 4, b of 12
          remove 'flip'
    """
    refused(golden, plan, with_("flip: true"))


IMAGES_ONLY = ["crop: 1", "random_erasing: {}", "randaugment: {}", "trivialaugment: true"]


@pytest.mark.parametrize("key", IMAGES_ONLY)
def test_what_is_for_images_alone(key: str, plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match=rf"a view of images for {key.partition(':')[0]}"):
        plan(with_(key))


def test_cutmix_beside_a_vector(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match=r"images of one size in all views.*a of 4; mixup mixes"):
        plan(with_("cutmix: {alpha: 1}"), experts=BESIDE_A_VECTOR)


@pytest.mark.parametrize("view", ["a", "b"])
def test_cutmix_of_vectors_alone(view: str, plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match=rf"images of one size in all views.*there are {view} of"):
        plan(with_("cutmix: {alpha: 1}"), experts=alone(f"{{model: mlp, view: {view}}}"))


def test_a_crop_that_may_leave_nothing(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:7:22  augmentation.crop
          7 | augmentation: {crop: 8}
            |                      ^
          got       8 pixels
          expected  less than 8, the least side of an image: nothing would be left
    """
    refused(golden, plan, with_("crop: 8"), experts=IMAGE)


def test_both_policies_at_once(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:7:49  augmentation.trivialaugment
          7 | augmentation: {randaugment: {}, trivialaugment: true}
            |                                                 ^^^^
          got       both randaugment and this
          expected  one of the two policies: each draws its operations from the same list
    """
    refused(golden, plan, with_("randaugment: {}, trivialaugment: true"), experts=IMAGE)


def test_a_magnitude_beyond_all(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match=r"magnitude\n.*\n.*\n  got       31\n  expected .* 30"):
        plan(with_("randaugment: {magnitude: 31}"), experts=IMAGE)


def test_dropping_the_only_view(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match=r"one view, b of 12\n.*no sample may lose its only one"):
        plan(with_("modality_dropout: 0.1"), experts=alone("{model: mlp, view: b}"))


def test_all_that_is_wrong_is_told_at_once(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match="augmentation") as caught:
        plan(with_("flip: true, cutmix: {alpha: 1}"))
    assert [p.key for p in caught.value.problems] == ["augmentation.flip", "augmentation.cutmix"]


def test_flips_beside_a_vector_and_cutmix_of_images_are_fine(plan: PlanOf) -> None:
    plan(with_("flip: true, crop: 2, modality_dropout: 0.2"), experts=BESIDE_A_VECTOR)
    plan(with_("cutmix: {alpha: 1}"), experts=IMAGE)


STRONG = (
    "crop of 4 pixels, flip, randaugment 3 × 14, random_erasing 0.3, cutmix α 1, "
    "label_smoothing 0.08"
)
BALANCED = "crop of 4 pixels, flip, random_erasing 0.25, cutmix α 1, label_smoothing 0.1"
WIDE = (
    "crop of 4 pixels, flip, trivialaugment, random_erasing 0.25, cutmix α 1, label_smoothing 0.05"
)


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        ("multiplicative", BALANCED),
        ("multiplicativeAddition", STRONG),
        ("concatenation", STRONG),
        ("TransformerBase", WIDE),
        ("simpleAddition", BALANCED),
        ("boundedProduct", BALANCED),
    ],
)
def test_the_origins_augmentation_goes_by_the_fusion_type(
    fusion: str, expected: str, plan: PlanOf
) -> None:
    rest = f"fusion: {{type: {fusion}}}\naugmentation: {{preset: origin}}"
    made = plan(rest, experts=IMAGE)
    assert in_words(made) == expected
    value = made.values["augmentation.cutmix.alpha"]
    assert value.source == "preset"
    assert value.why == f"preset origin: the origin's augmentation for {fusion}"


def test_what_is_written_stands_before_the_preset(plan: PlanOf) -> None:
    made = plan(with_("preset: origin, cutmix: null, crop: 2, label_smoothing: 0.0"), experts=IMAGE)
    assert in_words(made) == "crop of 2 pixels, flip, random_erasing 0.25"
    assert made.values["augmentation.crop"].source == "recipe"


def test_a_preset_that_the_views_cannot_bear(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:24  augmentation.preset
          8 | augmentation: {preset: origin}
            |                        ^^^^^^
          got       origin, which brings flip
          expected  a view of images for flip, (channels, height, width) in the data: \
here there are a of 4, b of 12
          'flip: false' beside it takes that out

        recipe.yaml:8:24  augmentation.preset
          8 | augmentation: {preset: origin}
            |                        ^^^^^^
          got       origin, which brings cutmix
          expected  images of one size in all views for cutmix, since targets are mixed by area: \
here there are a of 4, b of 12; mixup mixes views of any shape
          'cutmix: null' beside it takes that out
    """
    refused(golden, plan, with_("preset: origin"))


def test_the_screen_says_what_is_on(plan: PlanOf) -> None:
    made = plan(
        with_("mixup: {alpha: 0.2, probability: 0.5}, label_smoothing: 0.1, flip: true, noise: 1"),
        experts=BESIDE_A_VECTOR,
    )
    expected = "flip, noise 1, mixup α 0.2 in 50% of batches, label_smoothing 0.1"
    assert in_words(made) == expected
    assert f"augmentation  {expected}\n" in screen(made, "id")


def test_nothing_is_said_where_nothing_is_on(plan: PlanOf) -> None:
    assert in_words(plan()) == ""
