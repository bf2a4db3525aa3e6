"""What can be seen of a resume that would not be exact before anything is started. No torch.

Only what is beyond doubt here: the data, and the releases of what this interpreter finds, where it
will train on this machine. The trainer compares all of it: devices, threads and kernels as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fusionrun.data.content import content_hash
from fusionrun.errors import InexactError
from fusionrun.plan.plan import Plan
from fusionrun.store.checkpoints import PLACE, Damaged, list_checkpoints
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import typed

__all__ = ["refuse_inexact"]


def refuse_inexact(layout: RunLayout, plan: Plan, python: str) -> None:
    """Raises InexactError where the run would go on to other bits; nothing of it was changed.

    Args:
        layout: the run.
        plan: the same run's.
        python: the interpreter that will train it, on this machine.

    Raises:
        DataError: a file of its data cannot be read.
    """
    for checkpoint in list_checkpoints(layout.checkpoints):
        try:
            place = json.loads(checkpoint.read_one(PLACE))
            before = place["circumstances"]
            found = list(_data(plan, place["data"]))
            if python == sys.executable:
                found += _versions(before)
        except (Damaged, AttributeError, KeyError, TypeError, ValueError):
            continue  # the trainer passes it over, and says why
        if found:
            raise InexactError(checkpoint.path, found, typed(layout, "resume"))
        return


def _data(plan: Plan, before: Mapping[str, str]) -> Iterator[str]:
    for part, digest in content_hash(plan.data.files).items():
        if part in before and before[part] != digest:
            yield f"data, {part} rows: the file's content has changed"


def _versions(before: Mapping[str, Any]) -> Iterator[str]:
    here = ".".join(map(str, sys.version_info[:2]))
    if before["python"] != here:
        yield f"python: was {before['python']}, is {here}"
    for package in ("torch", "numpy"):
        now = _release(package)
        # (how it was built stands behind a plus, and not everywhere)
        if now and str(before[package]).partition("+")[0] != now.partition("+")[0]:
            yield f"{package}: was {before[package]}, is {now}"


def _release(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
