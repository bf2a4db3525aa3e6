"""The recipe: everything a user can write, and its JSON Schema."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from fusionrun.schema.base import Name, OnDemand, Section, Seed
from fusionrun.schema.data import DATA, Data
from fusionrun.schema.evaluation import Evaluation, Tracking
from fusionrun.schema.experts import EXPERTS, PATHS, Expert
from fusionrun.schema.fusions import FUSIONS, Fusion
from fusionrun.schema.rates import LearningRates
from fusionrun.schema.schedulers import Schedulers
from fusionrun.schema.training import Augmentation, KnowledgeTransfer, Training

if TYPE_CHECKING:
    from fusionrun.schema.several import Stage, Sweep
    from fusionrun.schema.slurm import Slurm
else:
    # Most recipes have none of these: their classes are made when one does.
    Stage = Sweep = Slurm = Any


def _printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise PydanticCustomError("printable", "printable text")
    return value


def _no_truth(value: object) -> object:
    """Python holds true and 1.0 equal to 1; a recipe's version is neither."""
    if isinstance(value, bool | float):
        raise PydanticCustomError("version", "1")
    return value


def _can_be_told_apart(experts: Mapping[str, Expert]) -> Mapping[str, Expert]:
    seen: set[str] = set()
    for name in experts:
        if name.casefold() in seen:
            words = "names that differ by more than upper and lower case"
        elif name in PATHS:
            words = "another name: this one stands for a path in every table"
        else:
            seen.add(name.casefold())
            continue
        raise PydanticCustomError("expert_case", words, {"path": ("experts", name)})
    return experts


class Recipe(Section):
    """What a user writes. Keys that begin with `x-` are the user's own, and nothing reads them."""

    version: Annotated[Literal[1], BeforeValidator(_no_truth)]
    """Version of the recipe's format."""
    name: Annotated[str, AfterValidator(_printable)]
    """Any printable text; paths carry a safe form of it."""
    preset: Literal["origin", "tuned"] = "origin"
    """Which table of defaults: the origin's numbers, or what measured best."""
    seed: Seed = 0
    """Seed of initial weights, batch order and dropout; the split has its own."""
    data: Annotated[Data, DATA]
    """Where the views and labels come from, and how they are split."""
    experts: Annotated[
        Mapping[Name, Annotated[Expert, EXPERTS]],
        Field(min_length=1),
        AfterValidator(_can_be_told_apart),
    ]
    """The experts by name; the names are the ids used everywhere else."""
    fusion: Annotated[Fusion, FUSIONS]
    """The module that joins the experts' features."""
    learning_rates: Annotated[LearningRates, OnDemand()] = Field(
        default_factory=LearningRates.model_construct
    )
    """Base rates and the rules that adapt them."""
    schedulers: Annotated[Schedulers, OnDemand()] = Field(
        default_factory=Schedulers.model_construct
    )
    """Each component's rate over the epochs."""
    knowledge_transfer: Annotated[KnowledgeTransfer, OnDemand()] = Field(
        default_factory=KnowledgeTransfer.model_construct
    )
    """Individual path, distillation, accumulation and clipping."""
    training: Annotated[Training, OnDemand()] = Field(default_factory=Training.model_construct)
    """Epochs, batches, optimizer, precision."""
    augmentation: Annotated[Augmentation, OnDemand()] = Field(
        default_factory=Augmentation.model_construct
    )
    """What happens to training batches."""
    stages: tuple[Annotated[Stage, OnDemand("fusionrun.schema.several:Stage")], ...] = ()
    """Training in several stages, whose epochs are the run's; none: all components jointly."""
    sweep: Annotated[Sweep, OnDemand("fusionrun.schema.several:Sweep")] | None = None
    """Several runs of this recipe."""
    evaluation: Annotated[Evaluation, OnDemand()] = Field(
        default_factory=Evaluation.model_construct
    )
    """What is measured at the end."""
    tracking: Annotated[Tracking, OnDemand()] = Field(default_factory=Tracking.model_construct)
    """Where else the numbers go."""
    slurm: Annotated[Slurm, OnDemand("fusionrun.schema.slurm:Slurm")] | None = None
    """Resources of a queued run."""
