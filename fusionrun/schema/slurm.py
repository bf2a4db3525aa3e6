"""What to ask of Slurm. Text rules are Slurm's own: `--time=1:30` is ninety seconds there."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fusionrun.schema.base import Count, Natural, Section

_TIME = re.compile(r"(?:[0-9]+-[0-9]{1,2}(?::[0-9]{1,2}){0,2}|[0-9]+(?::[0-9]{2}){0,2})")
_MEMORY = re.compile(r"[0-9]+[KMGTkmgt]?")


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise PydanticCustomError(
            "slurm_time", 'a time such as "02:00:00" (hours:minutes:seconds) or "1-12:00:00"'
        )
    return value


def _memory(value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise PydanticCustomError("slurm_memory", 'an amount such as "16G" or "500M"')
    return value


def _printable(value: str) -> str:
    if not value.isprintable() or not value:
        raise PydanticCustomError("printable", "printable text on one line")
    return value


Time = Annotated[str, AfterValidator(_time)]
Memory = Annotated[str, AfterValidator(_memory)]
Text = Annotated[str, AfterValidator(_printable)]


class Container(Section):
    """Run the training process inside an image."""

    image: Text
    """Path of the image file."""
    binds: tuple[Text, ...] = ()
    """Paths to make visible inside."""


class Slurm(Section):
    """Resources and set-up of a queued run."""

    partition: Text | None = None
    """Partition to queue in; null: the cluster's default."""
    account: Text | None = None
    """Account to charge."""
    qos: Text | None = None
    """Quality of service."""
    constraint: Text | None = None
    """Node features."""
    reservation: Text | None = None
    """Reservation to run in."""
    nodes: Count = 1
    """Number of nodes."""
    gpus_per_node: Natural | Text | None = None
    """GPUs on each node, or TYPE:NUMBER."""
    gres: Text | None = None
    """Generic resources on each node; never together with gpus_per_node."""
    cpus_per_task: Count | None = None
    """CPU cores for each process."""
    mem: Memory | None = None
    """Memory of each node; never together with mem_per_cpu."""
    mem_per_cpu: Memory | None = None
    """Memory for each core."""
    time: Time | None = None
    """Time limit, hours:minutes:seconds."""
    grace: Annotated[int, Field(ge=1)] = 120
    """Seconds before the time limit at which the run saves and stops."""
    requeue: bool = True
    """Go on in a new job when the time limit is reached."""
    max_requeues: Natural = 20
    """How often at most."""
    exclude: Text | None = None
    """Nodes to avoid."""
    nodelist: Text | None = None
    """Nodes to use."""
    mail: Text | None = None
    """Address that Slurm writes to."""
    array_throttle: Count | None = None
    """Tasks of an array that run at once."""
    extra: Mapping[str, Text | int | bool] = Field(default_factory=dict)
    """Further sbatch options, by their long names without the dashes."""
    setup: tuple[Text, ...] = ()
    """Lines to run before training: modules, environments."""
    env: Mapping[str, Text] = Field(default_factory=dict)
    """Environment variables of the job."""
    container: Container | None = None
    """Run inside an image."""
    launcher: Literal["srun", "torchrun"] = "srun"
    """What starts the processes."""

    @model_validator(mode="after")
    def _exclusive(self) -> "Slurm":
        for one, other in (("gpus_per_node", "gres"), ("mem", "mem_per_cpu")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise PydanticCustomError(
                    "exclusive",
                    "{one} or {other}, not both",
                    {"key": other, "one": one, "other": other},
                )
        return self
