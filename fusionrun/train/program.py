"""A function of tensors as a program: text, and the forms of the tensors that it reads.

What one process has traced another can compile, by text alone; and two programs of equal text and
forms do the same, so that what was compiled of one serves the other. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["OPTIONS", "Form", "Program", "traced"]

OPTIONS: Final = {
    "fallback_random": True,  # dropout draws as the plain step does
    "compile_threads": 1,  # a pool of processes would be made for one file
}
"""Of the compiler."""

# What the text of a graph may name beside its own values.
_NAMES = {"torch": torch, "device": torch.device, "inf": math.inf, "nan": math.nan}


class Form(NamedTuple):
    """Of a tensor, all but its numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: Tensor) -> Form:
        """A tensor's."""
        return cls(tuple(tensor.shape), tensor.stride(), str(tensor.dtype).removeprefix("torch."))

    def example(self) -> Tensor:
        """One on the CPU."""
        dtype = getattr(torch, self.dtype)
        return torch.empty_strided(self.shape, self.strides, dtype=dtype).zero_()


@dataclass(frozen=True)
class Program:
    """One function of tensors.

    Attributes:
        text: python, `def forward(self, …)`.
        forms: of its tensors, in order.
        threads: that it is compiled for.
        deterministic: whether what could add up in any order must not.
    """

    text: str
    forms: tuple[Form, ...]
    threads: int
    deterministic: bool

    @property
    def key(self) -> str:
        """Equal for programs of which the same would be compiled here."""
        around = [torch.__version__, torch.backends.cpu.get_cpu_capability(), OPTIONS]
        return hashlib.sha256(f"{self.to_json()}{around}".encode()).hexdigest()

    def to_json(self) -> str:
        """All of it, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Program:
        """Take back what `to_json` gave."""
        plain = json.loads(text)
        forms = tuple(Form(tuple(s), tuple(t), dtype) for s, t, dtype in plain["forms"])
        return cls(**plain | {"forms": forms})

    def function(self) -> Callable[..., Any]:
        """Itself, to be called without `self`."""
        made: dict[str, Any] = {}
        exec(self.text, dict(_NAMES), made)  # (our own text, over a pipe of our own)
        forward = made["forward"]
        return lambda *tensors: forward(None, *tensors)


def traced(
    function: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor]
) -> tuple[Program, list[Tensor]]:
    """A function's program, and the tensors that it reads beside its arguments, in order.

    Nothing is computed. Tensors that the function has of itself (weights that do not train, say)
    become further arguments.
    """
    trace = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
    graph = trace(*tensors)
    own = _lifted(graph)
    graph.recompile()
    forms = tuple(Form.of(tensor) for tensor in (*tensors, *own))
    deterministic = torch.are_deterministic_algorithms_enabled()
    return Program(graph.code, forms, torch.get_num_threads(), deterministic), own


def _lifted(module: GraphModule) -> list[Tensor]:
    """Makes arguments of a graph's attributes, behind those that it has."""
    graph = module.graph
    found: dict[Any, Node] = {}
    for node in graph.find_nodes(op="get_attr"):
        if node.target not in found:
            last = graph.find_nodes(op="placeholder")[-1]
            with graph.inserting_after(last):
                found[node.target] = graph.placeholder(f"own_{len(found)}")
        node.replace_all_uses_with(found[node.target])
        graph.erase_node(node)
    return [getattr(module, name).detach() for name in found]
