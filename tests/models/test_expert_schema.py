"""What a recipe may say of an expert."""

from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from fusionrun.schema.collections import Timm, Torchvision
from fusionrun.schema.experts import CNN, EXPERTS, MLP, Expert, Until

ADAPTER = TypeAdapter(Annotated[Expert, EXPERTS])


def expert(**keys):
    return ADAPTER.validate_python({"view": "v", **keys})


def locations(error):
    return [item["loc"] for item in error.value.errors()]


def test_an_mlp_has_the_documented_defaults():
    mlp = expert(model="mlp")
    assert isinstance(mlp, MLP)
    assert (mlp.hidden, mlp.features, mlp.dropout, mlp.activation) == ((128,), 64, 0.0, "relu")
    assert (mlp.weights, mlp.freeze) == (None, False)


def test_a_cnn_has_the_documented_defaults():
    cnn = expert(model="cnn")
    assert isinstance(cnn, CNN)
    assert (cnn.channels, cnn.features, cnn.dropout, cnn.shape) == ((32, 64), 64, 0.0, None)


@pytest.mark.parametrize(
    ("name", "kind"), [("timm:vit_tiny", Timm), ("torchvision:resnet50", Torchvision)]
)
def test_a_prefix_names_a_collection(name, kind):
    assert type(expert(model=name)) is kind
    assert expert(model=name).model == name


@pytest.mark.parametrize("name", ["timm:", "timm", "mpl", 3, None])
def test_an_unknown_model_is_an_unknown_tag(name):
    with pytest.raises(ValidationError, match="unknown model"):
        expert(model=name)


def test_collections_are_listed_once_each():
    assert EXPERTS.names()[:2] == ("mlp", "cnn")
    assert EXPERTS.names()[-2:] == ("timm:NAME", "torchvision:NAME")


def test_every_listed_name_has_a_section_class():
    assert all(EXPERTS.find(name) for name in EXPERTS.names())


@pytest.mark.parametrize("form", [True, False])
def test_freeze_takes_true_and_false(form):
    assert expert(model="mlp", freeze=form).freeze is form


def test_freeze_takes_a_number_of_epochs():
    frozen = expert(model="mlp", freeze={"until": {"epochs": 3}}).freeze
    assert isinstance(frozen, Until)
    assert frozen.until.epochs == 3


def test_a_wrong_freeze_is_one_error_at_its_place():
    with pytest.raises(ValidationError, match="true, false, or a mapping") as error:
        expert(model="mlp", freeze="yes")
    assert locations(error) == [("freeze",)]


def test_a_wrong_key_below_freeze_is_one_error_at_its_place():
    with pytest.raises(ValidationError, match="greater than or equal to 1") as error:
        expert(model="mlp", freeze={"until": {"epochs": 0}})
    assert locations(error) == [("freeze", "until", "epochs")]


@pytest.mark.parametrize("weights", ["a/b.safetensors", "run:digits-0a1b2c3d-s0#experts.fourier"])
def test_weights_are_a_path_or_a_run(weights):
    assert expert(model="mlp", weights=weights).weights == weights


@pytest.mark.parametrize(
    "weights", ["", "run:x", "run:#experts.a", "run:x#fusion", "run:x#experts."]
)
def test_weights_that_name_no_expert_of_a_run_are_an_error(weights):
    with pytest.raises(ValidationError, match=r"a path, or run:ID#experts\.NAME"):
        expert(model="mlp", weights=weights)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_is_a_share_below_one(dropout):
    with pytest.raises(ValidationError, match="dropout"):
        expert(model="mlp", dropout=dropout)


@pytest.mark.parametrize("shape", [(), (4,), (1, 3, 4, 4)])
def test_an_image_shape_has_two_or_three_sizes(shape):
    with pytest.raises(ValidationError, match=r"\[height, width\] or \[channels, height, width\]"):
        expert(model="cnn", shape=shape)


def test_a_cnn_needs_at_least_one_block():
    with pytest.raises(ValidationError, match="channels"):
        expert(model="cnn", channels=())


@pytest.mark.parametrize("view", [(7,), (8, 8), (3, 8, 8)])
def test_an_mlp_reads_any_view(view):
    expert(model="mlp").check(view)


@pytest.mark.parametrize("view", [(4, 4), (1, 4, 4), (3, 4, 9)])
def test_a_cnn_reads_images_that_its_blocks_can_halve(view):
    expert(model="cnn").check(view)


def test_a_cnn_reads_a_vector_that_is_given_a_shape():
    expert(model="cnn", shape=(16, 15)).check((240,))


def test_a_cnn_on_a_vector_asks_for_a_shape():
    with pytest.raises(ValueError, match="'shape' that says which image a row of 240 numbers is"):
        expert(model="cnn").check((240,))


def test_a_shape_that_does_not_add_up_is_told_with_both_counts():
    with pytest.raises(ValueError, match=r"'shape' of 240 numbers in all; 16 × 16 is 256"):
        expert(model="cnn", shape=(16, 16)).check((240,))


def test_a_shape_on_an_image_is_told():
    with pytest.raises(ValueError, match="the view is an image already"):
        expert(model="cnn", shape=(4, 16)).check((8, 8))


def test_too_many_blocks_are_told_with_how_many_fit():
    with pytest.raises(ValueError, match=r"at least 8 × 8 for 3 blocks .* 4 × 9 allows 2"):
        expert(model="cnn", channels=(8, 8, 8)).check((3, 4, 9))


def test_input_dim_is_the_width_of_the_features():
    assert expert(model="mlp", features=7).input_dim((3,)) == 7
    assert expert(model="cnn", features=9).input_dim((8, 8)) == 9
