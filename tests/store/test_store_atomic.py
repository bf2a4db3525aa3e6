"""The old content or the new, whatever fails in between."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from fusionrun.store import atomic


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_content_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old and longer")
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["f"]


def test_text_is_written_in_utf8_without_changing_line_breaks(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "f", "é\r\nλ\n")
    assert (tmp_path / "f").read_bytes() == "é\r\nλ\n".encode()


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_files_mode_follows_the_umask(tmp_path: Path, mask: int, expected: int) -> None:
    with umask(mask):
        atomic.write_bytes(tmp_path / "f", b"x")
    assert mode(tmp_path / "f") == expected


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o755), (0o077, 0o700)])
def test_a_directorys_mode_follows_the_umask(tmp_path: Path, mask: int, expected: int) -> None:
    with umask(mask):
        atomic.replace_directory(tmp_path / "d", lambda aside: None)
    assert mode(tmp_path / "d") == expected


def test_a_file_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127 + "x")
    atomic.write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "disk says no")

    path = tmp_path / "f"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, failing, refuse)
    with pytest.raises(OSError, match="disk says no"):
        atomic.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_an_exception_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic.replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt("now")

    with pytest.raises(KeyboardInterrupt, match="now"):
        interrupted()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


def test_a_file_system_that_cannot_flush_directories_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not here")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.write_bytes(tmp_path / "f", b"x")
    assert (tmp_path / "f").read_bytes() == b"x"


def test_the_file_is_flushed_before_the_rename_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("flush directory" if is_directory else "flush file")
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    atomic.write_bytes(tmp_path / "f", b"x")
    assert calls == ["flush file", "rename", "flush directory"]


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from fusionrun.store import atomic
with atomic.replacing(Path(sys.argv[1])) as file:
    file.write(b"new" * 100_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_killed_in_the_middle_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


RESTLESS_WRITER = """
import sys
from pathlib import Path
from fusionrun.store import atomic
number = 0
while True:
    number += 1
    atomic.write_json(Path(sys.argv[1]), {"number": number, "again": [number] * 2000})
    print(number, flush=True)
"""


def test_a_reader_never_sees_half_a_file_even_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    command = [sys.executable, "-c", RESTLESS_WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(50):
            value = json.loads(path.read_bytes())
            assert set(value["again"]) == {value["number"]}
        writer.kill()
    value = json.loads(path.read_bytes())
    assert set(value["again"]) == {value["number"]}


def test_json_keeps_the_order_of_keys_and_ends_its_last_line(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "f", {"z": 1, "a": ["é", None]})
    assert (tmp_path / "f").read_text() == '{\n  "z": 1,\n  "a": [\n    "é",\n    null\n  ]\n}\n'


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    value = {"loss": math.nan, "norms": (math.inf, 1.5), "deep": {"x": -math.inf}}
    atomic.write_json(tmp_path / "f", MappingProxyType(value))
    expected = {"loss": None, "norms": [None, 1.5], "deep": {"x": None}}
    assert json.loads((tmp_path / "f").read_text()) == expected


def test_a_file_name_that_is_no_text_survives_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    atomic.write_json(tmp_path / "f", {"path": name})
    assert json.loads((tmp_path / "f").read_text(encoding="utf-8")) == {"path": name}


def test_an_object_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "f", 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        atomic.write_json(tmp_path / "f", object())
    assert (tmp_path / "f").read_text() == "1\n"


def test_appended_lines_stand_one_under_the_other(tmp_path: Path) -> None:
    atomic.append_line(tmp_path / "f", {"epoch": 0, "loss": math.nan})
    atomic.append_line(tmp_path / "f", {"epoch": 1, "note": "two\nlines"})
    lines = (tmp_path / "f").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"epoch": 0, "loss": None},
        {"epoch": 1, "note": "two\nlines"},
    ]


def test_a_line_after_a_torn_one_starts_on_its_own(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"epoch": 0}\n{"epo')
    atomic.append_line(tmp_path / "f", {"epoch": 2})
    assert (tmp_path / "f").read_text() == '{"epoch": 0}\n{"epo\n{"epoch": 2}\n'


def test_a_line_that_only_half_fits_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    with pytest.raises(OSError, match="No space left"):
        atomic.append_line(tmp_path / "f", {"epoch": 0})


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "d"
    atomic.replace_directory(target, lambda aside: (aside / "old").write_text("x") and None)
    atomic.replace_directory(target, lambda aside: (aside / "new").write_text("y") and None)
    assert names(target) == ["new"]
    assert names(target.parent) == ["d"]


def half_filled(aside: Path) -> None:
    (aside / "new").write_text("half")
    raise RuntimeError("no more room")


def test_a_directory_whose_filling_fails_stays_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "d"
    atomic.replace_directory(target, lambda aside: (aside / "old").write_text("x") and None)
    with pytest.raises(RuntimeError, match="no more room"):
        atomic.replace_directory(target, half_filled)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["d"]


READER = """
import os, sys
while sys.stdin:
    if os.path.exists(sys.argv[2]):
        break
    if not os.path.isdir(sys.argv[1]):
        sys.exit("between the old and the new")
