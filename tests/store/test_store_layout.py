"""Every path of a run, and names that no path and no shell can misread."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrun.errors import ComponentError
from fusionrun.schema.base import NAME_PATTERN
from fusionrun.store import layout as layout_module
from fusionrun.store.layout import RunLayout, component_path, run_id, slug


def test_the_files_of_a_run_stand_where_the_contract_says() -> None:
    run = RunLayout(Path("r"))
    paths = [run.recipe, run.plan, run.environment, run.status, run.events, run.results]
    paths += [run.metrics, run.job_script, run.logs, run.checkpoints, run.components("last")]
    assert [str(path) for path in paths] == [
        "r/recipe.yaml",
        "r/plan.json",
        "r/environment.json",
        "r/status.json",
        "r/events.jsonl",
        "r/results.json",
        "r/metrics.jsonl",
        "r/job.sbatch",
        "r/logs",
        "r/checkpoints",
        "r/components/last",
    ]


def test_component_files_stand_where_the_contract_says() -> None:
    run = RunLayout(Path("r"))
    assert run.component("best", "experts.a") == Path("r/components/best/experts/a.safetensors")
    assert run.component("last", "fusion") == Path("r/components/last/fusion.safetensors")
    assert run.manifest("best") == Path("r/components/best/manifest.json")


def test_a_run_given_as_the_current_directory_still_has_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunLayout(Path(".")).id == tmp_path.name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "experts.", ".a", "experts.../x", "a/b", "experts.a/b", "a.b.c", "a\n", "-a"],
)
def test_a_component_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ComponentError, match=r"experts\.NAME, heads\.NAME, fusion or global_head"):
        component_path(name)


def test_component_names_follow_the_names_of_the_schema() -> None:
    assert layout_module._NAME == NAME_PATTERN


def test_the_longest_name_of_the_schema_is_a_component() -> None:
    name = "x" * 64
    assert component_path(f"heads.{name}") == PurePosixPath(f"heads/{name}.safetensors")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("handwritten-digits", "handwritten-digits"),
        ("v1.2_b", "v1.2_b"),
        ("My first run!", "My-first-run"),
        ("../../x", "x"),
        ("$(touch x)", "touch-x"),
        ("a--b", "a-b"),
        ("a; rm -rf ~ #", "a-rm-rf"),
        ("--force", "force"),
        (".hidden", "hidden"),
        ("Größe é", "Gro-e-e"),
        ("手書き", "run"),
        ("", "run"),
        ("..", "run"),
        (" \t\n", "run"),
        ("x" * 300, "x" * 64),
        ("x" * 63 + "-y", "x" * 63),
    ],
)
def test_a_slug_keeps_what_is_safe(name: str, expected: str) -> None:
    assert slug(name) == expected


@given(st.text())
def test_any_text_gives_a_slug_that_needs_no_quoting(name: str) -> None:
    made = slug(name)
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", made)
    assert shlex.quote(made) == made


@given(st.text())
def test_a_slug_of_a_slug_is_itself(name: str) -> None:
    assert slug(slug(name)) == slug(name)


def test_a_run_id_is_slug_hash_and_seed() -> None:
    assert run_id("My run", "0123456789abcdef", 3) == "My-run-01234567-s3"


@pytest.mark.parametrize("plan_hash", ["", "0123456", "0123456G", "../../../x"])
def test_a_run_id_needs_a_hexadecimal_hash(plan_hash: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        run_id("x", plan_hash, 0)
