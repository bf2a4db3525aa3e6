"""A site's `slurm` section: what holds for every recipe on a cluster, below what a recipe says."""

from __future__ import annotations

import os
from pathlib import Path

from fusionrun.errors import UserError
from fusionrun.recipe.document import Document, read_document
from fusionrun.recipe.nodes import Entry, Node, collection
from fusionrun.recipe.text import read_raw

SITE_ORDER = -1
"""Rank of the site's text: below the recipe, whose rank is 0."""

# Of each pair a recipe's own choice silences the site's other one: both together mean neither.
RIVALS = {
    "gpus_per_node": "gres",
    "gres": "gpus_per_node",
    "mem": "mem_per_cpu",
    "mem_per_cpu": "mem",
}


def site_file(option: str | None) -> Path | None:
    """The site's file: the option, else FUSIONRUN_SITE, else `slurm.yaml` in the user's
    configuration directory; None where there is none. An empty option or variable is none, too.

    Raises:
        UserError: the option or the variable names a file that is not there.
    """
    given = os.environ.get("FUSIONRUN_SITE") if option is None else option
    if given is not None:
        path = Path(os.path.expanduser(given))
        if given and not path.is_file():
            raise UserError(f"{given}: no such file; expected the site's slurm section in YAML")
        return path if given else None
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = Path(config, "fusionrun", "slurm.yaml")
    return path if path.is_file() else None


def above_site(recipe: Document, site: Path) -> Document:
    """The recipe with what only the site's file says put into its `slurm` section.

    The file holds the section's keys, without the word `slurm` above them. Mappings are merged
    key by key, anything else the recipe has replaces what the site has.

    Raises:
        UserError: the file cannot be read.
        RecipeError: it is no YAML mapping.
    """
    try:
        raw = read_raw(site)
    except OSError as error:
        raise UserError(f"{site}: cannot be read: {error.strerror}") from error
    base = read_document(raw, str(site), order=SITE_ORDER)
    children = dict(recipe.root.content) if isinstance(recipe.root.content, dict) else {}
    own = children.get("slurm")
    children["slurm"] = (
        Entry(own.key, _merged(own.node, base.root)) if own else Entry(base.root.place, base.root)
    )
    return recipe.with_root(collection(children, recipe.root.place))


def _merged(own: Node, base: Node) -> Node:
    if not (isinstance(own.content, dict) and isinstance(base.content, dict)):
        return own
    silenced = {RIVALS[key] for key in own.content if key in RIVALS}
    children: dict[str, Entry] = {k: e for k, e in base.content.items() if k not in silenced}
    for key, entry in own.content.items():
        below = children.get(key)
        children[key] = Entry(entry.key, _merged(entry.node, below.node)) if below else entry
    return collection(children, own.place)
