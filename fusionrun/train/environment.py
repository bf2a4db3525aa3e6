"""What a run was trained with: versions, commit, host, devices. Facts only, gathered once."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fusionrun import __version__
from fusionrun.submit.project import commit_and_diff

_PACKAGES = ("torch", "numpy", "pydantic", "safetensors", "pyyaml")
_EXTRAS = ("timm", "torchvision")


def environment(device: torch.device) -> dict[str, Any]:
    """Plain JSON for `environment.json`; the commit is that of the working directory."""
    return {
        "fusionrun": __version__,
        "python": sys.version.split()[0],
        "packages": _versions(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": _device(device),
        "git": _git(Path.cwd()),
    }


@cache
def _versions() -> dict[str, str]:
    """Of what this process has; each is parsed from a file."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    for name in _EXTRAS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"type": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": "cuda",
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
    }


def _git(directory: Path) -> dict[str, Any] | None:
    """Commit and, where the work tree differs from it, the diff with its hash; None outside git.

    Files that may hold a secret are not in the diff.
    """
    commit, diff = commit_and_diff(directory)
    if commit is None:
        return None
    return {
        "commit": commit,
        "dirty": bool(diff),
        "diff_sha256": hashlib.sha256(os.fsencode(diff)).hexdigest() if diff else None,
        "diff": os.fsencode(diff).decode("utf-8", "replace"),
    }
