"""The benchmarks' own environment, `.venv-benchmarks`: fusionrun, its torch, and the peers."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".venv-benchmarks"
PEERS = ("lightning>=2.5", "accelerate>=1.8", "scikit-learn>=1.5")


def is_here() -> bool:
    return Path(sys.prefix).resolve() == FOLDER.resolve()


def go_there(arguments: list[str]) -> None:
    """Make it, where it is not there yet, and go on in it; this process ends here."""
    python = FOLDER / "bin" / "python"
    if not (FOLDER / "complete").exists():
        print(f"making {FOLDER.name}: torch and the peers", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *_torch(), "-e", str(ROOT), *PEERS], check=True)
        (FOLDER / "complete").touch()
    os.chdir(ROOT)
    os.execv(python, [str(python), "-m", "benchmarks", *arguments])


def _torch() -> list[str]:
    """The version that is installed beside fusionrun here, else whatever fusionrun asks for."""
    try:
        version = metadata.version("torch").partition("+")[0]
    except metadata.PackageNotFoundError:
        return []
    return [f"torch=={version}"]
