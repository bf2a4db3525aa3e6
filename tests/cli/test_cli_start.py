"""`fusionrun init` and `schema`: what they write is a recipe, or a schema, that works at once."""

from __future__ import annotations

import json
import os
import re
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.recipe.starter import expert_names
from fusionrun.schema.base import NAME_PATTERN
from fusionrun.schema.experts import PATHS
from tests.program import fusionrun

LABEL = np.arange(60) % 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(*arguments: str, to: str = "recipe.yaml") -> Plan:
    """Run init; the plan of what it wrote, which must read and resolve without a warning."""
    result = fusionrun("init", to, *arguments)
    assert result.exit_code == 0, result.output
    plan = make_plan(read_recipe(Path(to)), Path("runs"))
    assert plan.warnings == ()
    return plan


def refused(*arguments: str) -> str:
    result = fusionrun(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


def save(path: str, **views: np.ndarray) -> None:
    np.savez(path, label=LABEL, **views)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros((len(LABEL), *shape), np.float32)


# ------------------------------------------------------------------ init


def test_init_writes_a_recipe_for_the_shipped_digits() -> None:
    result = fusionrun("init")
    assert result.stdout == (
        "wrote recipe.yaml: 6 experts, preset tuned\nnext: fusionrun plan recipe.yaml\n"
    )
    plan = make_plan(read_recipe(Path("recipe.yaml")), Path("runs"))
    assert (plan.name, plan["preset"]) == ("handwritten-digits", "tuned")
    assert len(plan.settings.experts) == 6
    assert plan.warnings == ()


def test_the_recipe_explains_itself() -> None:
    written(to="mine.yaml")
    text = Path("mine.yaml").read_text(encoding="utf-8")
    assert text.startswith("# A recipe to start from")
    assert "#   fusionrun plan mine.yaml " in text
    assert "\n\n\n" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_vectors_get_an_mlp_and_images_a_cnn() -> None:
    save("mine.npz", vector=zeros(5), grey=zeros(8, 8), colour=zeros(3, 8, 8))
    plan = written("--data", "mine.npz")
    models = {name: expert.model for name, expert in plan.settings.experts.items()}
    assert models == {"vector": "mlp", "grey": "cnn", "colour": "cnn"}
    assert plan["data.path"] == "mine.npz"


def test_an_image_gets_no_more_blocks_than_its_size_allows() -> None:
    save("small.npz", large=zeros(4, 4), small=zeros(2, 9), tiny=zeros(1, 9))
    experts = written("--data", "small.npz").settings.experts
    assert experts["large"].channels == (32, 64)
    assert experts["small"].channels == (32,)
    assert experts["tiny"].model == "mlp"


def test_a_single_view_is_one_expert() -> None:
    save("one.npz", only=zeros(3))
    assert "1 expert, preset tuned" in fusionrun("init", "--data", "one.npz").stdout


def test_the_label_may_have_another_name() -> None:
    np.savez("mine.npz", x=zeros(3), kind=LABEL)
    plan = written("--data", "mine.npz", "--label", "kind")
    assert (plan["data.label"], list(plan.data.views)) == ("kind", ["x"])


def test_the_datas_path_is_relative_to_the_recipe() -> None:
    Path("data").mkdir()
    Path("recipes").mkdir()
    save("data/mine.npz", x=zeros(3))
    plan = written("--data", "data/mine.npz", to="recipes/mine.yaml")
    assert plan["data.path"] == os.path.join("..", "data", "mine.npz")


def test_an_absolute_path_stays_absolute(folder: Path) -> None:
    save("mine.npz", x=zeros(3))
    assert written("--data", str(folder / "mine.npz"))["data.path"] == str(folder / "mine.npz")


def test_an_existing_recipe_is_left_alone() -> None:
    Path("recipe.yaml").write_text("mine")
    assert refused("init") == (
        "recipe.yaml: exists already; --force overwrites it, or name another file\n"
    )
    assert Path("recipe.yaml").read_text() == "mine"


def test_force_overwrites() -> None:
    Path("recipe.yaml").write_text("mine")
    written("--force")


def test_data_that_is_not_there_is_refused_and_nothing_written() -> None:
    assert "absent.npz" in refused("init", "--data", "absent.npz")
    assert os.listdir() == []


@pytest.mark.parametrize(("name", "source"), [("mine.csv", "csv"), ("mine.PARQUET", "parquet")])
def test_a_table_is_refused_with_what_init_reads(name: str, source: str) -> None:
    Path(name).write_text("a,b\n1,2\n")
    message = refused("init", "--data", name)
    assert message.startswith(f"--data {name}\n")
    assert "an .npz file, or package:NAME: init reads no others" in message
    assert f"'source: {source}'" in message


def test_a_file_that_is_no_npz_is_refused() -> None:
    Path("mine.dat").write_text("a,b\n1,2\n")
    assert "mine.dat" in refused("init", "--data", "mine.dat")


def test_an_image_with_channels_last_gets_an_mlp_and_a_word() -> None:
    save("mine.npz", **{"a\nb": zeros(8, 9, 3)})
    assert fusionrun("init", "--data", "mine.npz").exit_code == 0
    plan = make_plan(read_recipe(Path("recipe.yaml")), Path("runs"))
    assert [expert.model for expert in plan.settings.experts.values()] == ["mlp"]
    assert [warning.code for warning in plan.warnings] == ["channels_last"]
    text = Path("recipe.yaml").read_text(encoding="utf-8")
    assert '# The view "a\\nb" of shape 8 × 9 × 3 looks like channels last' in text
    assert "numpy.moveaxis(x, -1, 1)" in text


def test_a_label_that_the_data_lacks_is_refused() -> None:
    save("mine.npz", x=zeros(3))
    assert "labl" in refused("init", "--data", "mine.npz", "--label", "labl")


def test_a_directory_that_is_not_there_is_said() -> None:
    message = refused("init", "absent/recipe.yaml")
    assert message == "absent/recipe.yaml: cannot be written: No such file or directory\n"


# ------------------------------------------------------------------ names


def test_hostile_view_names_are_read_back_as_they_are() -> None:
    views = ["a b", "it's", 'say "a"', "a: #", "- a", "1e3", "null", "é", "a\u2028b", "auto", "{}"]
    save("mine.npz", **{view: zeros(3) for view in views})
    plan = written("--data", "mine.npz")
    assert [expert.view for expert in plan.settings.experts.values()] == views


@pytest.mark.parametrize("stem", ["a: #", "it's", "x\ny", " ", "nul", "1e3", "é"])
def test_hostile_file_names_are_read_back_as_they_are(stem: str) -> None:
    save(f"{stem}.npz", x=zeros(3))
    assert written("--data", f"{stem}.npz")["data.path"] == f"{stem}.npz"


def test_views_that_would_become_one_expert_are_numbered() -> None:
    assert expert_names(["a b", "a-b", "A.B", "a b-2"]) == {
        "a b": "a-b",
        "a-b": "a-b-2",
        "A.B": "A-B-3",
        "a b-2": "a-b-2-2",
    }


@pytest.mark.parametrize(
    ("view", "name"),
    [
        ("profile_correlations", "profile_correlations"),
        ("_hidden_", "hidden"),
        ("é", "view"),
        ("", "view"),
        ("global", "global-2"),
        ("Mean_of_Experts", "Mean_of_Experts-2"),
        ("x" * 70, "x" * 64),
    ],
)
def test_a_view_becomes_a_valid_name(view: str, name: str) -> None:
    assert expert_names([view]) == {view: name}


@given(st.lists(st.text(st.sampled_from(string.printable + "éß\u2028"), max_size=70), unique=True))
def test_names_are_valid_and_each_once(views: list[str]) -> None:
    names = list(expert_names(views).values())
    assert len({name.casefold() for name in names}) == len(views)
    assert all(re.fullmatch(NAME_PATTERN, name) for name in names)
    assert not set(PATHS) & set(names)


# ------------------------------------------------------------------ schema


def test_schema_prints_json() -> None:
    content = json.loads(fusionrun("schema").stdout)
    assert {"version", "experts", "fusion"} <= set(content["properties"])


def test_schema_writes_a_file_and_says_how_to_use_it() -> None:
    result = fusionrun("schema", "--output", "recipe.schema.json")
    assert "# yaml-language-server: $schema=recipe.schema.json" in result.stdout
    assert json.loads(Path("recipe.schema.json").read_text()) == json.loads(
        fusionrun("schema").stdout
    )


def test_a_schema_that_cannot_be_written_is_said() -> None:
    message = refused("schema", "-o", "absent/x.json")
    assert message == "absent/x.json: cannot be written: No such file or directory\n"
