"""The nearest valid name for what a user wrote, here or in another section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from fusionrun.nearest import distance, is_slip, nearest
from fusionrun.schema.describe import MOST_LISTED, listed

# What other tools call it, and where it is set here; NAME is any expert. Lower case.
FOREIGN_NAMES = {
    "accumulate_grad_batches": "knowledge_transfer.expert_gradient_accumulation",
    "alpha": "knowledge_transfer.knowledge_distillation_weight",
    "amp": "training.precision",
    "backbone": "experts.NAME.model",
    "batch": "training.batch_size",
    "bs": "training.batch_size",
    "clip": "knowledge_transfer.fusion_gradient_clipping",
    "clip_grad_norm": "knowledge_transfer.fusion_gradient_clipping",
    "cpus": "slurm.cpus_per_task",
    "dataset": "data",
    "distillation": "knowledge_transfer.knowledge_distillation_weight",
    "distillation_weight": "knowledge_transfer.knowledge_distillation_weight",
    "embed_dim": "fusion.dim",
    "fusion_dim": "fusion.dim",
    "fusion_type": "fusion.type",
    "global_head_lr": "learning_rates.global_head",
    "gpu": "slurm.gpus_per_node",
    "gpus": "slurm.gpus_per_node",
    "grad_clip": "knowledge_transfer.fusion_gradient_clipping",
    "gradient_accumulation": "knowledge_transfer.expert_gradient_accumulation",
    "gradient_accumulation_steps": "knowledge_transfer.expert_gradient_accumulation",
    "gradient_clip_val": "knowledge_transfer.fusion_gradient_clipping",
    "gradient_clipping": "knowledge_transfer.fusion_gradient_clipping",
    "hidden_size": "fusion.hidden_dim",
    "kd_weight": "knowledge_transfer.knowledge_distillation_weight",
    "label_column": "data.label",
    "lambda": "knowledge_transfer.lambda_loss",
    "learning_rate": "learning_rates.base_lr",
    "lr": "learning_rates.base_lr",
    "lr_scheduler": "schedulers",
    "max_epochs": "training.epochs",
    "modalities": "experts",
    "mixed_precision": "training.precision",
    "models": "experts",
    "n_epochs": "training.epochs",
    "num_epochs": "training.epochs",
    "num_hidden_layers": "fusion.num_layers",
    "optim": "training.optimizer",
    "output_dim": "experts.NAME.features",
    "patience": "training.early_stopping.patience",
    "random_seed": "seed",
    "scheduler": "schedulers",
    "smoothing": "augmentation.label_smoothing",
    "t": "knowledge_transfer.temperature",
    "target": "data.label",
    "tau": "knowledge_transfer.temperature",
    "test_size": "data.split.test",
    "val_size": "data.split.val",
    "val_split": "data.split.val",
    "walltime": "slurm.time",
    "wd": "training.optimizer.weight_decay",
}

_HEADS = {"head", "heads"}
_HEADS_OF = {"schedulers", "learning_rates"}
"""Sections that have `experts`, and mean the experts' heads by it too."""


def some_of(names: Sequence[str], name: str) -> str:
    """The names as a list in print; of many, those most like `name`, in their own order."""
    if len(names) <= MOST_LISTED:
        return listed(names)
    kept = sorted(names, key=lambda candidate: distance(name, candidate))[:MOST_LISTED]
    return ", ".join(candidate for candidate in names if candidate in kept) + ", …"


def fix_for_key(key: str, section: str, valid: Sequence[str]) -> str:
    """What to say of an unknown key in `section` (dotted, empty at the top) with keys `valid`."""
    if key.casefold() in _HEADS and section in _HEADS_OF:
        return f"a head follows its expert: {f'{section}.experts'!r} sets both"
    here = nearest(key, valid, 0.7)
    foreign = FOREIGN_NAMES.get(key.casefold())
    if here and (not foreign or (section and is_slip(key, here))):
        return f"did you mean {here!r}?"
    if there := foreign or _elsewhere(key):
        return _set_by(key, _named(there, section), section)
    return f"remove {key!r}" + ("" if section else ", or write it as 'x-…' if it is a note")


def _set_by(key: str, there: str, section: str) -> str:
    parent, _, last = there.rpartition(".")
    if parent == section:
        return f"did you mean {last!r}?"
    where = "" if parent else " at the top of the recipe"
    return f"{key!r} is not known here; {there!r}{where} sets it"


def key_of_plan(key: str, keys: Iterable[str]) -> str | None:
    """The full key that a bare word means, such as `base_lr`; `keys` are all there are.

    A key that ends with the word, then what other tools call so, then a slip of such a key.
    """
    keys = tuple(keys)
    last = _by_last_part(keys)
    if key in last:
        return last[key]
    foreign = FOREIGN_NAMES.get(key.casefold())
    if foreign in keys:
        return foreign
    found = nearest(key, tuple(last), cutoff=0.8) if len(key) > 3 else None
    return last[found] if found else None


def _by_last_part(keys: Iterable[str]) -> dict[str, str]:
    """Last word of a key → the key; of several the usual one, which is the most general.

    One that holds for the whole run comes before one of an expert, and few parts before many.
    """
    ranked = sorted(keys, key=lambda full: ("NAME" in full.split("."), full.count(".")))
    return {full.rpartition(".")[2]: full for full in reversed(ranked)}


def _elsewhere(key: str) -> str | None:
    last = _by_last_part(_all_keys())
    # Every short word is a slip away from some key of the whole recipe.
    found = nearest(key, tuple(last), cutoff=0.8) if len(key) > 3 or key in last else None
    return last[found] if found else None


def _named(key: str, section: str) -> str:
    """Put the expert's own name for NAME where the mistake stands inside that expert."""
    parts = section.split(".")
    if parts[0] == "experts" and len(parts) > 1:
        if key == "learning_rates.base_lr":
            return f"learning_rates.experts.{parts[1]}"
        return key.replace("NAME", parts[1])
    return key


@cache
def _all_keys() -> tuple[str, ...]:
    from fusionrun.schema.describe import all_keys

    return tuple(all_keys())
