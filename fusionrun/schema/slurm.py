"""What to ask of Slurm. Text rules are Slurm's own, less what it takes for something else than
it says: `--time=1:30` is ninety seconds there.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fusionrun.schema.base import Count, Natural, Section

_TIME = re.compile(r"[0-9]+|[0-9]+(?::[0-9]{2}){2}|[0-9]+-[0-9]{1,2}(?::[0-9]{1,2}){0,2}")
_TWO_FIELDS = re.compile(r"([0-9]+):([0-9]{2})")
_WITH_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(d|h|m|min|s|sec)", re.IGNORECASE)
_UNIT_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_MEMORY = re.compile(r"[0-9]+[KMGTkmgt]?")
_MEMORY_SAID = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT])?(?:i?B)?", re.IGNORECASE)
_SMALLER = {"T": "G", "G": "M", "M": "K"}


def _time(value: str) -> str:
    if two := _TWO_FIELDS.fullmatch(value):
        seconds = int(two[1]) * 60 + int(two[2])
        raise PydanticCustomError(
            "slurm_time",
            'three fields, for Slurm takes this for {seconds} seconds: "{hours}" in hours and '
            'minutes, "{minutes}" in minutes and seconds',
            {
                "seconds": seconds,
                "hours": _clock(seconds * 60),
                "minutes": _clock(seconds),
            },
        )
    if not _TIME.fullmatch(value):
        raise PydanticCustomError(
            "slurm_time",
            'a time such as "02:00:00" (hours:minutes:seconds) or "1-12:00:00"{here}',
            {"here": _here(_without_unit(value))},
        )
    return value


def _without_unit(value: str) -> str:
    """What `24h` means, in a form of Slurm's; empty where nobody knows."""
    said = _WITH_UNIT.fullmatch(value)
    return _clock(round(float(said[1]) * _UNIT_S[said[2][0].lower()])) if said else ""


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _here(fixed: str) -> str:
    return f'; here "{fixed}"' if fixed else ""


def _memory(value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise PydanticCustomError(
            "slurm_memory",
            'a whole amount such as "16G" or "500M"{here}',
            {"here": _here(_whole_amount(value))},
        )
    return value


def _whole_amount(value: str) -> str:
    """What `1.5G` or `16 GB` means, in a form of Slurm's (1G is 1024M); empty if nobody knows."""
    said = _MEMORY_SAID.fullmatch(value)
    if not said:
        return ""
    number, unit = float(said[1]), (said[2] or "M").upper()
    while not number.is_integer() and unit in _SMALLER:
        number, unit = number * 1024, _SMALLER[unit]
    return f"{round(number)}{unit}" if number >= 1 else ""


def _printable(value: str) -> str:
    if not value.isprintable() or not value:
        raise PydanticCustomError("printable", "printable text on one line")
    return value


def _absolute(value: str) -> str:
    if not value.startswith(("/", "~/")):
        raise PydanticCustomError(
            "absolute", "an absolute path, or one that begins with ~/: the job runs elsewhere"
        )
    return value


def _image(value: str) -> str:
    if not value.startswith("/") and "://" not in value:
        raise PydanticCustomError(
            "image", "an absolute path or an address such as docker://…: the job runs elsewhere"
        )
    return value


Time = Annotated[str, AfterValidator(_time)]
Memory = Annotated[str, AfterValidator(_memory)]
Text = Annotated[str, AfterValidator(_printable)]
Absolute = Annotated[Text, AfterValidator(_absolute)]
Image = Annotated[Text, AfterValidator(_image)]


class Container(Section):
    """Run the training process inside an image."""

    image: Image
    """The image file, an absolute path, or an address such as docker://…; its python3 must have
    torch."""
    binds: tuple[Text, ...] = ()
    """Paths to make visible inside, as PATH or PATH:INSIDE. The run and the code always are."""


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
    """Address that Slurm writes to when the run ends, fails, goes on or reaches the limit."""
    array_throttle: Count | None = None
    """Tasks of an array that run at once."""
    extra: Mapping[str, Text | int | bool] = Field(default_factory=dict)
    """Further sbatch options, by their long names without the dashes."""
    setup: tuple[Text, ...] = ()
    """Lines of bash to run before training, each complete in itself: modules, environments. The
    job ends at the first that fails."""
    env: Mapping[str, Text] = Field(default_factory=dict)
    """Environment variables of the job."""
    python: Absolute | None = None
    """Interpreter that trains; null: the one of the environment that a set-up line activates, or
    else the one that submits."""
    container: Container | None = None
    """Run inside an image."""
    launcher: Literal["srun", "torchrun"] = "srun"
    """What starts the processes."""
    template: Absolute | None = None
    """A batch script's template of your own (Jinja); null: the one that ships."""

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
