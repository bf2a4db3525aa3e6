"""How the two paths are trained: losses between them, optimizer, epochs, precision."""

from typing import Annotated, Literal

from pydantic import Field

from fusionrun.schema.base import (
    AUTO,
    Count,
    Epochs,
    Fraction,
    Natural,
    NonNegative,
    OnDemand,
    OrAuto,
    Positive,
    Section,
)

Teacher = Literal["peers", "ensemble", "mutual", "global"]
Combination = Literal["sum", "pcgrad", "mmpareto"]
Weighting = Literal["static", "uncertainty", "dwa"]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class KnowledgeTransfer(Section):
    """Weights of the individual path and of distillation; how experts step and are clipped."""

    lambda_loss: Annotated[NonNegative, OrAuto()] = AUTO
    """Weight of the sum of the experts' own cross-entropies."""
    knowledge_distillation_weight: Annotated[NonNegative, OrAuto()] = AUTO
    """Weight of the sum of the experts' distillation losses."""
    temperature: Annotated[Positive, OrAuto()] = AUTO
    """Temperature T of the softened probabilities; the loss is scaled by T²."""
    teacher: Annotated[Teacher, OrAuto()] = AUTO
    """Whom each expert learns from."""
    expert_gradient_accumulation: Annotated[Count, OrAuto()] = AUTO
    """Batches between two steps of experts and heads."""
    fusion_gradient_clipping: Annotated[Positive, OrAuto()] | None = AUTO
    """Largest gradient norm of fusion and global head together; null: no clipping."""
    expert_gradient_clipping: Annotated[Positive, OrAuto()] | None = AUTO
    """Largest gradient norm of each expert with its head; null: no clipping."""
    gradient_combination: Combination = "sum"
    """How both paths' gradients meet on an expert; all but sum take two backward passes."""
    loss_weighting: Weighting = "static"
    """How cross-entropies are weighed against each other while the run goes on."""
    log_variance_lr: Annotated[Positive, OrAuto()] | None = AUTO
    """Rate of the learned log-variances; loss_weighting uncertainty only."""
    cross_expert_attention: Annotated[bool, OrAuto()] = AUTO
    """Whether the experts' features attend to each other before they are joined."""


class Optimizer(Section):
    """One optimizer for all components; each keeps its own rate."""

    type: Annotated[Literal["SGD", "AdamW", "Adam"], OrAuto()] = AUTO
    """As in torch.optim."""
    momentum: Annotated[Momentum, OrAuto()] = AUTO
    """SGD only."""
    nesterov: Annotated[bool, OrAuto()] = AUTO
    """SGD only; needs a momentum above 0."""
    betas: Annotated[tuple[Momentum, Momentum], OrAuto()] = AUTO
    """Adam and AdamW only."""
    eps: Annotated[Positive, OrAuto()] = AUTO
    """Adam and AdamW only."""
    weight_decay: Annotated[NonNegative, OrAuto()] = AUTO
    """On every parameter, as in torch.optim."""


class Selection(Section):
    """On which number of the validation split the best weights are chosen."""

    metric: Literal["accuracy", "macro_f1", "nll"] = "accuracy"
    """Higher is better, but for nll; ties go to the lower nll, then to the earlier epoch."""
    path: str = "global"
    """`global`, `mean_of_experts`, or an expert's name."""


class EarlyStopping(Section):
    """Stop when the selected number has not improved for a while."""

    patience: Count
    """Epochs without improvement before the run stops."""
    min_delta: NonNegative = 0.0
    """Smallest change that counts as an improvement."""


class Checkpoints(Section):
    """When what an exact resume needs is saved while training goes on, and how much is kept."""

    every_s: NonNegative = 60.0
    """Seconds between two checkpoints: what a killed run loses at most; 0: as fast as they go."""
    every_steps: Count | None = None
    """Also after every so many steps, waiting for a slow disk; null: by the clock alone."""
    keep_last: Count = 2
    """How many of the newest are kept while the run goes on; none once it has completed."""
    keep_best: bool = False
    """Keep the first one after the best epoch so far, and when the run has completed too."""
    keep_every_steps: Count | None = None
    """Keep the first one in every so many steps, and when the run has completed too."""


