"""A site's slurm section below the recipe's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusionrun.errors import RecipeError, UserError
from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.recipe.site import site_file

RECIPE = """\
version: 1
name: digits
data: {source: npz, path: package:handwritten_digits}
experts:
  a: {model: mlp, view: fourier}
fusion: {type: concatenation}
"""


def planned(folder: Path, slurm: str, site: str, *settings: str) -> Plan:
    (folder / "r.yaml").write_text(RECIPE + slurm)
    (folder / "site.yaml").write_text(site)
    return make_plan(read_recipe(folder / "r.yaml", settings, folder / "site.yaml"), folder)


def test_a_recipe_without_a_section_takes_the_sites(tmp_path: Path) -> None:
    made = planned(tmp_path, "", "partition: gpu\nnodes: 2\n")
    assert (made["slurm.partition"], made["slurm.nodes"]) == ("gpu", 2)
    value = made.values["slurm.nodes"]
    assert value.source == "site"
    assert value.why.endswith("site.yaml:2:8")


def test_the_recipe_lies_on_top_key_by_key(tmp_path: Path) -> None:
    slurm = "slurm: {nodes: 4, env: {A: mine}}"
    made = planned(tmp_path, slurm, "partition: gpu\nnodes: 2\nenv: {A: theirs, B: theirs}\n")
    assert made["slurm.nodes"] == 4
    assert made.values["slurm.nodes"].source == "recipe"
    assert made["slurm.partition"] == "gpu"
    assert {k: v.value for k, v in made.values.items() if k.startswith("slurm.env")} == {
        "slurm.env.A": "mine",
        "slurm.env.B": "theirs",
    }


@pytest.mark.parametrize(
    ("own", "theirs", "silenced"),
    [
        ("gres: 'gpu:1'", "gpus_per_node: 2", "gpus_per_node"),
        ("mem: 4G", "mem_per_cpu: 1G", "mem_per_cpu"),
    ],
)
def test_of_two_keys_that_exclude_each_other_the_recipes_counts(
    tmp_path: Path, own: str, theirs: str, silenced: str
) -> None:
    made = planned(tmp_path, f"slurm: {{{own}}}", theirs)
    assert made[f"slurm.{silenced}"] is None


def test_a_setting_lies_on_top_of_both(tmp_path: Path) -> None:
    made = planned(tmp_path, "slurm: {nodes: 4}", "nodes: 2", "slurm.nodes=8")
    assert made["slurm.nodes"] == 8
    assert made.values["slurm.nodes"].source == "set"


def test_a_site_changes_no_hash(tmp_path: Path) -> None:
    assert planned(tmp_path, "", "nodes: 2").hash == planned(tmp_path, "", "nodes: 3").hash


def test_an_error_in_the_site_is_told_at_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"site\.yaml:2:1  slurm\.partitoin\n.*\n.*\n.*partitoin"):
        planned(tmp_path, "slurm: {nodes: 1}", "nodes: 2\npartitoin: gpu\n")


@pytest.mark.parametrize("site", ["", "just text", "a: [1"])
def test_a_site_that_is_no_mapping_is_refused(tmp_path: Path, site: str) -> None:
    with pytest.raises(RecipeError, match=r"site\.yaml"):
        planned(tmp_path, "", site)


def test_the_file_is_the_option_else_the_variable_else_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUSIONRUN_SITE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert site_file(None) is None
    users = tmp_path / "fusionrun" / "slurm.yaml"
    users.parent.mkdir()
    users.write_text("nodes: 1")
    assert site_file(None) == users
    other = tmp_path / "other.yaml"
    other.write_text("nodes: 1")
    monkeypatch.setenv("FUSIONRUN_SITE", str(other))
    assert site_file(None) == other
    assert site_file(str(users)) == users
    assert site_file("") is None


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file"):
        site_file(str(tmp_path / "nowhere.yaml"))
