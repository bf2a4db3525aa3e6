"""What a run has left, told from its files alone. Imports nothing of the project.

Two runs are the same where every component file has the same bytes, every epoch the same numbers
but for its clock, and the table of results the same text.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

CLOCK = {"seconds", "samples_per_s"}
ASIDE = re.compile(r"\..*\.(tmp|old)-[0-9a-f]{12}")


def fingerprint(run: Path) -> dict[str, Any]:
    """Everything that an undisturbed run decides."""
    files = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run / "components").rglob("*.safetensors"))
    }
    epochs = [
        {key: value for key, value in json.loads(line).items() if key not in CLOCK}
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    results = hashlib.sha256((run / "results.json").read_bytes()).hexdigest()
    return {**files, "epochs": epochs, "results.json": results}


def proved_by_manifest(run: Path, which: str) -> bool:
    """Whether a set of components is one set: each file has the hash that its manifest gives."""
    folder = run / "components" / which
    records = json.loads((folder / "manifest.json").read_text())["components"].values()
    return all(
        hashlib.sha256((folder / record["file"]).read_bytes()).hexdigest() == record["sha256"]
        for record in records
    )


def litter(run: Path) -> list[str]:
    """What a killed process left half done, and checkpoints that a completed run needs no more."""
    names = [str(path.relative_to(run)) for path in run.rglob("*")]
    return [name for name in names if ASIDE.fullmatch(Path(name).name) or "checkpoints" in name]


def events(run: Path, name: str) -> list[dict[str, Any]]:
    """The run's events of a kind; a torn line of a killed process is none."""
    found = []
    log = run / "events.jsonl"
    for line in log.read_bytes().splitlines() if log.exists() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == name:
            found.append(event)
    return found