class Training(Section):
    """The run itself."""

    epochs: Epochs = 60
    """Passes over the training split; at most 100,000, for a plan holds a rate for each."""
    batch_size: Count = 128
    """Samples a batch; the last one of an epoch may be smaller, and is used."""
    optimizer: Annotated[Optimizer, OnDemand()] = Field(default_factory=Optimizer.model_construct)
    """The optimizer of all components."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Of the forward pass; parameters and losses stay float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where there is a device, else CPU."""
    threads: Annotated[Count, OrAuto()] = AUTO
    """CPU threads; auto: one for small models, else torch's choice."""
    engine: Literal["auto", "eager", "compiled", "cudagraph"] = "auto"
    """How a step is carried out: call by call (eager), as one compiled graph, or (CUDA) as that
    graph captured; auto: compiled where the run is long enough for it to pay back."""
    memory_format: Annotated[Literal["contiguous", "channels_last"], OrAuto()] = AUTO
    """Of images in convolutional experts; auto: channels_last, if there are any."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Of float32 products and convolutions on a GPU: highest: float32; high: TF32; medium: bf16
    products, as torch.set_float32_matmul_precision has it."""
    deterministic: bool = True
    """The same bits again; false: on a GPU what is fastest, each time with other last digits."""
    selection: Annotated[Selection, OnDemand()] = Field(default_factory=Selection.model_construct)
    """What `best` means."""
    early_stopping: Annotated[EarlyStopping, OnDemand()] | None = None
    """null: train all epochs."""
    max_skipped_steps: Natural = 0
    """Steps with a gradient that is not finite that may be left out; one more halts the run."""
    checkpoints: Annotated[Checkpoints, OnDemand()] = Field(
        default_factory=Checkpoints.model_construct
    )
    """What a killed run goes on from."""


class Mix(Section):
    """Mixing of pairs of samples."""

    alpha: Positive
    """Of the Beta distribution the mixing weight is drawn from."""
    probability: Fraction = 1.0
    """Share of batches that are mixed."""


class RandomErasing(Section):
    """A random rectangle of the image is blanked."""

    probability: Fraction = 0.25
    """Share of samples."""


class RandAugment(Section):
    """Random image operations, each sample's own, of one strength."""

    num_ops: Annotated[int, Field(ge=1, le=14)] = 2
    """Operations a sample, one after the other."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Their strength, 0 to 30."""


class Augmentation(Section):
    """What happens to a training batch before the step. Nothing by default."""

    preset: Literal["none", "origin"] = "none"
    """What stands in the keys that are absent; origin: by fusion type, for images."""
    mixup: Annotated[Annotated[Mix, OnDemand()] | None, OrAuto()] = AUTO
    """Convex combinations of samples and of their targets."""
    cutmix: Annotated[Annotated[Mix, OnDemand()] | None, OrAuto()] = AUTO
    """A rectangle of another image; targets mixed by area."""
    random_erasing: Annotated[Annotated[RandomErasing, OnDemand()] | None, OrAuto()] = AUTO
    """Images only."""
    randaugment: Annotated[Annotated[RandAugment, OnDemand()] | None, OrAuto()] = AUTO
    """Images of bytes only."""
    trivialaugment: Annotated[bool, OrAuto()] = AUTO
    """One random operation of random strength a sample; images of bytes only."""
    flip: Annotated[bool, OrAuto()] = AUTO
    """Horizontal flips, half of the samples; images only."""
    crop: Annotated[Natural, OrAuto()] = AUTO
    """Pixels of padding before a random crop to the old size; images only."""
    noise: NonNegative = 0.0
    """Standard deviation of Gaussian noise on the scaled input."""
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Chance that a view is missing in a sample."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1), OrAuto()] = AUTO
    """Share of the target spread over all classes."""

    @property
    def is_on(self) -> bool:
        """Whether anything happens to a batch; of a resolved recipe."""
        return any(getattr(self, name) for name in type(self).model_fields if name != "preset")
