"""The recipe's JSON Schema: valid, as strict as the reader, described throughout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator

from fusionrun.recipe.document import read_document
from fusionrun.schema.data import DATA
from fusionrun.schema.experts import EXPERTS
from fusionrun.schema.fusions import FUSIONS
from fusionrun.schema.json_schema import json_schema
from fusionrun.schema.kinds import Kinds
from fusionrun.schema.schedulers import SCHEDULERS

HERE = Path(__file__).parent
RECIPES = sorted((HERE.parents[1] / "recipes").glob("*.yaml"))
SHIPPED = HERE.parents[1] / "recipes" / "recipe.schema.json"

MINIMAL = """
version: 1
name: small
data: {source: npz, path: digits.npz}
experts: {a: {model: mlp, view: v}}
fusion: {type: concatenation}
"""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema()


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema)


def plain(text: str) -> Any:
    """A recipe as JSON holds it: read as YAML 1.2, lists for tuples."""
    return json.loads(json.dumps(read_document(text, "r.yaml").value))


def every_key(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each property as `section.key` with its schema."""
    for title, section in _sections(schema):
        for key, value in section.get("properties", {}).items():
            yield f"{title}.{key}", value


def _sections(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "properties" in node and isinstance(node.get("title"), str):
            yield node["title"], node
        for value in node.values():
            yield from _sections(value)
    elif isinstance(node, list):
        for value in node:
            yield from _sections(value)


def test_the_schema_is_valid_draft_2020_12(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_it_accepts_every_shipped_recipe(recipe: Path, validator: Draft202012Validator) -> None:
    found = validator.iter_errors(plain(recipe.read_text("utf-8")))
    assert [(list(error.path), error.message) for error in found] == []


@pytest.mark.parametrize(
    "addition",
    [
        "x-notes: {anything: [1, null]}",
        "slurm: null",
        "slurm: {time: '00:01:30', gpus_per_node: 'a100:2', extra: {comment: a, contiguous: true}}",
        "training: {optimizer: {betas: auto}, early_stopping: null}",
        "schedulers: {experts: auto, fusion: {type: StepLR, step_size: 3}}",
        "learning_rates: {rules: [], experts: {a: auto}}",
        "learning_rates: {rules: [{when: {fusion_type: concatenation}, scale: {head_lr: 2}}]}",
        "sweep: {grid: {training.batch_size: [32, 64]}, seeds: [0, 1]}",
        "stages: [{stage: pretrain, epochs: 3}]",
        "knowledge_transfer: {fusion_gradient_clipping: null, teacher: auto}",
        "augmentation: {mixup: {alpha: 0.2}}",
    ],
)
def test_it_accepts_what_the_reader_accepts(addition: str, validator: Draft202012Validator) -> None:
    assert [error.message for error in validator.iter_errors(plain(MINIMAL + addition))] == []


@pytest.mark.parametrize(
    "addition",
    [
        "trainings: {epochs: 3}",
        "training: {epoch: 3}",
        "training: {epochs: 0}",
        "training: {epochs: '3'}",
        "training: {epochs: 2.5}",
        "training: [epochs]",
        "training: {optimizer: {type: sgd}}",
        "training: {optimizer: {betas: [0.9]}}",
        "learning_rates: {base_lr: -1}",
        "learning_rates: {base_lr: none}",
        "learning_rates: {rules: [{when: {}}]}",
        "schedulers: {experts: {type: CosineAnnealingLR, gamma: 0.5}}",
        "schedulers: {experts: {type: Cosine}}",
        "knowledge_transfer: {temperature: 0}",
        "knowledge_transfer: {teacher: friends}",
        "evaluation: {metrics: []}",
        "slurm: {nodes: true}",
        "slurm: {container: {binds: [/data]}}",
        "stages: [{stage: pretrain}]",
        "seed: -1",
        "preset: best",
    ],
)
def test_it_refuses_what_the_reader_refuses(addition: str, validator: Draft202012Validator) -> None:
    assert not validator.is_valid(plain(MINIMAL + addition))


@pytest.mark.parametrize("key", ["version", "name", "data", "experts", "fusion"])
def test_it_refuses_a_recipe_that_lacks_a_required_key(
    key: str, validator: Draft202012Validator
) -> None:
    recipe = plain(MINIMAL)
    assert validator.is_valid(recipe)
    del recipe[key]
    assert not validator.is_valid(recipe)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ä", "a" * 65])
def test_it_refuses_names_that_no_expert_may_have(
    name: str, validator: Draft202012Validator
) -> None:
    recipe = plain(MINIMAL)
    recipe["experts"] = {name: recipe["experts"]["a"]}
    assert not validator.is_valid(recipe)


def test_keys_of_equally_named_sections_have_their_own_descriptions(
    schema: dict[str, Any],
) -> None:
    sources = {text["description"] for key, text in every_key(schema) if key == "Torchvision.name"}
    assert sources == {"Name of its class, such as FashionMNIST."}


def test_every_key_has_a_description_that_ends_like_a_sentence(schema: dict[str, Any]) -> None:
    bare = [key for key, value in every_key(schema) if not _ends(value.get("description", ""))]
    assert bare == []


def _ends(description: str) -> bool:
    return description.endswith((".", "…")) and "\n" not in description


def test_the_keys_are_the_pinned_ones(schema: dict[str, Any]) -> None:
    """A surface people build on: a change here is a change for users, and for the CHANGELOG."""
    keys = sorted({key for key, _ in every_key(schema)})
    pinned = (HERE / "recipe_schema_keys.txt").read_text("utf-8")
    assert "".join(f"{key}\n" for key in keys) == pinned


def test_the_schema_beside_the_recipes_is_what_the_program_prints() -> None:
    command = [sys.executable, "-m", "fusionrun", "schema"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert SHIPPED.read_text("utf-8") == printed


def test_the_schema_beside_the_recipes_is_that_of_the_models(schema: dict[str, Any]) -> None:
    regenerate = f"regenerate it: python -m fusionrun.schema.json_schema > recipes/{SHIPPED.name}"
    assert json.loads(SHIPPED.read_text("utf-8")) == json.loads(json.dumps(schema)), regenerate


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_names_the_schema_beside_it(recipe: Path) -> None:
    first = recipe.read_text("utf-8").partition("\n")[0]
    assert first == f"# yaml-language-server: $schema=./{SHIPPED.name}"


@pytest.mark.parametrize(
    "kinds", [DATA, EXPERTS, FUSIONS, SCHEDULERS], ids=["data", "experts", "fusions", "schedulers"]
)
def test_a_kind_stands_in_the_table_under_the_tag_that_its_class_declares(
    kinds: Kinds[Any],
) -> None:
    for name in kinds.names():
        kind = kinds.find(name)
        assert kind is not None
        field = kind.model_fields[kinds.tag]
        if name.endswith(":NAME"):
            assert f"^{name.removesuffix('NAME')}" in str(field.metadata)
        else:
            assert field.annotation == Literal[name]
