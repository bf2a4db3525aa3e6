"""Values that are right one by one and wrong together, or wrong for this data. Each a `Problem`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fusionrun.data.header import DataSummary, read_summary
from fusionrun.data.report import Fault, FaultyDataError
from fusionrun.errors import DataError, Problem, RecipeError
from fusionrun.nearest import nearest
from fusionrun.plan.augmentation import check_augmentation
from fusionrun.plan.check_paths import check_paths
from fusionrun.plan.engine import check_engine
from fusionrun.plan.ledger import Ledger
from fusionrun.plan.spread import check_spread
from fusionrun.plan.stage_checks import stage_problems
from fusionrun.recipe.keys import Path, dotted
from fusionrun.recipe.problems import shown
from fusionrun.recipe.read import Source
from fusionrun.schema.experts import UnavailableError

_SGD_ONLY = ("momentum", "nesterov")
_ADAM_ONLY = ("betas", "eps")


def unused_by(optimizer: str) -> tuple[str, ...]:
    """The keys of `training.optimizer` that mean nothing to this type."""
    return _ADAM_ONLY if optimizer == "SGD" else _SGD_ONLY


def read_data(source: Source) -> DataSummary:
    """What the recipe's data holds.

    Raises:
        DataError: the data cannot be read, each fault at the recipe's line that is to blame; with
            it whatever else is wrong that can be told without the data.
        NotYetError: the data source is for a later version.
    """
    try:
        return read_summary(source.recipe.data, source.base_dir)
    except FaultyDataError as error:
        ledger = Ledger(source)
        problems = [
            *(_data_problem(source, fault) for fault in error.faults),
            *(problem for check in _WITHOUT_DATA for problem in check(source, ledger)),
        ]
        raise DataError(str(RecipeError(problems))) from error


def _data_problem(source: Source, fault: Fault) -> Problem:
    """A fault of the data, put to the recipe's line that is to blame."""
    if not fault.blamed:
        return fault.problem
    path = _as_written(source, fault.blamed)
    return Problem(source.document.place(path), dotted(fault.blamed), fix=fault.problem.render())


def _as_written(source: Source, path: Path) -> Path:
    """Where a key stands: `views: [a, b]` is short for a mapping of each to itself."""
    parent, last = path[:-1], path[-1]
    document = source.document
    written = document.get(parent) if document.has(parent) else None
    return (
        (*parent, written.index(last)) if isinstance(written, tuple) and last in written else path
    )


def check_experts(source: Source, summary: DataSummary) -> None:
    """Experts, and augmentation, against the data: views exist, shapes fit, models can be had."""
    problems = [
        problem
        for name in source.recipe.experts
        if (problem := _expert_problem(source, name, summary))
    ]
    problems += check_augmentation(source, summary)
    if problems:
        raise RecipeError(problems)


def _expert_problem(source: Source, name: str, summary: DataSummary) -> Problem | None:
    expert = source.recipe.experts[name]
    if expert.view not in summary.views:
        path: Path = ("experts", name, "view")
        return _choice(source, path, expert.view, tuple(summary.views), "the data's views")
    shape = summary.views[expert.view]
    try:
        expert.check(shape)
    except UnavailableError as error:
        path = ("experts", name, error.key)
        place = source.document.place(path)
        return Problem(place, dotted(path), error.got, str(error), error.fix)
    except ValueError as error:
        size = " × ".join(map(str, shape))
        path = _to_blame(source, name, getattr(error, "keys", ()))
        return Problem(
            place=source.document.place(path, "key" if len(path) == 2 else "value"),
            key=dotted(path),
            got=f"view {expert.view!r} of shape {size} for model {expert.model!r}",
            expected=str(error),
        )
    return None


def _to_blame(source: Source, name: str, keys: Sequence[str]) -> Path:
    """Where a view that does not fit was decided: by the last `--set`, else by one of `keys`."""
    expert: Path = ("experts", name)
    document = source.document
    written = [(*expert, key) for key in (*keys, "view", "model") if document.has((*expert, key))]
    settings = [path for path in written if document.is_set(path)]
    if settings and not document.is_set(expert):
        return max(settings, key=lambda path: document.place(path))
    return next((path for path in written if path[-1] in keys), expert)


def check_recipe(source: Source, ledger: Ledger) -> None:
    """Everything that can only be seen once values are resolved."""
    checks = (
        _names,
        _heads,
        _distillation,
        _attention,
        check_engine,
        check_paths,
        check_spread,
        _optimizer,
        _memory_format,
        _sweep,
        stage_problems,
    )
    problems = [problem for check in checks for problem in check(source, ledger)]
    if problems:
        raise RecipeError(problems)


