"""What a file system says when it refuses, for people: the file, the reason, the way out."""

from __future__ import annotations

import errno
from typing import Final

__all__ = ["in_words", "way_out"]

_WAYS_OUT: Final = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on that file system"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "let it be written"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "put back what was moved or removed"),
    errno.ELOOP: "remove that link",
}


def in_words(error: OSError) -> str:
    """The file and what is the matter with it: `runs/x/metrics.jsonl: No space left on device`."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def way_out(error: OSError) -> str:
    """What to do about it, as an order."""
    return _WAYS_OUT.get(error.errno or 0, "mend that file system")
