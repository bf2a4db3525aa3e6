"""What is measured at the end, and where else the numbers go."""

from typing import Annotated, Literal

from pydantic import Field

from fusionrun.schema.base import NonNegative, Section

Metric = Literal["accuracy", "macro_f1", "nll", "ece"]


class Corruption(Section):
    """Noise on the scaled input of a split that is evaluated."""

    noise: tuple[NonNegative, ...] = ()
    """Standard deviations."""


class Evaluation(Section):
    """What is measured at the end, on the test split."""

    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)] = (
        "accuracy",
        "macro_f1",
        "nll",
        "ece",
    )
    """Columns of the result table."""
    missing_views: Literal["none", "each", "all"] = "none"
    """each: once without each view; all: every combination."""
    corruption: Corruption | None = None
    """Robustness to noise."""


class Wandb(Section):
    """Weights & Biases."""

    project: str
    """Project name."""
    mode: Literal["online", "offline"] = "offline"
    """offline: files only."""


class Mlflow(Section):
    """MLflow."""

    experiment: str
    """Experiment name."""
    tracking_uri: str | None = None
    """null: what the environment says."""


class Tracking(Section):
    """Where else the run's numbers go. metrics.jsonl is always written."""

    tensorboard: bool = False
    """TensorBoard event files in the run directory."""
    wandb: Wandb | None = None
    """Weights & Biases."""
    mlflow: Mlflow | None = None
    """MLflow."""
