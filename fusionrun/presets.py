"""The two tables of defaults, as data: `origin`, the numbers of the scripts this tool began
from, and `tuned`, what measured best. A preset speaks only where a recipe says `auto` or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fusionrun.schema.rates import NumberTest, Rule, Scale, When


class BaseRates(NamedTuple):
    """Rates before any rule, and weight decay."""

    base_lr: float
    head_lr: float
    weight_decay: float


class Preset(NamedTuple):
    """Defaults for what a recipe leaves open.

    Attributes:
        source: where the numbers come from, for `plan --why`.
        rates: by fusion type; types that are not named take `other_rates`.
        rules: the default of `learning_rates.rules`.
        values: defaults by dotted key.
        schedulers: default of each key of `schedulers`; autos in it are resolved like a user's.
        floor_factor: `eta_min` over the component's base rate.
    """

    name: str
    source: str
    rates: Mapping[str, BaseRates]
    other_rates: BaseRates
    rules: tuple[Rule, ...]
    values: Mapping[str, Any]
    schedulers: Mapping[str, Mapping[str, Any]]
    floor_factor: float

    def rates_for(self, fusion_type: str) -> BaseRates:
        """The rates of a fusion type."""
        return self.rates.get(fusion_type, self.other_rates)


def _rule(when: When, base_lr: float, head_lr: float | None) -> Rule:
    """Constructed, not validated: building validators would cost every start of the program."""
    scale = Scale.model_construct(base_lr=base_lr, head_lr=head_lr)
    return Rule.model_construct(when=when, scale=scale)


_COSINE = {"type": "CosineAnnealingLR", "T_max": "auto", "eta_min": "auto", "warmup": None}
_RESTARTS = {
    "type": "CosineAnnealingWarmRestarts",
    "T_0": "auto",
    "T_mult": 2,
    "eta_min": "auto",
    "warmup": None,
}
_FUSION = {"fusion.dropout": 0.2, "fusion.num_layers": 2}

ORIGIN = Preset(
    name="origin",
    source="the origin's table",
    rates={
        "multiplicative": BaseRates(1e-4, 5e-4, 1e-4),
        "multiplicativeAddition": BaseRates(1e-4, 1e-3, 1e-4),
        "TransformerBase": BaseRates(5e-5, 2e-4, 5e-4),
        "concatenation": BaseRates(1e-4, 1e-3, 1e-4),
        "simpleAddition": BaseRates(1e-4, 1e-3, 1e-4),
        "multiplicativeShifted": BaseRates(1e-4, 1e-3, 1e-4),
    },
    other_rates=BaseRates(1e-4, 1e-3, 1e-4),
    rules=(
        _rule(When.model_construct(input_dim=NumberTest.model_construct(gt=1000.0)), 0.7, 0.8),
        _rule(When.model_construct(input_dim=NumberTest.model_construct(lt=100.0)), 1.3, 1.2),
    ),
    values={
        **_FUSION,
        "fusion.feature_norm": "fusion",
        "knowledge_transfer.lambda_loss": 1.0,
        "knowledge_transfer.knowledge_distillation_weight": 0.1,
        "knowledge_transfer.temperature": 3.0,
        "knowledge_transfer.teacher": "peers",
        "knowledge_transfer.expert_gradient_accumulation": 2,
        "knowledge_transfer.fusion_gradient_clipping": 1.0,
        "knowledge_transfer.expert_gradient_clipping": 5.0,
        "training.optimizer.type": "SGD",
    },
    schedulers={"experts": _RESTARTS, "fusion": _COSINE, "global_head": _COSINE},
    floor_factor=0.1,
)

TUNED = Preset(
    name="tuned",
    source="what measured best on the handwritten digits",
    rates={},
    other_rates=BaseRates(1e-3, 1e-3, 1e-2),
    rules=(_rule(When.model_construct(pretrained=True), 0.1, None),),
    values={
        **_FUSION,
        "fusion.feature_norm": "shared",
        "knowledge_transfer.lambda_loss": 1.0,
        "knowledge_transfer.knowledge_distillation_weight": 0.0,
        "knowledge_transfer.temperature": 3.0,
        "knowledge_transfer.teacher": "peers",
        "knowledge_transfer.expert_gradient_accumulation": 1,
        "knowledge_transfer.fusion_gradient_clipping": 1.0,
        "knowledge_transfer.expert_gradient_clipping": 1.0,
        "training.optimizer.type": "AdamW",
    },
    schedulers={"experts": _COSINE, "fusion": _COSINE, "global_head": _COSINE},
    floor_factor=0.0,
)

# What the origin augments images with, by fusion type; those that it does not name as the first.
# Its padding mirrors the image, and its first strength has a jitter of colours besides.
_CUTMIX = {"alpha": 1.0, "probability": 1.0}
_BALANCED: Mapping[str, Any] = {
    "cutmix": _CUTMIX,
    "random_erasing": {"probability": 0.25},
    "flip": True,
    "crop": 4,
    "label_smoothing": 0.1,
}
_STRONG: Mapping[str, Any] = {
    **_BALANCED,
    "random_erasing": {"probability": 0.3},
    "randaugment": {"num_ops": 3, "magnitude": 14},
    "label_smoothing": 0.08,
}
_WIDE: Mapping[str, Any] = {**_BALANCED, "trivialaugment": True, "label_smoothing": 0.05}
_AUGMENTED = {
    "multiplicative": _BALANCED,
    "multiplicativeAddition": _STRONG,
    "TransformerBase": _WIDE,
    "concatenation": _STRONG,
}
_NOT_AUGMENTED: Mapping[str, Any] = {
    "mixup": None,
    "cutmix": None,
    "random_erasing": None,
    "randaugment": None,
    "trivialaugment": False,
    "flip": False,
    "crop": 0,
    "label_smoothing": 0.0,
}


def augmentation_defaults(preset: str, fusion_type: str) -> dict[str, Any]:
    """What stands in the keys of `augmentation` that a recipe leaves open, by key, as plain values.

    Args:
        preset: `none` or `origin`.
        fusion_type: as in `fusion.type`.
    """
    own = _AUGMENTED.get(fusion_type, _BALANCED) if preset == "origin" else {}
    return {**_NOT_AUGMENTED, **own}


PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in (ORIGIN, TUNED)}
