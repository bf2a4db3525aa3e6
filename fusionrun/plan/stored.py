"""`plan.json` of a run, read back."""

from __future__ import annotations

import json
from pathlib import Path

from fusionrun.errors import UserError
from fusionrun.plan.plan import Plan


def read_plan(path: Path) -> Plan:
    """The plan that a run was started with.

    Raises:
        UserError: the file is missing, is not JSON, or is of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; a run directory holds its plan there") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, not JSON ({error}); plan the recipe again") from error
    return Plan.from_json(content, str(path))
