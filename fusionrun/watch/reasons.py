"""Slurm's words for why a job waits, or was refused: what they mean, and what can be done.

Names as in slurm's job_reason_string() (src/common/slurm_protocol_defs.c, 22.05 to 24.05).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["Reason", "reason_of", "refusal"]


class Reason(NamedTuple):
    """Why a job waits.

    Attributes:
        meaning: in words.
        advice: what to do; empty where waiting is all there is to do.
    """

    meaning: str
    advice: str = ""


_TURN: Final = "Nothing to do; shorter slurm.time or fewer nodes may let it slip in earlier."
_ASK_LESS: Final = (
    "It will never start like this. `fusionrun doctor` shows what the partitions offer; cancel it, "
    "ask for less (slurm.nodes, gpus_per_node, cpus_per_task, mem, time), and submit it again."
)
_RELEASE: Final = "`scontrol release JOB` lets it go."
_ADMIN: Final = "Ask the cluster's administrators."
_QUOTA: Final = "It starts when your other jobs have ended; to start sooner, ask for less."

_REASONS: Final[dict[str, Reason]] = {
    "Priority": Reason("jobs of higher priority stand before it", _TURN),
    "Resources": Reason("it is next, and waits until enough is free", _TURN),
    "None": Reason("the scheduler has not looked at it yet"),
    "Dependency": Reason("it waits for another job to end"),
    "DependencyNeverSatisfied": Reason(
        "it waits for a job that ended otherwise than asked for",
        "It will never start: `fusionrun cancel RUN`, then submit it without --after.",
    ),
    "BeginTime": Reason("its start time has not come yet; a job that was requeued waits so"),
    "JobHeldUser": Reason("it is held back by a user", _RELEASE),
    "JobHeldAdmin": Reason("it is held back by an administrator", _ADMIN),
    "JobHoldMaxRequeue": Reason(
        "Slurm has requeued it too often (MaxBatchRequeue), and holds it", _RELEASE
    ),
    "JobLaunchFailure": Reason(
        "it could not be started on its node, and is held",
        f"The node may be at fault (slurm.exclude). {_RELEASE}",
    ),
    "launch_failed_requeued_held": Reason(
        "it could not be started on its node, was requeued, and is held",
        f"The node may be at fault (slurm.exclude). {_RELEASE}",
    ),
    "job_requeued_in_held_state": Reason("it was requeued, and is held", _RELEASE),
    "JobArrayTaskLimit": Reason(
        "as many tasks of its array run as may", "slurm.array_throttle says how many may."
    ),
    "PartitionConfig": Reason("its partition does not offer what it asks for", _ASK_LESS),
    "PartitionNodeLimit": Reason(
        "it asks for more nodes than its partition has or allows", _ASK_LESS
    ),
    "PartitionTimeLimit": Reason(
        "it asks for more time than its partition allows",
        "It will never start like this: set slurm.time below the partition's limit (`fusionrun "
        "doctor` shows it) and submit again; the run goes on in a new job after each limit.",
    ),
    "PartitionDown": Reason("its partition starts no jobs now", f"{_ADMIN} Or another partition."),
    "PartitionInactive": Reason(
        "its partition takes no jobs now", f"{_ADMIN} Or another slurm.partition."
    ),
    "BadConstraints": Reason("no node can offer what it asks for", _ASK_LESS),
    "NodeDown": Reason("a node it asks for is down", "Leave slurm.nodelist out, or wait."),
    "ReqNodeNotAvail": Reason(
        "a node it could use is down, drained or reserved",
        "Leave slurm.nodelist out; `sinfo -R` says what ails the nodes, and `scontrol show "
        "reservation` what is reserved: a shorter slurm.time may end before a reservation begins.",
    ),
    "Reservation": Reason("its reservation has not begun", "`scontrol show reservation`"),
    "ReservationDeleted": Reason("its reservation is gone", "Submit it without slurm.reservation."),
    "Licenses": Reason("it waits for a licence"),
    "InvalidAccount": Reason(
        "its account may not be charged", "Set slurm.account; `sacctmgr show assoc user=$USER`."
    ),
    "InvalidQOS": Reason("its QOS may not be used", "Set slurm.qos; `sacctmgr show qos`."),
    "AccountNotAllowed": Reason(
        "its partition does not take its account", "Set slurm.account or slurm.partition."
    ),
    "QOSNotAllowed": Reason(
        "its partition or account does not take its QOS", "Set slurm.qos or slurm.partition."
    ),
    "QOSUsageThreshold": Reason("its QOS has used up its share"),
    "Cleaning": Reason("what is left of its last attempt is being cleared away"),
    "Prolog": Reason("the cluster prepares its nodes"),
    "NodesBooting": Reason("its nodes are booting"),
    "BurstBufferResources": Reason("it waits for room in the burst buffer"),
    "BurstBufferStageIn": Reason("its data are being brought in"),
    "BurstBufferOperation": Reason("the burst buffer failed", _ADMIN),
    "DeadLine": Reason("it could not end before its deadline", "Submit it without --deadline."),
    "MaxRequeue": Reason("Slurm has requeued it too often, and holds it", _RELEASE),
    "FrontEndDown": Reason("the cluster's front end is down", _ADMIN),
    "SystemFailure": Reason("Slurm or the file system failed", _ADMIN),
    "NonZeroExitCode": Reason("its last attempt failed"),
    "user_env_retrieval_failed_requeued_held": Reason(
        "your login environment could not be read on the node; it is held", _RELEASE
    ),
}

_FOR_EVER: Final = re.compile(r"Max\w*(?:PerJob|PerNode|WallDurationPerJob\w*)(?:Limit)?$")
_LIMIT: Final = re.compile(r"^(?:QOS|Assoc)")


def reason_of(word: str) -> Reason:
    """What one of Slurm's reasons means.

    Args:
        word: as squeue prints it, such as `ReqNodeNotAvail, UnavailableNodes:n1`; empty for none.
    """
    name, _, rest = word.partition(",")
    name = name.strip().strip("()")
    known = _REASONS.get(name or "None")
    if known and rest.strip():
        return known._replace(meaning=f"{known.meaning} ({rest.strip()})")
    return known or _limit(name)


def _limit(name: str) -> Reason:
    """The limits of accounts and QOS are many, and bear names that follow a pattern."""
    if not _LIMIT.match(name):
        return Reason(f"Slurm says {name}", "`man squeue` (JOB REASON CODES) tells more.")
    whose = "of its QOS" if name.startswith("QOS") else "of its account"
    if _FOR_EVER.search(name):
        return Reason(f"it asks for more than a limit {whose} allows one job ({name})", _ASK_LESS)
    return Reason(f"a limit {whose} is reached ({name})", _QUOTA)


def refusal(words: str, run: str) -> str:
    """Why a run was not taken, on one line: what was asked, what was said, what to do.

    Args:
        words: an error's message.
        run: the run's id, which the line need not repeat.
    """
    lines = [line.strip().rstrip(".") for line in words.splitlines() if line.strip()]
    if not lines:
        return ""
    asked = lines[0].removeprefix(f"{run}: ")
    return f"{asked}: {'. '.join(lines[1:])}" if lines[1:] else asked
