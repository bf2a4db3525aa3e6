"""What models of other libraries are like, asked once of the library and kept. No torch.

A plan needs the width of a model's features and its tensors. A process of its own imports torch
and the library, builds the model on the meta device and says what it found; that is kept in the
user's cache, for this version of the library, and the next plan imports neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from fusionrun.blueprint import Tensor
from fusionrun.errors import UserError
from fusionrun.nearest import did_you_mean

__all__ = ["Description", "UnfitModelError", "UnknownModelError", "cache_dir", "describe"]

FORMAT: Final = 1
"""Of what is kept: another one is asked for anew."""

CACHE_VARIABLE: Final = "FUSIONRUN_CACHE"


class UnknownModelError(ValueError):
    """The library is not installed here, or has no model of this name.

    Attributes:
        fix: what to do about it, or empty.
    """

    def __init__(self, expected: str, fix: str) -> None:
        self.fix = fix
        super().__init__(expected)


class UnfitModelError(ValueError):
    """The library has the model, and it cannot read such images."""


@dataclass(frozen=True)
class Description:
    """A library's model without its classifier, for images of one shape.

    Attributes:
        features: width of what it gives.
        args: keyword arguments with which the library makes it for such images.
        classifier: what its classifier is called in the library's files of weights.
        tensors: all it has, under the library's own names.
    """

    features: int
    args: Mapping[str, Any]
    classifier: tuple[str, ...]
    tensors: Mapping[str, Tensor]


def describe(
    library: str, name: str, input_shape: tuple[int, int, int], args: Mapping[str, Any]
) -> Description:
    """What a model is like.

    Args:
        library: `timm` or `torchvision`.
        name: the model's name there.
        input_shape: (channels, height, width).
        args: further keyword arguments for the library.

    Raises:
        UnknownModelError: there is no such library here, or no such model in it.
        UnfitModelError: the model cannot read such images, or does not take such arguments.
        UserError: the library could not be asked.
    """
    request = {"library": library, "name": name, "input_shape": input_shape, "args": dict(args)}
    return _describe(json.dumps(request, sort_keys=True))


def cache_dir() -> Path:
    """Where descriptions are kept: $FUSIONRUN_CACHE, else below the user's cache directory."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusionrun"


@cache
def _describe(request: str) -> Description:
    library, name = (json.loads(request)[key] for key in ("library", "name"))
    version, kept = _version(library), kept_at(request)
    answer = _read(kept)
    if answer is None:
        answer = _ask(library, request)
        if "features" in answer:
            _keep(kept, answer)
    if "unknown" in answer:
        known = answer["known"]
        expected = f"one of the {len(known)} models of {library} {version}"
        raise UnknownModelError(expected, did_you_mean(name, known))
    if "unfit" in answer:
        raise UnfitModelError(f"what {library} {version} says of {name}: {answer['unfit']}")
    return _description(answer)


def kept_at(request: str) -> Path:
    """Where the answer to a request is kept: for each version of its library another file."""
    library = json.loads(request)["library"]
    version = _version(library)
    key = hashlib.sha256(f"{FORMAT} {version} {request}".encode()).hexdigest()
    return cache_dir() / "models" / f"{library}-{version}-{key[:16]}.json"


def _version(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, seldom needed

    try:
        return version(library)
    except PackageNotFoundError as error:
        fix = f"{library} is not installed here: pip install 'fusionrun[{library}]'"
        raise UnknownModelError("a model that can be had here", fix) from error


def _read(kept: Path) -> dict[str, Any] | None:
    """What was kept, or None: also where it cannot be read or is damaged, then it is made anew."""
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        _description(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(content)


def _keep(kept: Path, answer: Mapping[str, Any]) -> None:
    from fusionrun.store.atomic import write_json

    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, dict(answer))


def _ask(library: str, request: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "fusionrun.models.outside"]
    # Nothing is downloaded for a plan, whatever the model's constructor would do.
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, input=request, capture_output=True, text=True, env=offline)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UserError(
            f"{library} could not be asked what its model is like: {last}\n"
            f"'{' '.join(command)}' failed; torch and {library} must be importable here"
        )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _description(answer: Mapping[str, Any]) -> Description:
    return Description(
        features=int(answer["features"]),
        args={k: tuple(v) if isinstance(v, list) else v for k, v in answer["args"].items()},
        classifier=tuple(answer["classifier"]),
        tensors={
            name: Tensor(tuple(shape), dtype, trainable)
            for name, (dtype, shape, trainable) in answer["tensors"].items()
        },
    )
