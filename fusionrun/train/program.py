"""A function of tensors as a program: torch's operations, and the forms of the tensors it reads.

What one process has traced another can compile; and two programs of equal operations and forms do
the same, so that what was compiled of one serves the other. Between processes it is plain JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import getitem
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["LEFT_TO_TORCH", "OPTIONS", "Form", "Program", "library_name", "operation", "traced"]

OPTIONS: Final = {
    "fallback_random": True,  # dropout draws as the plain step does
    "compile_threads": 1,  # a pool of processes would be made for one file
}
"""Of the compiler."""
LEFT_TO_TORCH: Final = (
    "aten.max_pool2d_with_indices.default",
    "aten.max_pool2d_with_indices_backward.default",
)
"""What the compiler would write worse than torch has it: three times as slow, seven times there and
back with what it merges into it (images of 16 × 32 × 32 on a CPU)."""
_PART: Final = "getitem"


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
        operations: in order, as JSON: what each is called, and its arguments. The last gives what
            the program returns.
        forms: of its tensors, in order.
        threads: that it is compiled for.
        deterministic: whether what could add up in any order must not.
    """

    operations: str
    forms: tuple[Form, ...]
    threads: int
    deterministic: bool

    @property
    def key(self) -> str:
        """Equal for programs of which the same would be compiled here."""
        cpu = torch.backends.cpu.get_cpu_capability()
        around = [torch.__version__, cpu, OPTIONS, LEFT_TO_TORCH]
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

    def module(self) -> GraphModule:
        """The function as a module."""
        graph = Graph()
        values = [graph.placeholder(f"tensor_{number}") for number in range(len(self.forms))]
        *operations, result = json.loads(self.operations)
        for name, args, kwargs in operations:
            args, kwargs = _decoded(args, values), _decoded(kwargs, values)
            values.append(graph.call_function(operation(name), tuple(args), kwargs))
        graph.output(tuple(_decoded(result, values)))
        return GraphModule(nn.Module(), graph)


def library_name(program: Program, library: Path) -> str:
    """What a program's library is called: by what it was compiled of, and by its bytes."""
    return f"{program.key}-{hashlib.sha256(library.read_bytes()).hexdigest()[:16]}.so"


def traced(
    function: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor]
) -> tuple[Program, list[Tensor]]:
    """A function's program, and the tensors that it reads beside its arguments, in order.

    Nothing is computed. Tensors that the function has of itself (weights that do not train, say)
    become further arguments.
    """
    trace = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
    module = trace(*tensors)
    own = _lifted(module)
    forms = tuple(Form.of(tensor) for tensor in (*tensors, *own))
    deterministic = torch.are_deterministic_algorithms_enabled()
    return Program(_operations(module.graph), forms, torch.get_num_threads(), deterministic), own


def _operations(graph: Graph) -> str:
    """A graph's, as JSON; a value is named by its place among arguments and operations."""
    places = {node: number for number, node in enumerate(graph.nodes)}
    rows: list[Any] = []
    for node in graph.nodes:
        if node.op == "call_function":
            args, kwargs = _encoded(list(node.args), places), _encoded(dict(node.kwargs), places)
            rows.append((_name(node.target), args, kwargs))
        elif node.op == "output":
            rows.append(_encoded(list(node.args[0]), places))
    return json.dumps(rows)


def _encoded(value: Any, places: Mapping[Node, int]) -> Any:
    if isinstance(value, Node):
        return {"value": places[value]}
    if isinstance(value, list | tuple):
        return [_encoded(item, places) for item in value]
    if isinstance(value, dict):
        return {"named": {name: _encoded(item, places) for name, item in value.items()}}
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    return value


def _decoded(value: Any, values: Sequence[Node]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, values) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, own),) = value.items()
    if kind == "named":
        return {name: _decoded(item, values) for name, item in own.items()}
    read: Mapping[str, Callable[[Any], Any]] = {
        "value": values.__getitem__,
        "torch": partial(getattr, torch),
        "device": torch.device,
    }
    return read[kind](own)


def _name(operation: Any) -> str:
    """Of torch's operators `aten.add.Tensor`; else one part of a tuple that one of them gives."""
    return _PART if operation is getitem else str(operation)


def operation(name: str) -> Callable[..., Any]:
    """One of torch's by its name in a program."""
    if name == _PART:
        return getitem
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return cast(Callable[..., Any], found)


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
