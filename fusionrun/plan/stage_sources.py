"""A stage as a recipe of its own: what the user wrote, less what the stage has no use for.

Everything keeps the place where it was written, so that a reason in the stage's plan names the
recipe's line, and a problem is told there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fusionrun.data.header import DataSummary
from fusionrun.plan.augmentation import IMAGES_ONLY
from fusionrun.plan.stage_plan import LOSS_WEIGHTS
from fusionrun.recipe.document import Document
from fusionrun.recipe.keys import Path
from fusionrun.recipe.nodes import Entry, Node, Scalar, collection
from fusionrun.recipe.read import Source, derived

__all__ = ["pretraining_name", "pretraining_source", "stage_source"]

_RATES: Final = {
    "base_lr": ("base_lr", "experts"),
    "head_lr": ("head_lr", "fusion", "global_head"),
}
"""A rate of a stage → what of `learning_rates` it stands in the place of."""

_ALONE: Final = {
    "learning_rates": ("base_lr", "experts", "rules"),
    "schedulers": ("experts",),
    "knowledge_transfer": ("expert_gradient_accumulation", "expert_gradient_clipping"),
    "fusion": ("feature_norm",),
}
"""Section → what of it an expert that is trained alone goes by."""


def stage_source(source: Source, number: int) -> Source:
    """A stage of the fused run as a recipe: its epochs, rates and losses, and no other stage.

    How long experts are frozen, and what they start from, is the whole run's affair.

    Args:
        source: the recipe.
        number: of the stage in the recipe, from 0.
    """
    document = source.document
    stage = ("stages", number)
    root = _without(document.root, [("stages",), ("sweep",), *_starts(source)])
    root = _with_rates(document, root, stage)
    for loss in LOSS_WEIGHTS:
        if node := _given(document, (*stage, "losses", loss)):
            root = _put(root, ("knowledge_transfer", loss), node)
    return derived(source, document.with_root(_with_epochs(document, root, stage)))


def pretraining_source(source: Source, number: int, expert: str, summary: DataSummary) -> Source:
    """One expert alone as a recipe.

    Its global path is the product of one expert: that expert's own cross-entropy, and no
    parameters beside it.

    Args:
        source: the recipe.
        number: of its pretrain stage, from 0.
        expert: the expert's name.
        summary: of the data.
    """
    document, stage = source.document, ("stages", number)
    root = _without(document.root, [("stages",), ("sweep",), *_starts(source)])
    for section, keys in _ALONE.items():
        root = _only(root, (section,), keys)
    root = _only(root, ("experts",), (expert,))
    root = _only(root, ("learning_rates", "experts"), (expert,))
    root = _without(root, [("training", "selection", "path"), *_unfit(source, expert, summary)])
    root = _with_epochs(document, _with_rates(document, root, stage), stage)
    made: dict[Path, Scalar] = {
        ("name",): pretraining_name(source.recipe.name, expert),
        ("fusion", "type"): "productOfExperts",
        ("knowledge_transfer", "lambda_loss"): 0.0,
    }
    place = document.place((*stage, "stage"))
    for path, value in made.items():
        root = _put(root, path, Node(value, place))
    return derived(source, document.with_root(root))


def pretraining_name(recipe: str, expert: str) -> str:
    """What the run of one expert alone is called."""
    return f"{recipe}-pretrain-{expert}"


def _starts(source: Source) -> list[Path]:
    return [("experts", name, key) for name in source.recipe.experts for key in _START_KEYS]


_START_KEYS: Final = ("freeze", "weights")


def _unfit(source: Source, expert: str, summary: DataSummary) -> Iterable[Path]:
    """Augmentation that means nothing to this expert's view alone."""
    yield ("augmentation", "modality_dropout")
    if len(summary.views[source.recipe.experts[expert].view]) != 3:
        yield from (("augmentation", name) for name in IMAGES_ONLY)


def _with_rates(document: Document, root: Node, stage: Path) -> Node:
    for rate, instead_of in _RATES.items():
        if node := _given(document, (*stage, "learning_rates", rate)):
            root = _without(root, [("learning_rates", key) for key in instead_of])
            root = _put(root, ("learning_rates", rate), node)
    return root


def _with_epochs(document: Document, root: Node, stage: Path) -> Node:
    epochs = _given(document, (*stage, "epochs"))
    if epochs is None:
        raise RuntimeError("a stage without epochs")
    return _put(root, ("training", "epochs"), epochs)


def _given(document: Document, path: Path) -> Node | None:
    """The node at a path, unless there is none, or a null."""
    node = document.root
    for part in path:
        entry = node.child(part)
        if entry is None:
            return None
        node = entry.node
    return None if node.content is None else node


# A tree of nodes with something else in it; nodes themselves never change.


def _children(node: Node) -> dict[str, Entry]:
    return dict(node.content) if isinstance(node.content, dict) else {}


def _put(node: Node, path: Path, value: Node) -> Node:
    if not path:
        return value
    key, children = str(path[0]), _children(node)
    old = children.get(key)
    below = _put(old.node if old else Node({}, value.place, 1), path[1:], value)
    children[key] = Entry(old.key if old else value.place, below)
    return collection(children, node.place)


def _without(node: Node, paths: Iterable[Path]) -> Node:
    for path in paths:
        node = _less(node, path)
    return node


def _less(node: Node, path: Path) -> Node:
    key, children = str(path[0]), _children(node)
    if key not in children:
        return node
    if len(path) == 1:
        del children[key]
    else:
        children[key] = Entry(children[key].key, _less(children[key].node, path[1:]))
    return collection(children, node.place) if isinstance(node.content, dict) else node


def _only(node: Node, path: Path, keys: Iterable[str]) -> Node:
    """The tree with nothing but some keys in the mapping at a path."""
    section = node
    for part in path:
        entry = section.child(part)
        if entry is None:
            return node
        section = entry.node
    return _without(node, [(*path, key) for key in _children(section) if key not in keys])
