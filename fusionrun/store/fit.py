"""Whether the tensors of a weights file are those that an expert needs. No torch.

A file holds an expert as a run saves it (`scaler.…`, `backbone.…`, perhaps `norm.…`), or a network
as its library or publication saves it, with the backbone's own names and a classifier behind: that
is left out, and what stands around the backbone is the new run's. Everything else is strict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from fusionrun.errors import ComponentError
from fusionrun.nearest import did_you_mean
from fusionrun.store.safetensors_header import Header

__all__ = ["Fit", "check_fit", "fit_backbone"]

_SHOWN: Final = 8
"""Tensors of one kind in a message: a file of quite another network fills no more than a screen."""

_NORM: Final = frozenset({"norm.weight", "norm.bias"})
_SHARED_NORM: Final = "it has a LayerNorm at its output: fusion.feature_norm: shared"

Kind: TypeAlias = tuple[str, Sequence[int]]
"""A tensor's type, in safetensors' word (`F32`), and shape."""


@dataclass(frozen=True)
class Fit:
    """How a file's tensors become an expert's.

    Attributes:
        prefix: what stands before the file's names in the expert; empty: the file is an expert.
        left_out: the file's tensors that are its classifier's.
    """

    prefix: str = ""
    left_out: tuple[str, ...] = ()


def fit_backbone(
    header: Header,
    expected: Mapping[str, Kind],
    what: str,
    *,
    prefix: str,
    classifier: Sequence[str],
) -> Fit:
    """How a file fits an expert: as one, or as its backbone with the names of its origin.

    Args:
        header: of the file.
        expected: the expert's tensors.
        what: names the file in the error.
        prefix: what stands before the names of the backbone's origin, such as `backbone.`.
        classifier: what the origin's classifier is called.

    Raises:
        ComponentError: listing every tensor that is missing, not wanted, or of another kind.
    """
    left_out = tuple(name for name in header.tensors if _is_below(name, classifier))
    own = [name for name in header.tensors if name not in left_out]
    bare = {n.removeprefix(prefix): k for n, k in expected.items() if n.startswith(prefix)}
    if 2 * sum(name in bare for name in own) <= len(own):
        check_fit(header, expected, what)
        return Fit()
    check_fit(header, bare, what, ignored=left_out)
    return Fit(prefix, left_out)


def _is_below(name: str, prefixes: Iterable[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def check_fit(
    header: Header, expected: Mapping[str, Kind], what: str, ignored: Iterable[str] = ()
) -> None:
    """Whether a file's tensors are exactly those a component needs, by name, shape and type.

    Args:
        header: of the file.
        expected: the component's tensors.
        what: names the file in the error.
        ignored: tensors of the file that are not looked at.

    Raises:
        ComponentError: listing every tensor that is missing, not wanted, or of another kind.
    """
    found = {
        name: (info.dtype, tuple(info.shape))
        for name, info in header.tensors.items()
        if name not in set(ignored)
    }
    wanted = {name: (dtype, tuple(shape)) for name, (dtype, shape) in expected.items()}
    missing = [name for name in wanted if name not in found]
    surplus = [name for name in found if name not in wanted]
    other = [name for name, kind in wanted.items() if found.get(name, kind) != kind]
    if not (missing or surplus or other):
        return

    def hint(name: str) -> str:
        meant = did_you_mean(name, surplus)
        return f"; {meant}" if meant else ""

    lines = [
        *_some(missing, "missing", lambda n: f"{n} is missing, {_words(wanted[n])}{hint(n)}"),
        *_some(
            other,
            "of another kind",
            lambda n: f"{n} is {_words(found[n])}, needed is {_words(wanted[n])}",
        ),
        *_some(surplus, "not known", lambda n: f"{n} is not known here, {_words(found[n])}"),
        *([_SHARED_NORM] if _NORM.issubset(surplus) else []),
        *_channels(found, wanted),
    ]
    listed = "".join(f"\n  {line}" for line in lines)
    raise ComponentError(f"{what}: its tensors do not fit{listed}")


def _some(names: Sequence[str], kind: str, line: Callable[[str], str]) -> list[str]:
    """A line for each of the first names, and how many there are more."""
    rest = len(names) - _SHOWN
    return [*map(line, names[:_SHOWN]), *([f"and {rest} more are {kind}"] if rest > 0 else [])]


def _channels(found: Mapping[str, Kind], wanted: Mapping[str, Kind]) -> list[str]:
    """What a first convolution of other channels means, if that is what is wrong."""
    first = next((name for name, (_, shape) in wanted.items() if len(shape) == 4), "")
    if first not in found:
        return []
    (_, got), (_, needed) = found[first], wanted[first]
    if len(got) != 4 or got[1] == needed[1] or [got[0], *got[2:]] != [needed[0], *needed[2:]]:
        return []
    return [
        f"its first convolution reads images of {got[1]} channel{'s' * (got[1] != 1)}, "
        f"this expert's view has {needed[1]}: name a view of {got[1]}, or other weights"
    ]


def _words(kind: Kind) -> str:
    dtype, shape = kind
    return f"{dtype} {list(shape)}"
