"""What a plan's data allows and will probably disappoint: rare classes, images misread."""

from __future__ import annotations

from collections.abc import Iterator

from fusionrun.data.header import ALL
from fusionrun.data.report import counted
from fusionrun.data.split import PARTS
from fusionrun.plan.plan import Plan, Warn
from fusionrun.schema.experts import looks_channels_last

_SHOWN = 3


def class_missing_in_split(plan: Plan) -> Iterator[Warn]:
    """A class that has no rows in a part of the split, one warning for each group of parts."""
    counts = plan.data.class_counts
    parts = [part for part in PARTS if plan.data.sizes.get(part)]
    if ALL in counts:
        yield from _too_rare(plan, counts[ALL], parts)
        return
    groups: dict[tuple[str, ...], list[str]] = {}
    for index, label in enumerate(plan.data.classes):
        missing = tuple(part for part in parts if part in counts and not counts[part][index])
        rows = sum(held[index] for held in counts.values())
        if missing:
            groups.setdefault(missing, []).append(f"{label!r} ({counted(rows, 'row')} in all)")
    for missing, labels in groups.items():
        yield Warn("class_missing_in_split", _message(labels, missing, plan))


def channels_last(plan: Plan) -> Iterator[Warn]:
    """An image that is read as (channels, height, width) and looks like channels last.

    A cnn without `shape` refuses such a view; one with a `shape` equal to the view's confirms it.
    """
    for name in _experts(plan):
        view = plan.data.views[plan[f"experts.{name}.view"]]
        shape = tuple(plan.get(f"experts.{name}.shape") or ())
        if shape == view or not looks_channels_last(shape or view):
            continue
        size = " × ".join(map(str, shape or view))
        yield Warn(
            "channels_last",
            f"expert {name} reads {size} as {(shape or view)[0]} channels, scaled one by one, and "
            "it looks like channels last. Fix: transpose it, numpy.moveaxis(x, -1, 1), to "
            "(channels, height, width)",
        )


def _experts(plan: Plan) -> Iterator[str]:
    for component in plan.components:
        kind, _, name = component.partition(".")
        if kind == "experts":
            yield name


def _message(labels: list[str], missing: tuple[str, ...], plan: Plan) -> str:
    effect = (
        "the model never sees it" if "train" in missing else "what is measured there leaves it out"
    )
    return f"no row of class {_listed(labels)} in {' and '.join(missing)}: {effect}. " + _fix(plan)


def _too_rare(plan: Plan, rows: tuple[int, ...], parts: list[str]) -> Iterator[Warn]:
    """Without `stratify` only the drawing tells; fewer rows than parts leave one part without."""
    labels = [
        f"{label!r} ({counted(count, 'row')} in all)"
        for label, count in zip(plan.data.classes, rows, strict=True)
        if count < len(parts)
    ]
    if labels:
        where = ", ".join(parts)
        yield Warn(
            "class_missing_in_split",
            f"class {_listed(labels)} cannot be in each of {where}: it has fewer rows than there "
            "are parts. " + _fix(plan),
        )


def _fix(plan: Plan) -> str:
    is_drawn = not isinstance(plan.get("data.split.train", 0.0), str)
    other = "other fractions" if is_drawn else "other files"
    folds = "data.split.folds" in plan
    return f"Fix: more rows of it, {'fewer folds' if folds else other}, or leave the class out"


def _listed(labels: list[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more
