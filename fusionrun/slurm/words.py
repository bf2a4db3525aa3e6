"""The scheduler's own words, made readable, and what to do about those that are known."""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "UNREACHABLE_ADVICE",
    "advice",
    "expected_start",
    "explained",
    "is_in_doubt",
    "is_unreachable",
    "tidy",
]

_PROGRAMS: Final = r"(?:sbatch|squeue|scontrol|scancel|sinfo|sacct|srun)"

_UNREACHABLE: Final = re.compile(
    r"Unable to contact slurm controller|Unable to establish co(?:ntroller|nfiguration) "
    r"|Could not establish a configuration source|Unable to process configuration file"
    r"|Slurmctld.* is DOWN|Unable to resolve|Connection refused|Network is unreachable"
    r"|No route to host",
    re.IGNORECASE,
)
_IN_DOUBT: Final = re.compile(
    r"Socket timed out|timed out on send/recv|Zero Bytes were transmitted|Connection reset"
    r"|Unexpected message received|Transport endpoint is not connected|Message receive failure"
    r"|Communication shutdown failure|Header lengths are longer|Insane message length",
    re.IGNORECASE,
)

UNREACHABLE_ADVICE: Final = (
    "The Slurm controller does not answer, or this machine does not know where it is (SLURM_CONF). "
    "Jobs that run go on; try again later."
)

# (Slurm's words, what to do): the first that fits. Keys are those of the recipe.
_ADVICE: Final = (
    (
        "Job violates",
        "A limit of the account or the QOS is reached: ask for less, or wait for other jobs.",
    ),
    ("invalid partition", "`fusionrun doctor` lists the partitions; set slurm.partition."),
    (
        "More processors requested than permitted|CPU count per node can not be satisfied",
        "Ask for fewer processes or CPUs a node: slurm.gpus_per_node, slurm.cpus_per_task.",
    ),
    (
        "Memory (?:specification|required)",
        "Ask for less memory: slurm.mem (of a node) or slurm.mem_per_cpu.",
    ),
    (
        "generic resource|gres",
        "`fusionrun doctor` shows the cluster's GPUs and how to ask for them: "
        "slurm.gpus_per_node or slurm.gres.",
    ),
    (
        "Requested node configuration is not available|Node count specification invalid",
        "No node offers this, or too few do. `fusionrun doctor` shows what the nodes have; ask for "
        "less (slurm.nodes, gpus_per_node, cpus_per_task, mem) or in another slurm.partition.",
    ),
    (
        "time limit is invalid|time limit exceeds|missing or exceeds some limit",
        "Set slurm.time below the partition's limit; `fusionrun doctor` shows it. The run goes on "
        "in a new job after each limit.",
    ),
    ("account", "Set slurm.account to one you may charge (`sacctmgr show assoc user=$USER`)."),
    (
        "QOS|policy limit",
        "Set slurm.qos to one you may use, or ask for less; `sacctmgr show qos` shows the limits.",
    ),
    ("reservation", "`scontrol show reservation` lists the reservations; set slurm.reservation."),
    ("Invalid feature", "`sinfo -o '%N %f'` lists the features; set slurm.constraint."),
    ("Invalid node name", "`sinfo -N` lists the nodes; set slurm.nodelist or slurm.exclude."),
    ("array", "`fusionrun doctor` shows the largest index an array may have (MaxArraySize)."),
    ("dependency", "The job it should wait for is unknown to Slurm, or can no longer end well."),
    (
        "authentic|munge|credential",
        "Slurm does not trust this machine now: is munge running, and its clock right?",
    ),
    ("Access/permission denied|Permission denied", "This user may not do that here."),
)


def tidy(text: str) -> str:
    """What a command said, without its name before every line, empty lines and repetitions."""
    lines = (re.sub(rf"^{_PROGRAMS}: ", "", line.strip()) for line in text.splitlines())
    lines = (re.sub(r"^(?:fatal|error): ", "", line) for line in lines)
    return "\n".join(dict.fromkeys(line for line in lines if line and not line.startswith("**")))


def is_unreachable(words: str) -> bool:
    """Whether they say that nobody answered: nothing was asked, nothing was changed."""
    return bool(_UNREACHABLE.search(words))


def is_in_doubt(words: str) -> bool:
    """Whether they say that the answer was lost: what was asked may have been done."""
    return bool(_IN_DOUBT.search(words))


def advice(words: str) -> str:
    """What to do about it; empty when nobody knows."""
    if is_unreachable(words):
        return UNREACHABLE_ADVICE
    if is_in_doubt(words):
        return "The Slurm controller is too busy to answer in time; try again."
    return next((hint for known, hint in _ADVICE if re.search(known, words, re.IGNORECASE)), "")


def explained(what: str, words: str, hint: str | None = None) -> str:
    """An error message: what was asked, the scheduler's words, and what to do about them.

    Args:
        what: was asked of the scheduler.
        words: its own.
        hint: what to do; looked up by the words unless given.
    """
    said = "\n".join(f"  {line}" for line in words.splitlines()) or "  (it said nothing)"
    hint = advice(words) if hint is None else hint
    return f"{what}\n{said}" + (f"\n  {hint}" if hint else "")


def expected_start(start: str) -> str:
    """When a job that waits will start. Slurm reckons that all others use up their time limits.

    Args:
        start: local time, as Slurm writes it: `2026-11-23T00:53:01`.
    """
    estimate = start.replace("T", " ")
    return f"expected {estimate} by Slurm's estimate; sooner where other jobs end early"
