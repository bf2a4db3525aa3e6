"""The end of a run on the screen: its result table, and its components after verifying them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.table import Table

from fusionrun.errors import FusionrunError
from fusionrun.store.components import read_manifest, verify
from fusionrun.store.layout import RunLayout

Paths = Mapping[str, Mapping[str, float]]
PERCENT = {"accuracy", "macro_f1", "ece"}
HEADINGS = {"accuracy": "accuracy", "macro_f1": "macro F1", "nll": "NLL", "ece": "ECE"}
JOINT = ("global", "mean_of_experts")


def best_expert(paths: Paths) -> str | None:
    """The expert with the highest accuracy; None where the heads were not trained."""
    experts = [name for name in paths if name not in JOINT]
    return max(experts, key=lambda name: paths[name]["accuracy"]) if experts else None


def fusion_gain(paths: Paths) -> float | None:
    """Accuracy of the global path minus the better of best expert and mean of experts."""
    rivals = [metrics["accuracy"] for name, metrics in paths.items() if name != "global"]
    return paths["global"]["accuracy"] - max(rivals) if rivals else None


def show_results(layout: RunLayout) -> None:
    """Print the table of a finished run and its verified components.

    Raises:
        FusionrunError: the run has no results.
        ComponentError: a component is damaged.
    """
    try:
        results = json.loads(layout.results.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise FusionrunError(f"{layout.results}: no results to show ({error})") from error
    console = Console()
    split = "test" if "test" in results else next(iter(results))
    manifest = read_manifest(layout.components("best"))
    console.print(_table(split, results[split], manifest.epoch))
    for line in _verdict(results[split]):
        console.print(line, highlight=False)
    verify(layout.components("best"))
    verify(layout.components("last"))
    console.print(
        f"\ncomponents  {len(manifest.components)} files verified, best and last:", highlight=False
    )
    console.print(f"  {layout.all_components}", highlight=False, soft_wrap=True)
    console.print(
        f"next  fusionrun export --component fusion --run {layout.root.name}",
        highlight=False,
        soft_wrap=True,
    )


def _table(split: str, paths: Paths, epoch: int) -> Table:
    table = Table(title=f"{split} split, best weights (epoch {epoch + 1})", title_justify="left")
    table.add_column("path")
    metrics = list(paths["global"])
    for metric in metrics:
        table.add_column(HEADINGS.get(metric, metric), justify="right")
    for name, values in paths.items():
        style = "bold" if name == "global" else None
        table.add_row(name, *(_number(m, values[m]) for m in metrics), style=style)
    return table


def _number(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric in PERCENT else f"{value:.4f}"


def _verdict(paths: Paths) -> Iterator[str]:
    best, gain = best_expert(paths), fusion_gain(paths)
    if best is None or gain is None:
        yield "the experts' heads were not trained (lambda_loss 0): no accuracy of theirs to compare"
        return
    yield f"best expert  {best}, {paths[best]['accuracy']:.2%}"
    points = f"{gain * 100:+.2f} points"
    rival = "the better of best expert and mean of experts"
    if gain < 0:
        yield f"fusion gain  {points}: fusing did NOT help here; {rival} is ahead"
    elif gain == 0:
        yield f"fusion gain  {points}: level with {rival}"
    else:
        yield f"fusion gain  {points} over {rival}"