"""


def test_a_reader_finds_a_directory_there_at_any_moment(tmp_path: Path) -> None:
    target, done = tmp_path / "d", tmp_path / "done"

    def fill(aside: Path) -> None:
        for name in ("one", "two"):
            atomic.create_bytes(aside / name, b"x")

    atomic.replace_directory(target, fill)
    with subprocess.Popen([sys.executable, "-c", READER, str(target), str(done)]) as reader:
        for _ in range(100):
            atomic.replace_directory(target, fill)
        done.touch()
    assert reader.returncode == 0
    assert names(tmp_path) == ["d", "done"]


def test_a_link_in_place_of_a_directory_is_replaced_and_not_followed(tmp_path: Path) -> None:
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "run" / "d"
    elsewhere.mkdir()
    target.parent.mkdir()
    target.symlink_to(elsewhere)
    atomic.replace_directory(target, lambda aside: (aside / "new").write_text("y") and None)
    assert not target.is_symlink()
    assert (names(target), names(elsewhere), names(target.parent)) == (["new"], [], ["d"])


def test_a_directory_inside_a_linked_one_is_refused(tmp_path: Path) -> None:
    elsewhere, linked = tmp_path / "elsewhere", tmp_path / "linked"
    elsewhere.mkdir()
    linked.symlink_to(elsewhere)
    with pytest.raises(OSError, match="a symbolic link, expected a directory"):
        atomic.replace_directory(linked / "d", lambda aside: None)
    assert names(elsewhere) == []


def test_no_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    atomic.require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(OSError, match="bytes are to be written") as error:
        atomic.require_space(tmp_path / "not" / "there", 2**60)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(tmp_path / "not" / "there")


def as_on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two directories cannot trade places."""
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


def test_a_directory_whose_swap_fails_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_nfs(monkeypatch)
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").write_text("x")
    rename = os.rename

    def refuse_the_second(source: Path, to: Path) -> None:
        if ".tmp-" in str(source):
            raise OSError(errno.EIO, "disk says no")
        rename(source, to)

    monkeypatch.setattr(os, "rename", refuse_the_second)
    with pytest.raises(OSError, match="disk says no"):
        atomic.replace_directory(target, lambda aside: None)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["d"]


KILLED_SWAP = """
import os, signal, sys
from pathlib import Path
from fusionrun.store import atomic
atomic._exchange = lambda one, other: False  # as on NFS
rename = os.rename
def rename_once(source, target):
    rename(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
os.rename = rename_once
atomic.replace_directory(Path(sys.argv[1]), lambda aside: None)
"""


def test_a_directory_lost_between_two_renames_comes_back_with_the_next_call(tmp_path: Path) -> None:
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").write_text("x")
    done = subprocess.run([sys.executable, "-c", KILLED_SWAP, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()

    with pytest.raises(RuntimeError, match="no more room"):
        atomic.replace_directory(target, half_filled)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["d"]
