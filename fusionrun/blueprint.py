"""Names and shapes of every component's tensors, told from the recipe alone, without torch.

`plan` counts parameters with these, and checks weights by them before anything is built. What
stands here equals the `state_dict` of the torch component, name by name: tests hold the two
together. Backbones and fusions describe their own tensors (`Expert.blueprint`,
`Fusion.blueprint`); this module owns what all of them share.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fusionrun.schema.experts import Expert
    from fusionrun.schema.fusions import Fusion

__all__ = [
    "Tensor",
    "batch_norm",
    "conv",
    "expert_component",
    "fusion_component",
    "global_head_component",
    "head_component",
    "layer_norm",
    "linear",
    "num_parameters",
    "scaler",
    "scaler_shape",
    "under",
]


class Tensor(NamedTuple):
    """One tensor of a component.

    Attributes:
        shape: as torch has it.
        dtype: safetensors' name of the element type.
        trainable: a parameter; False for a buffer.
    """

    shape: tuple[int, ...]
    dtype: str = "F32"
    trainable: bool = True

    @property
    def num_elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def num_parameters(blueprint: Mapping[str, Tensor]) -> int:
    """Trainable numbers of a blueprint."""
    return sum(tensor.num_elements for tensor in blueprint.values() if tensor.trainable)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors as part of a larger module, where they stand at `prefix`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def linear(prefix: str, n_in: int, n_out: int) -> dict[str, Tensor]:
    """A Linear with bias; an empty prefix is the Linear by itself."""
    return _named(prefix, weight=Tensor((n_out, n_in)), bias=Tensor((n_out,)))


def conv(prefix: str, c_in: int, c_out: int, size: int, groups: int = 1) -> dict[str, Tensor]:
    """A square Conv2d without bias: the BatchNorm beside it has one."""
    return _named(prefix, weight=Tensor((c_out, c_in // groups, size, size)))


def layer_norm(prefix: str, *shape: int) -> dict[str, Tensor]:
    """A LayerNorm with scale and shift, or several of them stacked along the first axes."""
    return _named(prefix, weight=Tensor(shape), bias=Tensor(shape))


def batch_norm(prefix: str, channels: int) -> dict[str, Tensor]:
    """A BatchNorm with its running statistics."""
    return _named(
        prefix,
        weight=Tensor((channels,)),
        bias=Tensor((channels,)),
        running_mean=Tensor((channels,), trainable=False),
        running_var=Tensor((channels,), trainable=False),
        num_batches_tracked=Tensor((), "I64", trainable=False),
    )


def scaler_shape(view_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a view's mean and deviation: one each per feature, or per image channel.

    Args:
        view_shape: one sample: (features,), (height, width) or (channels, height, width).
    """
    if len(view_shape) == 1:
        return view_shape
    channels = view_shape[:-2]
    return (*channels, 1, 1)


def scaler(view_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """What a view is normalised by; fitted before training, never trained."""
    tensor = Tensor(scaler_shape(view_shape), trainable=False)
    return {"scaler.mean": tensor, "scaler.std": tensor}


def expert_component(
    expert: Expert, view_shape: tuple[int, ...], feature_norm: str
) -> dict[str, Tensor]:
    """`experts.NAME`: scaler, backbone and, with `feature_norm: shared`, a LayerNorm."""
    norm = layer_norm("norm", expert.input_dim(view_shape)) if feature_norm == "shared" else {}
    return {**scaler(view_shape), **under("backbone", expert.blueprint(view_shape)), **norm}


def head_component(input_dim: int, num_classes: int) -> dict[str, Tensor]:
    """`heads.NAME`: one Linear on the expert's features."""
    return linear("", input_dim, num_classes)


def fusion_component(
    fusion: Fusion, widths: tuple[int, ...], num_classes: int, cross_expert_attention: bool
) -> dict[str, Tensor]:
    """`fusion`, for experts of these widths; every `auto` resolved before."""
    return fusion.blueprint(widths, num_classes, cross_expert_attention)


def global_head_component(fusion: Fusion, num_classes: int) -> dict[str, Tensor]:
    """`global_head`: one Linear on the fused vector; nothing where the fusion gives logits."""
    return fusion.global_head_blueprint(num_classes)


def _named(prefix: str, **tensors: Tensor) -> dict[str, Tensor]:
    return under(prefix, tensors) if prefix else tensors
