"""Compile one program: `python -m fusionrun.train.compile_ahead FOLDER`, the program on stdin.

A process of its own, see `train.ahead`. An interrupt at the keyboard is for the trainer, which
stops at its next step: this goes on, and what it makes is kept.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fusionrun.train.program import LEFT_TO_TORCH, OPTIONS, Program, library_name, operation


def main(folder: str) -> None:
    """Read the program, and put the library that it compiles to into `folder`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = Program.from_json(sys.stdin.read())
    torch.set_num_threads(program.threads)
    torch.use_deterministic_algorithms(program.deterministic)
    _leave_to_torch()
    examples = tuple(form.example() for form in program.forms)
    with torch.no_grad(), TemporaryDirectory(prefix=".", dir=folder) as aside:
        module = torch.export.export(program.module(), examples, strict=False).module()
        # What the compiler writes beside the library goes with the folder that it is made in.
        library = Path(aside) / "step.so"
        options = {**OPTIONS, "aot_inductor.output_path": str(library)}
        torch._inductor.aot_compile(module, examples, options=options)
        library.replace(Path(folder) / library_name(program, library))


def _leave_to_torch() -> None:
    """Have the compiler call torch's own kernels for some operations."""
    from torch._inductor.decomposition import decompositions
    from torch._inductor.lowering import fallback_handler, lowerings

    for name in LEFT_TO_TORCH:
        own: Any = operation(name)
        decompositions.pop(own, None)
        lowerings[own] = fallback_handler(own)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(*sys.argv[1:])
