"""What Slurm or the local executor starts, one process a rank: `python -m fusionrun.job RUN_DIR`.

Ends with 0: completed, or stopped as asked; 1: failed; 2: the recipe or the environment is wrong;
75: another process trains the run; 130: interrupted by a person. Whether it was completed or
stopped, and why, is in `outcome.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fusionrun.errors import BusyError, FusionrunError, UserError
from fusionrun.store.layout import RunLayout
from fusionrun.submit.after import BUSY

if TYPE_CHECKING:
    from fusionrun.train.ranks import Ranks

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, or go on training, the run in a directory; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m fusionrun.job", description=_SUMMARY)
    parser.add_argument("directory", metavar="RUN_DIR", type=Path, help="the run's directory")
    parser.add_argument("--fresh", action="store_true", help="begin again, whatever is there")
    given = parser.parse_args(arguments)
    try:
        _run(RunLayout(given.directory), fresh=given.fresh)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BusyError as error:
        print(error, file=sys.stderr)
        return BUSY
    except FusionrunError as error:
        print(error, file=sys.stderr)
        return UserError.exit_code if isinstance(error, UserError) else FusionrunError.exit_code
    except Exception:  # noqa: BLE001 (the last one to hear of it; the run's records have it too)
        traceback.print_exc()
        return FusionrunError.exit_code
    return 0


_SUMMARY = "Train the run in a directory: one process of it, started by Slurm or by hand."


def _run(layout: RunLayout, *, fresh: bool) -> None:
    from fusionrun.train.job import run

    ranks = _joined(layout)
    try:
        outcome = run(layout, ranks=ranks, term_asks=True, fresh=fresh)
    finally:
        ranks.close()
    if ranks.is_first:
        print(f"{outcome}: {layout.root}", flush=True)


def _joined(layout: RunLayout) -> Ranks:
    """All ranks together; where they do not come, that is this rank's error."""
    from fusionrun.plan.stored import read_plan
    from fusionrun.train.assemble import choose_device
    from fusionrun.train.rank_errors import forget_errors, record_error
    from fusionrun.train.rank_place import rank_place
    from fusionrun.train.ranks import join_ranks

    forget_errors(layout, rank_place(os.environ))
    try:
        return join_ranks(choose_device(read_plan(layout.plan).settings.training.device))
    except FusionrunError as error:
        record_error(layout, rank_place(os.environ), None, error)
        raise


if __name__ == "__main__":
    sys.exit(main())
