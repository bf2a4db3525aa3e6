"""What a file is that torch's restricted reader can make nothing of: told by its form alone.

Torch's own words for such files advise to read them without the restriction; these say what the
file is, and how its tensors are saved again. Nothing is unpickled here, and torch is not needed.
"""

from __future__ import annotations

import pickletools
import struct
import tarfile
import zipfile
from itertools import islice
from typing import BinaryIO, Final, NamedTuple

__all__ = ["DAMAGED", "SAVE_AGAIN", "Misfit", "misfit"]

SAVE_AGAIN: Final = (
    "Save its tensors again where it was made: torch.save(model.state_dict(), …), or "
    "safetensors.torch.save_file(…), which needs no converting."
)
_COPY_AGAIN: Final = (
    "Copy or download it once more, and compare its size and checksum with the original's."
)

_ZIP: Final = b"PK\x03\x04"
# The pickled number that torch's format of before 1.6 begins with.
_LEGACY: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PICKLE_OPS: Final = 1000
"""So many in a row that are sound make a pickle of a file; assumed."""


class Misfit(NamedTuple):
    """A file that holds no state dict as torch saves it.

    Attributes:
        what: it is, in words.
        fix: what to do.
    """

    what: str
    fix: str


DAMAGED: Final = Misfit("a file of torch.save that is cut short or damaged", _COPY_AGAIN)
"""For one of the right form that cannot be read all the same."""


def misfit(file: BinaryIO) -> Misfit | None:
    """What a file is instead of one that torch.save has written; None where it may be one.

    Args:
        file: at its beginning, where it is left again.
    """
    head = file.read(len(_LEGACY))
    file.seek(0)
    try:
        if not head:
            return Misfit("an empty file", _COPY_AGAIN)
        if head.startswith(_ZIP):
            return _zip_misfit(file)
        return None if head == _LEGACY else _other(file)
    finally:
        file.seek(0)


def _zip_misfit(file: BinaryIO) -> Misfit | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
        return Misfit("a zip archive that is cut short or damaged", _COPY_AGAIN)
    if "constants.pkl" in names:
        return Misfit("a TorchScript archive: a program, not a state dict", SAVE_AGAIN)
    if "data.pkl" not in names:
        return Misfit("a zip archive of something else", SAVE_AGAIN)
    return None


def _other(file: BinaryIO) -> Misfit:
    if _is_pickle(file):
        what = "a plain pickle (of pickle.dump, joblib or the like); nothing of it was run"
        return Misfit(what, SAVE_AGAIN)
    file.seek(0)
    if tarfile.is_tarfile(file):
        return Misfit("a tar archive, as torch wrote it before version 0.1.10", SAVE_AGAIN)
    return Misfit("a file of another kind: no zip archive, no pickle", SAVE_AGAIN)


def _is_pickle(file: BinaryIO) -> bool:
    """Whether its beginning reads as a pickle's operations, which are listed, not carried out."""
    if file.read(1) == b"\x80":
        return True
    file.seek(0)
    try:
        return sum(1 for _ in islice(pickletools.genops(file), _PICKLE_OPS)) > 1
    except (ValueError, OverflowError, struct.error):
        return False
