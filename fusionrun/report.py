"""The end of a run on the screen: its result table, and its components after verifying them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table

from fusionrun.errors import ComponentError, FusionrunError
from fusionrun.gain import Gain, best_expert, gain_of
from fusionrun.regular import read_regular
from fusionrun.store.components import verify
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import Manifest, read_manifest
from fusionrun.store.status import read_status
from fusionrun.store.witness import epochs_recorded

Paths = Mapping[str, Mapping[str, float]]
PERCENT = {"accuracy", "macro_f1", "ece"}
HEADINGS = {"accuracy": "accuracy", "macro_f1": "macro F1", "nll": "NLL", "ece": "ECE"}


def how_far(layout: RunLayout) -> str:
    """Where a run that did not end well has left its best weights."""
    if not layout.root.is_dir():
        return f"{layout.root}: the run's directory is not there any more"
    # (the status is written once a second, or not at all by who was interrupted twice)
    epochs = max(read_status(layout).epoch, epochs_recorded(layout)[0])
    came = f"after {epochs} whole epoch{'' if epochs == 1 else 's'}"
    try:
        manifest = read_manifest(layout.components("best"))
    except ComponentError:
        return f"{layout.root}: ended {came}, no weights were saved{_next(layout)}"
    folder = layout.components("best")
    best = f"best weights so far (epoch {manifest.epoch + 1})"
    return f"{layout.root}: ended {came}\n{best}  {folder}{_next(layout)}"


def _next(layout: RunLayout) -> str:
    """A line of what `resume` would do; nothing where it would only come to the same end."""
    from fusionrun.watch.facts import facts_of
    from fusionrun.watch.post_mortem import how_to_go_on

    facts = facts_of(layout)
    return "" if any(error.repeats for error in facts.errors) else f"\n{how_to_go_on(facts)}"


def results_as_json(layout: RunLayout) -> str:
    """A finished run's results and where its components are, as JSON. Raises as `show_results`."""
    results, manifest = verified(layout)
    content = {
        "run": layout.id,
        "directory": str(layout.root),
        "best_epoch": manifest.epoch,
        "results": results,
        "components": {which: str(layout.components(which)) for which in ("best", "last")},
    }
    if alone := _alone(layout):
        content["pretraining"] = alone
    return json.dumps(content, indent=2, ensure_ascii=False)


def verified(layout: RunLayout) -> tuple[Mapping[str, Paths], Manifest]:
    """Results by split, and the manifest of the best components, all files verified.

    Raises as `show_results`.
    """
    try:
        results = json.loads(read_regular(layout.results))
    except (OSError, ValueError) as error:
        raise FusionrunError(f"{layout.results}: no results to show ({error})") from error
    if not _is_results(results):
        raise FusionrunError(f"{layout.results}: damaged: expected split → path → metric → number")
    manifest = read_manifest(layout.components("best"))
    verify(layout.components("best"))
    verify(layout.components("last"))
    return results, manifest


def _is_results(value: object) -> bool:
    """Whether what a file held is split → path → metric → number, with a global path each."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(paths, dict) and "global" in paths for paths in value.values())
        and all(isinstance(m, dict) for paths in value.values() for m in paths.values())
        and all(
            isinstance(number, int | float)
            for paths in value.values()
            for metrics in paths.values()
            for number in metrics.values()
        )
    )


def show_results(layout: RunLayout) -> None:
    """Verify the components of a finished run; print its result table and where they are.

    Raises:
        FusionrunError: the run has no results.
        ComponentError: a component is damaged.
    """
    results, manifest = verified(layout)
    split = "test" if "test" in results else next(iter(results))
    print(f"\n{_heading(split, manifest)}")
    Console().print(_table(results[split]))
    for line in (*_verdict(results[split]), *_before(layout, split)):
        print(line)
    print(f"\ncomponents   {len(manifest.components)} files each of best and last, verified")
    print(f"             {layout.all_components}")
    print(f"next         fusionrun export --component fusion --run {layout.root}")


def _heading(split: str, manifest: Manifest) -> str:
    chosen = manifest.chosen_on
    why = f"best by {chosen.path} {chosen.metric} on {chosen.split}" if chosen else "the last epoch"
    return f"{split} split, weights of epoch {manifest.epoch + 1} ({why})"


def _table(paths: Paths) -> Table:
    table = Table()
    table.add_column("path")
    metrics = list(paths["global"])
    for metric in metrics:
        table.add_column(HEADINGS.get(metric, metric), justify="right")
    for name, values in paths.items():
        style = "bold" if name == "global" else None
        table.add_row(name, *(number_in_words(m, values[m]) for m in metrics), style=style)
    return table


def number_in_words(metric: str, value: float) -> str:
    """A metric's value as tables show it."""
    return f"{value:.2%}" if metric in PERCENT else f"{value:.4f}"


def _verdict(paths: Paths) -> Iterator[str]:
    if len(paths) == 1:
        yield "heads        not trained (lambda_loss 0): no accuracy of the experts to compare"
        return
    if "accuracy" not in paths["global"]:
        return
    accuracy = {name: metrics["accuracy"] for name, metrics in paths.items()}
    best, gain = best_expert(accuracy), gain_of(accuracy)
    if best is None or gain is None:
        return
    yield f"best expert  {best}, {accuracy[best]:.2%}"
    yield f"fusion gain  {gain.points:+.2f} points {_in_words(gain)}"


def _alone(layout: RunLayout) -> Mapping[str, Any]:
    """Which run each expert came from, and what it was worth there; empty where it came of none."""
    try:
        taken = json.loads(read_regular(layout.start))
        return {name: {"run": own["run"], "results": own["results"]} for name, own in taken.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return {}


def _before(layout: RunLayout, split: str) -> Iterator[str]:
    """What each expert was worth before fusion."""
    words = []
    for name, own in _alone(layout).items():
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            words.append(f"{name} {number_in_words('accuracy', own['results'][split]['accuracy'])}")
    if words:
        yield f"alone        {', '.join(words)}: each after its pretraining, before fusion"


def _in_words(gain: Gain) -> str:
    if gain.points < 0:
        return f"against {gain.rival}: fusing did NOT help here"
    return f"over {gain.rival}" if gain.points > 0 else f"to {gain.rival}: level"
