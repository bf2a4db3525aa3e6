"""Mappings that must speak of the same things: what does not match is told by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

__all__ = ["same_names", "same_state"]


def same_names(what: str, got: Iterable[str], expected: Iterable[str]) -> None:
    """Raises ValueError where the names are not the same, each once."""
    got, expected = list(got), list(expected)
    if sorted(got) != sorted(expected):
        missing, unknown = set(expected) - set(got), set(got) - set(expected)
        twice = {name for name in got if got.count(name) > 1}
        found = {"missing": missing, "unknown": unknown, "more than once": twice}
        listed = "; ".join(f"{k}: {', '.join(sorted(v))}" for k, v in found.items() if v)
        raise ValueError(f"{what}: expected each of {', '.join(expected)} once; {listed}")


def same_state(component: str, got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises ValueError where a component's tensors have other names or shapes."""
    same_names(f"state of {component}", got, expected)
    for key, tensor in expected.items():
        if got[key].shape != tensor.shape:
            raise ValueError(
                f"state of {component}: {key}: "
                f"expected {tuple(tensor.shape)}, got {tuple(got[key].shape)}"
            )