def _names(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """Names that must be an expert's."""
    experts = tuple(source.recipe.experts)
    rates = source.recipe.learning_rates
    decays = rates.layer_decay if isinstance(rates.layer_decay, Mapping) else {}
    for key, names in (("experts", rates.experts), ("layer_decay", decays)):
        for name in names:
            if name not in experts:
                path = ("learning_rates", key, name)
                yield _choice(source, path, name, experts, "the recipe's experts", at_key=True)
    chosen = source.recipe.training.selection.path
    paths = ("global", "mean_of_experts", *experts)
    if chosen not in paths:
        yield _choice(source, ("training", "selection", "path"), chosen, paths, "the paths")


def _heads(source: Source, ledger: Ledger) -> Iterator[Problem]:
    if "fusion.num_heads" not in ledger:
        return
    dim, heads = ledger["fusion.dim"], ledger["fusion.num_heads"]
    if dim % heads:
        fitting = [str(n) for n in range(1, min(dim, 64) + 1) if dim % n == 0]
        path: Path = ("fusion", "num_heads")
        if not source.document.has(path):
            path = ("fusion", "dim")
        yield Problem(
            place=source.document.place(path),
            key="fusion.num_heads",
            got=f"{heads} heads for dim {dim}",
            expected=f"a number that divides {dim}: {', '.join(fitting)}",
        )


def _distillation(source: Source, ledger: Ledger) -> Iterator[Problem]:
    path = ("knowledge_transfer", "knowledge_distillation_weight")
    given = ledger.given_number(dotted(path))  # (left alone, it is 0 with one expert)
    if len(source.recipe.experts) == 1 and given and ledger[dotted(path)] > 0:
        yield Problem(
            place=source.document.place(path),
            key=dotted(path),
            got=f"{ledger[dotted(path)]:g} with one expert",
            expected="0, or at least two experts to learn from each other",
        )


def _attention(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """Attention between experts needs features to attend to."""
    path = ("knowledge_transfer", "cross_expert_attention")
    fusion = source.recipe.fusion
    if ledger[dotted(path)] is True and not fusion.uses_features:
        yield Problem(
            place=source.document.place(path),
            key=dotted(path),
            got=f"true with fusion type {fusion.type}",
            expected=f"false: {fusion.type} joins the heads' outputs, not features",
        )


def _optimizer(source: Source, ledger: Ledger) -> Iterator[Problem]:
    prefix = ("training", "optimizer")
    kind = ledger[dotted((*prefix, "type"))]
    for name in unused_by(kind):
        path = (*prefix, name)
        if ledger.given_number(dotted(path)) and ledger[dotted(path)]:
            yield Problem(
                place=source.document.place(path, "key"),
                key=dotted(path),
                got=f"{name} with type {kind}",
                expected=f"{name} only with {'Adam or AdamW' if kind == 'SGD' else 'SGD'}",
                fix=f"remove {name!r}, or change 'type'",
            )
    path = (*prefix, "nesterov")
    if kind == "SGD" and ledger[dotted(path)] and not ledger["training.optimizer.momentum"]:
        yield Problem(
            place=source.document.place(path),
            key=dotted(path),
            got="nesterov without momentum",
            expected="a momentum above 0, or nesterov: false",
        )


def _memory_format(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """An order of channels needs an expert that convolves them."""
    path = ("training", "memory_format")
    convolves = any(expert.convolves for expert in source.recipe.experts.values())
    if ledger[dotted(path)] == "channels_last" and not convolves:
        yield Problem(
            place=source.document.place(path),
            key=dotted(path),
            got="channels_last, and no expert that convolves images",
            expected="auto or contiguous; or an expert such as cnn, resnet18 or wideresnet",
        )


def _sweep(source: Source, ledger: Ledger) -> Iterator[Problem]:
    """Keys of a sweep must be keys of the recipe."""
    sweep = source.recipe.sweep
    if sweep is None:
        return
    keys = tuple(key for key in ledger if not key.startswith("sweep"))
    for part in ("grid", "zip"):
        for key in getattr(sweep, part):
            if key not in keys:
                section = key.partition(".")[0]
                valid = tuple(k for k in keys if k.partition(".")[0] == section) or keys
                path = ("sweep", part, key)
                yield _choice(source, path, key, valid, "the recipe's keys", at_key=True)


_WITHOUT_DATA = (_names, _distillation, _attention)
"""The checks of the recipe that need no value which the data decides."""


def _choice(
    source: Source,
    path: Path,
    value: str,
    valid: Sequence[str],
    what: str,
    at_key: bool = False,
) -> Problem:
    found = nearest(value, valid)
    listed = ", ".join(valid[:12]) + (", …" if len(valid) > 12 else "")
    return Problem(
        place=source.document.place(path, "key" if at_key else "value"),
        key=dotted(path),
        got=shown(value),
        expected=f"one of {what}: {listed}",
        fix=f"did you mean {found!r}?" if found else "",
    )
