"""The data section: kinds of sources, the three shapes of a split, views in short and in full."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fusionrun.schema.base import Section
from fusionrun.schema.data import DATA, Data, Npz
from fusionrun.schema.splits import FileSplit, FoldSplit, FractionSplit, OfficialSplit


class Holder(Section):
    """A section that holds one, as the recipe does."""

    data: Annotated[Data, DATA]


def read(**data: Any) -> Any:
    return Holder.model_validate({"data": data}).data


def places(**data: Any) -> list[tuple[tuple[Any, ...], str]]:
    with pytest.raises(ValidationError, match="validation error") as caught:
        read(**data)
    return [(error["loc"], error["type"]) for error in caught.value.errors()]


def test_a_split_that_is_left_out_is_the_stratified_60_20_20() -> None:
    assert read(source="npz", path="a.npz").split == FractionSplit(
        train=0.6, val=0.2, test=0.2, stratify=True, seed=0
    )


@pytest.mark.parametrize(
    ("written", "shape"),
    [
        ({"train": 0.5, "val": 0.25, "test": 0.25}, FractionSplit),
        ({"seed": 3}, FractionSplit),
        ({}, FractionSplit),
        ({"folds": 5}, FoldSplit),
        ({"folds": 5, "fold": 4, "val": 0.1}, FoldSplit),
    ],
)
def test_a_split_is_known_by_what_is_written(written: dict[str, Any], shape: type) -> None:
    assert type(read(source="npz", path="a.npz", split=written).split) is shape


def test_a_split_of_file_names_needs_no_path() -> None:
    data = read(source="npz", split={"train": "a.npz", "test": "c.npz"})
    assert data.split == FileSplit(train="a.npz", val=None, test="c.npz")


@pytest.mark.parametrize(
    ("split", "place", "kind"),
    [
        ({"train": 0.8, "test": 0.2}, ("data", "split"), "fractions_sum"),
        ({"train": 0, "val": 0.5, "test": 0.5}, ("data", "split", "train"), "greater_than"),
        ({"train": 0.6, "tset": 0.4}, ("data", "split", "tset"), "extra_forbidden"),
        ({"train": True}, ("data", "split", "train"), "float_type"),
        ({"train": "a.npz", "val": 1.0}, ("data", "split", "val"), "file_or_share"),
        ({"train": "a.npz", "val": True}, ("data", "split", "val"), "file_or_share"),
        ({"val": "b.npz"}, ("data", "split", "train"), "missing"),
        ({"folds": 1}, ("data", "split", "folds"), "greater_than_equal"),
        ({"fold": 1}, ("data", "split", "folds"), "missing"),
        ({"folds": 5, "fold": 5}, ("data", "split"), "fold_range"),
        ({"folds": 5, "train": 0.6}, ("data", "split", "train"), "extra_forbidden"),
        ("5", ("data", "split"), "mapping_type"),
    ],
)
def test_a_wrong_split_is_reported_in_the_shape_that_was_meant(
    split: Any, place: tuple[str, ...], kind: str
) -> None:
    found = places(source="npz", path="x" if "a.npz" not in str(split) else None, split=split)
    assert found == [(place, kind)]


def test_the_sum_of_fractions_is_shown() -> None:
    with pytest.raises(ValidationError, match=r"= 1, but 0\.8 \+ 0\.2 \+ 0\.2 = 1\.2"):
        FractionSplit(train=0.8)


def test_thirds_with_ten_digits_sum_to_one() -> None:
    assert FractionSplit(train=0.3333333333, val=0.3333333333, test=0.3333333333)


def test_neither_path_nor_files_is_an_error() -> None:
    assert places(source="npz") == [(("data",), "path_missing")]


def test_both_path_and_files_is_an_error() -> None:
    assert places(source="npz", path="x", split={"train": "a"}) == [(("data",), "exclusive")]


def test_a_list_of_arrays_is_short_for_a_mapping() -> None:
    data = read(source="npz", path="x", views=("a", "b"))
    assert data.views == {"a": "a", "b": "b"}


@pytest.mark.parametrize("views", [("a", "a"), ("a", 1)])
def test_a_list_of_arrays_holds_each_name_once(views: tuple[Any, ...]) -> None:
    assert places(source="npz", path="x", views=views) == [(("data", "views"), "array_names")]


def test_one_column_name_is_short_for_a_list() -> None:
    data = read(source="csv", path="x", views={"all": "fou_*", "two": ("a", "b")})
    assert data.views == {"all": ("fou_*",), "two": ("a", "b")}


def test_csv_must_say_which_columns_are_views() -> None:
    assert places(source="csv", path="x") == [(("data", "views"), "missing")]


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n"])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    found = places(source="csv", path="x", views={"a": "a"}, delimiter=delimiter)
    assert found == [(("data", "delimiter"), "delimiter")]


@pytest.mark.parametrize(
    ("split", "shape"),
    [
        ({}, OfficialSplit),
        ({"val": 0.2, "seed": 3}, OfficialSplit),
        ({"val": "auto"}, OfficialSplit),
        ({"train": 0.5, "val": 0.25, "test": 0.25}, FractionSplit),
        ({"train": "train", "val": 0.1}, FileSplit),
        ({"folds": 3}, FoldSplit),
    ],
)
def test_a_split_of_a_folder_of_images_is_known_by_what_is_written(
    split: dict[str, Any], shape: type
) -> None:
    path = {} if shape is FileSplit else {"path": "x"}
    assert type(read(source="image_folder", **path, split=split).split) is shape


def test_what_is_published_in_parts_is_not_drawn_anew() -> None:
    found = places(source="idx", path="x", split={"train": 0.5, "test": 0.5})
    assert {place[:2] for place, _ in found} == {("data", "split")}
    assert {kind for _, kind in found} == {"extra_forbidden"}


def test_a_validation_part_is_less_than_all_of_the_training_part() -> None:
    found = places(source="idx", path="x", split={"val": 1.0})
    assert found == [(("data", "split", "val"), "less_than")]


def test_cifar_has_ten_or_a_hundred_classes() -> None:
    assert places(source="cifar", path="x", classes=20) == [(("data", "classes"), "literal_error")]


def test_what_is_dumped_reads_back_the_same() -> None:
    data = read(source="csv", path="x", views={"a": "a_*"}, split={"folds": 3, "fold": 1})
    assert read(**data.model_dump()) == data


def test_the_json_schema_offers_short_forms_and_split_shapes() -> None:
    schema = json.dumps(TypeAdapter(Npz).json_schema())
    assert all(key in schema for key in ('"uniqueItems": true', '"folds"', '"stratify"'))


def test_all_built_in_sources_can_be_read() -> None:
    kinds = [DATA.find(name) for name in DATA.names()]
    assert [kind.__name__ for kind in kinds if kind and not kind.reader] == []
