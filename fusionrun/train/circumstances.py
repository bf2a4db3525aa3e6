"""What the bits of a run depend on besides its plan and data; a resume compares it.

Each of these was seen to change the last bits of a step, or may by the word of torch's notes on
reproducibility: versions, the device and what its kernels can do, the number of ranks and
threads, how the optimizer is carried out, and the switches of determinism.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from fusionrun import __version__
from fusionrun.train.step import Step

__all__ = ["circumstances"]


def circumstances(step: Step, engine: str) -> dict[str, str]:
    """Each in words, so that two can be compared and told.

    Args:
        step: its device, ranks, optimizer, and the experts that it computes together.
        engine: what carries it out.
    """
    stacks = ["+".join(stack.names) for stack in step.network.stacked]
    return {
        "fusionrun": __version__,
        "python": ".".join(map(str, sys.version_info[:2])),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": _device(step.device),
        "ranks": str(step.updater.ranks.size),
        "threads": str(torch.get_num_threads()),
        "engine": engine,
        "optimizer": step.updater.implementation,
        "experts computed together": ", ".join(stacks) or "none",
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn": _cudnn(step.device),
    }


def _device(device: torch.device) -> str:
    """Its kernels: on a CPU those of its vector instructions, on a GPU those of the model."""
    if device.type != "cuda":
        return f"{device.type} with {torch.backends.cpu.get_cpu_capability()}"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, compute capability {properties.major}.{properties.minor}"


def _cudnn(device: torch.device) -> str:
    if device.type != "cuda":
        return "not used"
    flags = torch.backends.cudnn
    version = flags.version()  # type: ignore[no-untyped-call]
    return f"{version}, benchmark {flags.benchmark}, TF32 {flags.allow_tf32}"
