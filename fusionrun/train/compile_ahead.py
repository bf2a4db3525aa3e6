"""Compile one program: `python -m fusionrun.train.compile_ahead LIBRARY`, the program on stdin.

A process of its own, see `train.ahead`. An interrupt at the keyboard is for the trainer, which
stops at its next step: this goes on, and what it makes is kept.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import torch
from torch import Tensor, nn

from fusionrun.train.program import OPTIONS, Program


class _Module(nn.Module):
    """A program as what `torch.export` takes."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._function = program.function()

    def forward(self, *tensors: Tensor) -> Any:
        return self._function(*tensors)


def main(path: str) -> None:
    """Read the program, and write what it compiles to to `path`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = Program.from_json(sys.stdin.read())
    torch.set_num_threads(program.threads)
    torch.use_deterministic_algorithms(program.deterministic)
    examples = tuple(form.example() for form in program.forms)
    with torch.no_grad():
        exported = torch.export.export(_Module(program), examples, strict=False)
        torch._inductor.aoti_compile_and_package(
            exported, package_path=path, inductor_configs=OPTIONS
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
