"""`plan.json` of a run: what it holds, and read back.

It ends with a digest of its own content. The run's id and its checkpoints go by the plan's hash,
which leaves out what a run may differ in; an edited seed would otherwise train another run under
the old one's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fusionrun.errors import UserError
from fusionrun.plan.plan import Plan
from fusionrun.regular import read_regular
from fusionrun.store.atomic import finite
from fusionrun.store.manifest import digest_of

__all__ = ["damage_of", "read_plan", "sealed"]

_DIGEST: Final = "sha256"


def sealed(plan: Plan) -> dict[str, Any]:
    """A plan as its run holds it: plain JSON with a digest of all of it."""
    # Through JSON once, so that the digest is of what a reader will see (tuples are lists).
    content = json.loads(json.dumps(finite(plan.to_json())))
    return {**content, _DIGEST: digest_of(content)}


def read_plan(path: Path) -> Plan:
    """The plan that a run was started with.

    Raises:
        UserError: the file is missing, is not what was written, or is of another version.
    """
    try:
        content = json.loads(read_regular(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; a run directory holds its plan there") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not JSON ({error}); {_FIX}") from error
    plan = Plan.from_json(content, str(path))
    _refuse_edited(content, path)
    return plan


def damage_of(path: Path) -> str:
    """What is wrong with a run's plan, in a line; empty where it is what was written."""
    try:
        content = json.loads(read_regular(path))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return "damaged, not JSON"
    if not isinstance(content, dict) or content.get(_DIGEST) != _digest_of_rest(content):
        return "damaged, or edited since it was written"
    return ""


def _digest_of_rest(content: Mapping[str, Any]) -> str:
    return digest_of({key: value for key, value in content.items() if key != _DIGEST})


_FIX: Final = "put back what was written, or begin a new run of the recipe with --new"


def _refuse_edited(content: Mapping[str, Any], path: Path) -> None:
    told = content.get(_DIGEST)
    found = _digest_of_rest(content)
    if told == found:
        return
    got = "no sha256 of its content" if told is None else f"content of sha256 {found[:12]}…"
    expected = "one, as every plan has" if told is None else f"the {str(told)[:12]}… it tells of"
    raise UserError(
        f"{path}: damaged, or edited since it was written\n"
        f"  got       {got}\n"
        f"  expected  {expected}\n"
        f"  A run goes on by the plan it began with: {_FIX}."
    )
