"""Whatever is written, reading ends in a recipe or in problems that have a place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusionrun.errors import RecipeError
from fusionrun.recipe.read import read_recipe
from fusionrun.schema.describe import all_keys

RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = (RECIPES / "handwritten-digits.yaml").read_text("utf-8")
KEYS = sorted({part for key in all_keys() for part in key.split(".")})

few = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

keys = st.one_of(
    st.sampled_from(KEYS), st.text(max_size=6), st.sampled_from(["[key]", "str", "x-a", "<<"])
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["auto", "1e-3", "true", "24h", "", "a" * 500, "run:x#experts."]),
    st.sampled_from(["mlp", "cnn", "timm:", "npz", "csv", "StepLR", "SGD", "concatenation"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
TAGS = {
    "model": ("mlp", "cnn", "wideresnet", "timm:x"),
    "source": ("npz", "csv", "parquet", "torchvision", "python"),
    "type": ("StepLR", "OneCycleLR", "concatenation", "TransformerBase", "productOfExperts"),
}
tagged = st.sampled_from(sorted(TAGS)).flatmap(
    lambda tag: st.builds(
        lambda kind, rest: {**rest, tag: kind},
        st.sampled_from(TAGS[tag]),
        st.dictionaries(keys, values, max_size=4),
    )
)
sections = st.dictionaries(keys, values | tagged, max_size=4)
recipes = st.fixed_dictionaries(
    {"version": st.sampled_from([1, 1, 1, 2, True])},
    optional={
        "name": scalars,
        "data": tagged | values,
        "experts": st.dictionaries(keys, tagged, max_size=3) | values,
        "fusion": tagged | values,
        "learning_rates": sections,
        "schedulers": sections,
        "training": sections,
        "slurm": sections,
        "sweep": sections,
        "stages": st.lists(sections, max_size=2),
        "evaluation": values,
        "tracking": sections,
    },
)


def read(text: str, path: Path, arguments: list[str]) -> None:
    """Read a recipe; where that fails, each problem must point into what was written."""
    path.write_text(text, "utf-8", newline="")
    try:
        read_recipe(path, arguments)
        return
    except RecipeError as error:
        problems, message = error.problems, str(error)
    assert problems
    assert message
    for problem in problems:
        check_place(problem.place, text, arguments)


def check_place(place: Any, text: str, arguments: list[str]) -> None:
    assert place is not None
    lines = text.splitlines() or [""]
    if place.source == "--set":
        line = arguments[place.order - 1]
        assert place.line == 0
    else:
        assert 1 <= place.line <= len(lines)
        line = lines[place.line - 1]
    assert 1 <= place.column <= len(line) + 1
    assert place.length >= 1
    assert place.column - 1 + place.length <= len(line) + 1


@few
@given(recipes, st.dictionaries(keys, values, max_size=3))
def test_any_values_under_and_over_real_keys_are_read_or_explained(
    tmp_path: Path, recipe: dict[str, Any], more: dict[str, Any]
) -> None:
    read(json.dumps({**more, **recipe}), tmp_path / "r.yaml", [])


dotted_keys = st.one_of(
    st.sampled_from(sorted(all_keys())),
    st.sampled_from(sorted(all_keys())).map(lambda key: key.replace("NAME", "fourier")),
    st.lists(keys, min_size=1, max_size=4).map(".".join),
    st.sampled_from(["experts.fourier", "experts.fourier.hidden[0]", "experts.zernik.model", ""]),
    st.text(alphabet='abc."[]=0 ', max_size=10),
)


@few
@given(st.lists(st.tuples(dotted_keys, values.map(json.dumps) | st.text(max_size=10)), max_size=3))
def test_any_settings_on_a_shipped_recipe_are_applied_or_explained(
    tmp_path: Path, given_settings: list[tuple[str, str]]
) -> None:
    arguments = [f"{key}={value}" for key, value in given_settings]
    read(SHIPPED, tmp_path / "r.yaml", arguments)


@few
@given(recipes, st.lists(st.tuples(dotted_keys, values.map(json.dumps)), min_size=1, max_size=2))
def test_any_settings_on_any_values_are_applied_or_explained(
    tmp_path: Path, recipe: dict[str, Any], given_settings: list[tuple[str, str]]
) -> None:
    arguments = [f"{key}={value}" for key, value in given_settings]
    read(json.dumps(recipe), tmp_path / "r.yaml", arguments)


@few
@given(
    st.one_of(
        st.text(alphabet=st.characters(codec="utf-8"), max_size=30),
        st.text(alphabet="abx:- \n#{}[]'\",&*!|>%@`?", max_size=30),
        st.builds("{}: {}\n".format, st.sampled_from(KEYS), values.map(json.dumps)),
    )
)
def test_any_text_below_a_shipped_recipe_is_read_or_explained(tmp_path: Path, text: str) -> None:
    read(SHIPPED + text, tmp_path / "r.yaml", [])


@pytest.mark.parametrize(
    "text", ["experts: [1]", "experts: 3", "experts:", "experts: {a: 3}", "[]"]
)
@pytest.mark.parametrize("key", ["experts[0]", "experts.0", "experts.a", "experts.a.b.c", "x"])
def test_settings_on_experts_of_any_shape_are_explained(
    tmp_path: Path, text: str, key: str
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(RecipeError, match="expected"):
        read_recipe(path, [f"{key}=1"])
    read(text, path, [f"{key}=1"])
