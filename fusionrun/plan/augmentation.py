"""Augmentation against the data: what fits which views, and in words what is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fusionrun.data.header import DataSummary
from fusionrun.errors import Problem
from fusionrun.plan.ledger import Ledger
from fusionrun.plan.plan import Origin, Plan
from fusionrun.presets import augmentation_defaults
from fusionrun.recipe.keys import Path, dotted
from fusionrun.recipe.read import Source
from fusionrun.schema.base import AUTO, plain
from fusionrun.schema.training import Augmentation

IMAGES_ONLY = ("flip", "crop", "random_erasing", "randaugment", "trivialaugment")
_SECTION = "augmentation"
_NOTHING = augmentation_defaults("none", "")
Shape = tuple[int, ...]


def check_augmentation(source: Source, summary: DataSummary) -> Iterator[Problem]:
    """What augmentation asks of views that they cannot give."""
    augmentation = settled(source.recipe.augmentation, source.recipe.fusion.type)
    if not augmentation.is_on:
        return
    views = _read_views(source, summary)
    images = {view: shape for view, shape in views.items() if len(shape) == 3}
    if not images:
        yield from _without_images(source, augmentation, _listed(views))
    if augmentation.cutmix and not _are_images_of_one_size(views):
        expected = (
            "images of one size in all views for cutmix, since targets are mixed by area: "
            f"here there are {_listed(views)}; mixup mixes views of any shape"
        )
        yield _problem(source, "cutmix", expected)
    sides = [side for shape in images.values() for side in shape[1:]]
    if sides and augmentation.crop >= min(sides):
        expected = f"less than {min(sides)}, the least side of an image: nothing would be left"
        yield _problem(source, "crop", expected, got=f"{augmentation.crop} pixels")
    if augmentation.randaugment and augmentation.trivialaugment:
        expected = "one of the two policies: each draws its operations from the same list"
        yield _problem(source, "trivialaugment", expected, got="both randaugment and this")
    if augmentation.modality_dropout and len(views) == 1:
        expected = "0, or experts that read several views: no sample may lose its only one"
        yield _problem(source, "modality_dropout", expected, got=f"one view, {_listed(views)}")


def _without_images(source: Source, augmentation: Augmentation, there: str) -> Iterator[Problem]:
    """What is for images alone; all of a preset in one."""
    on = [name for name in IMAGES_ONLY if getattr(augmentation, name)]
    written = [name for name in on if source.document.has((_SECTION, name))]
    for name in [*written, *[n for n in on if n not in written][:1]]:
        expected = f"a view of images for {name}, {_IMAGE}: here there are {there}"
        yield _problem(source, name, expected)


_IMAGE = "(channels, height, width) in the data"


def settled(augmentation: Augmentation, fusion_type: str) -> Augmentation:
    """With what the preset, or its absence, puts into the keys that stand open."""
    defaults = augmentation_defaults(augmentation.preset, fusion_type)
    written = plain(augmentation)
    values = {key: defaults[key] if value == AUTO else value for key, value in written.items()}
    return Augmentation.model_validate(values)


def settle_augmentation(ledger: Ledger, fusion_type: str) -> None:
    """The same among the leaves of a recipe, with the reason."""
    preset = ledger[f"{_SECTION}.preset"]
    by_type = f"preset {preset}: the origin's augmentation for {fusion_type}"
    for name, value in augmentation_defaults(preset, fusion_type).items():
        key, is_own = f"{_SECTION}.{name}", value != _NOTHING[name]
        if not ledger.pending(key):
            continue
        origin: Origin = "preset" if is_own else "default"
        settle = ledger.expand if isinstance(value, Mapping) else ledger.settle
        settle(key, value, origin, by_type if is_own else "default")


def _read_views(source: Source, summary: DataSummary) -> dict[str, Shape]:
    """The views that experts read."""
    read = dict.fromkeys(expert.view for expert in source.recipe.experts.values())
    return {view: summary.views[view] for view in read if view in summary.views}


def _are_images_of_one_size(views: Mapping[str, Shape]) -> bool:
    sizes = {shape[1:] if len(shape) == 3 else None for shape in views.values()}
    return len(sizes) == 1 and None not in sizes


def _listed(views: Mapping[str, Shape]) -> str:
    return ", ".join(f"{view} of {' × '.join(map(str, shape))}" for view, shape in views.items())


def _problem(source: Source, name: str, expected: str, got: str = "") -> Problem:
    path: Path = (_SECTION, name)
    if not source.document.has(path):
        return _problem_of_preset(source, name, expected, got or name)
    return Problem(
        place=source.document.place(path, "key" if not got else "value"),
        key=dotted(path),
        got=got or name,
        expected=expected,
        fix="" if got else f"remove {name!r}",
    )


def _problem_of_preset(source: Source, name: str, expected: str, got: str) -> Problem:
    """Of a key that nobody wrote: the preset has put it there."""
    path: Path = (_SECTION, "preset")
    nothing = _NOTHING[name]
    off = "null" if nothing is None else str(nothing).lower()
    return Problem(
        place=source.document.place(path),
        key=dotted(path),
        got=f"{source.recipe.augmentation.preset}, which brings {got}",
        expected=expected,
        fix=f"'{name}: {off}' beside it takes that out",
    )


def in_words(plan: Plan) -> str:
    """What happens to a training batch, in its order; empty where nothing does."""
    keys = [key for key in plan.values if key.startswith("augmentation.") and plan[key]]
    on = {key.partition(".")[2]: plan[key] for key in keys}
    words = [
        f"crop of {on['crop']} pixels" if "crop" in on else "",
        "flip" if "flip" in on else "",
        f"randaugment {on[_OPS]} × {on['randaugment.magnitude']}" if _OPS in on else "",
        "trivialaugment" if "trivialaugment" in on else "",
        f"noise {on['noise']:g}" if "noise" in on else "",
        f"random_erasing {on[_ERASING]:g}" if _ERASING in on else "",
        *(_mix(name, on) for name in ("mixup", "cutmix") if f"{name}.alpha" in on),
        f"label_smoothing {on['label_smoothing']:g}" if "label_smoothing" in on else "",
        f"modality_dropout {on['modality_dropout']:g}" if "modality_dropout" in on else "",
    ]
    return ", ".join(word for word in words if word)


_ERASING = "random_erasing.probability"
_OPS = "randaugment.num_ops"


def _mix(name: str, on: Mapping[str, float]) -> str:
    share = on.get(f"{name}.probability", 0.0)
    some = "" if share == 1 else f" in {share:.0%} of batches"
    return f"{name} α {on[f'{name}.alpha']:g}{some}"
