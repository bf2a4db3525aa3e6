"""What experts start from: the files that `weights:` means, checked against the blueprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fusionrun.blueprint import Tensor
from fusionrun.data.header import DataSummary
from fusionrun.errors import FusionrunError, Problem, RecipeError
from fusionrun.plan.plan import Weights
from fusionrun.recipe.read import Source
from fusionrun.schema.experts import Expert, Shape
from fusionrun.store.export import WeightsFile, locate_weights
from fusionrun.store.fit import fit_backbone
from fusionrun.store.safetensors_header import read_header, sha256


def starting_weights(
    source: Source,
    summary: DataSummary,
    blueprints: Mapping[str, Mapping[str, Tensor]],
    runs_dir: Path,
) -> dict[str, Weights]:
    """The weights of every expert that has some, by component name; only headers are read.

    Args:
        source: the recipe.
        summary: of its data.
        blueprints: of the components.
        runs_dir: where runs live.

    Raises:
        RecipeError: a file is missing or does not fit; all of them are told.
    """
    found, problems = {}, []
    for name, expert in source.recipe.experts.items():
        if expert.weights is None:
            continue
        try:
            file = locate_weights(expert.weights, source.base_dir, runs_dir)
            found[f"experts.{name}"] = _checked(
                expert, file, blueprints[f"experts.{name}"], summary.views[expert.view]
            )
        except FusionrunError as error:
            problems.append(_problem(source, name, error))
    if problems:
        raise RecipeError(problems)
    return found


def _checked(
    expert: Expert, file: WeightsFile, blueprint: Mapping[str, Tensor], view_shape: Shape
) -> Weights:
    fit = fit_backbone(
        read_header(file.path),
        {name: (tensor.dtype, tensor.shape) for name, tensor in blueprint.items()},
        file.description,
        prefix=expert.origin_prefix,
        classifier=expert.classifier_of(view_shape),
    )
    digest = file.sha256 or sha256(file.path)
    return Weights(str(file.path), digest, str(expert.weights), fit.prefix, fit.left_out)


def _problem(source: Source, name: str, error: FusionrunError) -> Problem:
    path = ("experts", name, "weights")
    return Problem(source.document.place(path), ".".join(path), fix=str(error))
