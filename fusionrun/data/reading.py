"""What reads a data source: three functions of a module, looked up when a recipe asks for it.

No torch, no numpy but inside `load`: a plan finds and scans, only a job loads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from fusionrun.data.report import Key, data_error, listing
from fusionrun.data.scan import FileScan
from fusionrun.errors import NotYetError
from fusionrun.schema.data import DATA, Data
from fusionrun.schema.splits import OfficialSplit, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fusionrun.data.decode import Pictures

ALL: Final = "all"
"""Key of the rows of a data set that is split by drawing."""

ROOT: Final = "root"
"""Key of a directory that holds the data among other things: its content is not the data's."""


class Reader(Protocol):
    """What a module of a data source offers. `data` is the recipe's section."""

    def find(self, data: Any, base_dir: Path) -> dict[str, Path]:
        """The files and directories that the recipe means, by what they are for.

        Raises:
            DataError: one is not there.
        """

    def scan(self, data: Any, files: Mapping[str, Path]) -> dict[str, FileScan]:
        """What their headers say, by part: `train`, `val` and `test`, or `all` to be drawn from.

        Raises:
            DataError: they are damaged, or not what the recipe says.
        """

    def load(self, data: Any, scan: FileScan) -> Mapping[str, NDArray[Any] | Pictures]:
        """The numbers of one part: view → (N, …) in the order of the scan's labels.

        Raises:
            DataError: they cannot be read.
        """


def reader_of(data: Data) -> Reader:
    """The reader of a source.

    Raises:
        NotYetError: the source is understood, and this version cannot read it.
    """
    if data.reader is not None:
        return cast("Reader", resolve_name(data.reader))
    known = [name for name in DATA.names() if (kind := DATA.find(name)) and kind.reader]
    raise NotYetError(
        f"data.source: {data.source} is understood, but this version of fusionrun cannot read it\n"
        f"  expected  {listing(known)}"
    )


def key_of(part: str) -> Key:
    """Where a recipe names the file of a part."""
    return ("data", "path") if part == ALL else ("data", "split", part)


def require_parts(found: Collection[str], split: Split, what: str) -> None:
    """Refuse parts that are not those which the split is made of.

    Args:
        found: the parts that the data comes in.
        split: of the recipe.
        what: what an error calls the data.

    Raises:
        DataError: the data has no such parts.
    """
    published = isinstance(split, OfficialSplit)
    fitting = {"train"} if published else {ALL}
    if fitting <= set(found) <= ({"train", "val", "test"} if published else {ALL}):
        return
    raise data_error(
        f"{what} does not come in the parts that data.split is made of",
        got=listing(found) or "no parts",
        expected="train, and as there are val and test" if published else "'all', to be drawn from",
        fix="leave data.split out, or give it no more than val"
        if "train" in found
        else "say how to divide it: split: {train: 0.6, val: 0.2, test: 0.2}",
        blamed=("data", "split"),
    )
