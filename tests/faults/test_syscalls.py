"""What the kernel is asked to do during one save, in which order, by strace's record."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SAVE = """
import sys
from pathlib import Path
from fusionrun.store.checkpoints import save_checkpoint
save_checkpoint(Path(sys.argv[1]), 7, [("weights", b"w" * 100_000), ("place.json", b"{}")])
"""


@pytest.fixture
def record(tmp_path: Path, program: Callable[[str], str]) -> list[str]:
    """One call a line, with the paths of file descriptors."""
    log, folder = tmp_path / "log", tmp_path / "run" / "checkpoints"
    folder.parent.mkdir()
    trace = "trace=openat,write,fsync,rename,renameat,renameat2,mkdir"
    command = [program("strace"), "-f", "-y", "-e", trace, "-o", str(log)]
    subprocess.run([*command, sys.executable, "-c", SAVE, str(folder)], check=True)
    return [line for line in log.read_text().splitlines() if str(folder) in line]


def at(record: list[str], pattern: str) -> int:
    """The one line of the record that fits."""
    (found,) = [n for n, line in enumerate(record) if re.search(pattern, line)]
    return found


def test_each_file_is_flushed_before_the_rename_and_the_directory_after(record: list[str]) -> None:
    renamed = at(record, r"rename.*tmp-[0-9a-f]+.*step-000000007\"")
    flushes = [n for n, line in enumerate(record) if "fsync" in line and n < renamed]
    files = [name for n in flushes for name in re.findall(r"tmp-[0-9a-f]{12}/([a-z.]+)", record[n])]
    assert files[:2] == ["weights", "place.json"]
    # The manifest comes last; then the directory that holds them all.
    assert record[flushes[-1]].endswith(" = 0")
    assert re.search(r"fsync\(\d+<[^>]*\.tmp-[0-9a-f]{12}>\)", record[flushes[-1]])
    assert at(record, r"fsync\(\d+<[^>]*/checkpoints>\)") > renamed


def test_files_are_created_for_this_save_alone(record: list[str]) -> None:
    opened = [line for line in record if "O_WRONLY" in line]
    assert len(opened) == 3
    assert all("O_CREAT|O_EXCL" in line for line in opened)
