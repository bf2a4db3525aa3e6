"""What the components of a fused run begin with: experts and heads out of the runs before it.

They are taken once, verified against the manifest that vouches for them, and what was taken is
written down: an attempt that begins again takes the very same, or nothing. An attempt that goes on
from a checkpoint has all it needs there, also when those runs are gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from fusionrun.errors import TrainingError
from fusionrun.plan.plan import Plan
from fusionrun.regular import read_regular
from fusionrun.store.atomic import write_json
from fusionrun.store.components import load_component
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import read_manifest
from fusionrun.store.pretrained import completed_run
from fusionrun.train.checkpoint import Loaded
from fusionrun.train.ranks import Ranks

__all__ = ["starting_tensors"]

MOST_RECORD_BYTES: Final = 16 << 20
"""A few numbers an expert; assumed."""

Components = dict[str, Mapping[str, Tensor]]


def starting_tensors(
    plan: Plan, layout: RunLayout, loaded: Loaded | None, ranks: Ranks
) -> Components:
    """The tensors that experts and heads begin with; empty where nothing was trained before.

    Args:
        plan: of the run.
        layout: the run; those before it lie beside it.
        loaded: the checkpoint that the attempt goes on from.
        ranks: all of them call this; the first one writes down what was taken.

    Raises:
        TrainingError: a run before this one has not completed, or has other weights now than an
            earlier attempt has begun with.
        ComponentError: a file is not what its manifest says.
    """
    names = [f"{kind}.{name}" for name in plan.pretraining for kind in ("experts", "heads")]
    if loaded is not None:
        weights = loaded.weights
        return {name: weights[name] for name in names}
    if not names:
        return {}
    tensors, taken = _taken(plan, layout)
    if ranks.is_first:
        _require_same(layout, taken)
        write_json(layout.start, taken)
    return tensors


def _taken(plan: Plan, layout: RunLayout) -> tuple[Components, dict[str, Any]]:
    """The tensors, and which they are: expert → run, SHA-256 of each file, results."""
    tensors: Components = {}
    taken = {}
    for expert, wanted in plan.pretraining.items():
        run = completed_run(wanted, layout.root.absolute().parent)
        if run is None:
            raise TrainingError(
                f"experts.{expert} starts from the run {wanted.run}, which has not completed",
                f"let it complete, `fusionrun resume {wanted.run}`",
            )
        folder = run.components("best")
        names = (f"experts.{expert}", f"heads.{expert}")
        tensors |= {name: load_component(folder, name) for name in names}
        manifest = read_manifest(folder)
        taken[expert] = {
            "run": run.id,
            "plan_hash": wanted.plan_hash,
            "sha256": {name: manifest.record(name).sha256 for name in names},
            "results": _results(run),
        }
    return tensors, taken


def _results(run: RunLayout) -> dict[str, Any]:
    """What the expert was worth alone: split → metric → number."""
    try:
        results = json.loads(read_regular(run.results, MOST_RECORD_BYTES))
        return {split: paths["global"] for split, paths in results.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return {}  # (nothing depends on it)


def _require_same(layout: RunLayout, taken: Mapping[str, Any]) -> None:
    """Raises TrainingError where an earlier attempt has begun with other weights."""
    try:
        before = json.loads(read_regular(layout.start, MOST_RECORD_BYTES))
        other = [name for name in taken if before[name]["sha256"] != taken[name]["sha256"]]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(f"{layout.start}: damaged: {error!r}") from error
    if other:
        runs = ", ".join(f"{name} ({taken[name]['run']})" for name in other)
        raise TrainingError(
            f"{layout.root}: an earlier attempt began with other weights of {runs}, "
            "and it would not be the same run",
            "make another one with `--new`",
            repeats=True,
        )
