"""How much memory is free: on this machine, and in a control group made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusionrun.data import free_memory


def test_this_machine_has_some_memory_left() -> None:
    assert 0 < (free_memory.free_bytes() or 0) < 1 << 50


def test_a_groups_limit_counts_where_it_is_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "job" / "step"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("10\n")
    (group.parent / "memory.max").write_text("1000\n")
    (group.parent / "memory.current").write_text("400\n")
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    monkeypatch.setattr(free_memory, "_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(free_memory, "_GROUPS", tmp_path)
    assert free_memory.free_bytes() == 600


def test_a_machine_that_does_not_tell_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_GROUP", "_MEMINFO"):
        monkeypatch.setattr(free_memory, name, tmp_path / "absent")
    assert free_memory.free_bytes() is None
