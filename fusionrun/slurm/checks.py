"""What Slurm would accept and misread, or accept and never start: refused before it is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fusionrun.errors import Problem
from fusionrun.nearest import nearest
from fusionrun.slurm.request import KEYS

__all__ = ["problems", "time_s"]

LEAST_GRACE_S: Final = 30
"""Slurm looks at time limits twice a minute: a warning may come half a minute late."""

EARLY_S: Final = 60
"""How much earlier than asked for Slurm may send the warning (sbatch(1), --signal)."""

_OURS: Final = {
    "job-name": "name",
    "comment": "",
    "chdir": "",
    "output": "",
    "error": "",
    "open-mode": "",
    "signal": "slurm.grace",
    "ntasks": "slurm.gpus_per_node",
    "ntasks-per-node": "slurm.gpus_per_node",
    "array": "sweep",
    "dependency": "",
    "export": "slurm.env",
    "wrap": "",
    "test-only": "",
    "wait": "",
    "parsable": "",
    "input": "",
    "export-file": "",
    "help": "",
    "usage": "",
    "version": "",
    "requeue": "slurm.requeue",
    "no-requeue": "slurm.requeue",
    "kill-on-invalid-dep": "",
    # Each of these would give GPUs or processes that fusionrun does not count.
    "gpus": "slurm.gpus_per_node",
    "gpus-per-socket": "slurm.gpus_per_node",
    "gpus-per-task": "slurm.gpus_per_node",
    "ntasks-per-core": "slurm.gpus_per_node",
    "ntasks-per-gpu": "slurm.gpus_per_node",
    "ntasks-per-socket": "slurm.gpus_per_node",
    **{name.replace("_", "-"): f"slurm.{name}" for name in KEYS},
    "mail-user": "slurm.mail",
    "mail-type": "slurm.mail",
}
"""sbatch's options that are set from a recipe already, and the key that sets each."""

_EXTRA_NAMES: Final = """
    acctg-freq batch bb bbf begin cluster-constraint clusters container contiguous core-spec
    cores-per-socket cpu-freq cpus-per-gpu deadline delay-boot distribution exclusive extra
    extra-node-info get-user-env gid gpu-bind gpu-freq gres-flags
    hint hold ignore-pbs licenses mcs-label mem-bind mem-per-gpu mincpus network nice
    no-kill overcommit oversubscribe power prefer priority profile propagate quiet reboot
    segment sockets-per-node spread-job stepmgr switches thread-spec threads-per-core time-min tmp
    tres-bind tres-per-task uid use-min-nodes verbose wckey
"""
_EXTRA: Final = frozenset(_EXTRA_NAMES.split())
"""The long options of sbatch (22.05 to 24.11) that fusionrun does not set."""

_RIVALS: Final = {"mem-per-gpu": ("mem", "mem_per_cpu"), "cpus-per-gpu": ("cpus_per_task",)}
"""Options of `extra`, and the keys that say the same in another way."""

_MAIL_TYPES: Final = frozenset(
    {"ALL", "ARRAY_TASKS", "BEGIN", "END", "FAIL", "INVALID_DEPEND", "NONE", "REQUEUE", "STAGE_OUT"}
    | {f"TIME_LIMIT{share}" for share in ("", "_50", "_80", "_90")}
)

_LAUNCHERS: Final = frozenset(
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
)
_BASHS: Final = frozenset({"BASHOPTS", "EUID", "IFS", "PPID", "SHELLOPTS", "UID"})

_TIME: Final = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


def time_s(text: str) -> int | None:
    """Seconds of a time limit: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`; None: no such."""
    match = _TIME.fullmatch(text)
    if not match:
        return None
    days, *rest = match.groups()
    numbers = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(numbers) == 3:
        return (numbers[0] * 60 + numbers[1]) * 60 + numbers[2]
    return numbers[0] * 60 + (numbers[1] if len(numbers) == 2 else 0)


def problems(settings: Mapping[str, Any]) -> list[Problem]:
    """Everything in a resolved `slurm` section that Slurm would accept in silence and not mean.

    Args:
        settings: the section, plain.

    Returns:
        Problems without places, each with its dotted key.
    """
    found = (_time, _pairs, _mail, _extra, _env)
    return [problem for find in found for problem in find(settings)]


def _time(settings: Mapping[str, Any]) -> Iterator[Problem]:
    text = settings["time"]
    if text is None:
        return
    limit = time_s(text)
    if limit == 0:
        expected = "a time; to Slurm 0 is no limit at all"
        yield Problem(None, "slurm.time", repr(text), expected, "leave it out for the partition's")
        return
    grace = settings["grace"]
    least = LEAST_GRACE_S + EARLY_S
    if limit is not None and limit < least:
        expected = f"at least {least} seconds: {LEAST_GRACE_S} to save, and a warning up to "
        yield Problem(
            None, "slurm.time", f"{text!r}: {limit} seconds", f"{expected}{EARLY_S} s early"
        )
        return
    if limit is not None and limit < grace + EARLY_S:
        yield Problem(
            None,
            "slurm.grace",
            f"{grace} seconds, of a time limit of {limit}",
            f"at most {max(0, limit - EARLY_S)}: the warning may come {EARLY_S} s early, and at "
            "once where grace is not shorter than the limit",
            "a longer time, or a shorter grace",
        )
    if grace < LEAST_GRACE_S:
        yield Problem(
            None,
            "slurm.grace",
            f"{grace} seconds",
            f"at least {LEAST_GRACE_S}: Slurm looks at time limits twice a minute",
        )


def _pairs(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Two ways to say one thing; of both Slurm makes neither, or whichever it likes."""
    if settings["gpus_per_node"] is not None and "gpu" in (settings["gres"] or ""):
        expected = "one of them: Slurm accepts both and means neither"
        yield Problem(None, "slurm.gres", "gpus in gres and in gpus_per_node", expected)
    extra = {_option(name): name for name, value in settings["extra"].items() if value is not False}
    for option, keys in _RIVALS.items():
        rivals = [key for key in keys if settings[key] is not None]
        if option in extra and rivals:
            got, expected = f"--{option} and {rivals[0]}", "one of them"
            yield Problem(None, f"slurm.extra.{extra[option]}", got, expected)


def _mail(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Slurm would write to a user of that name, and say nothing."""
    if (settings["mail"] or "").upper() in _MAIL_TYPES:
        expected = "an address: when Slurm writes to it is settled (end, failure, requeue, limit)"
        yield Problem(None, "slurm.mail", repr(settings["mail"]), expected)


def _extra(settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name in settings["extra"]:
        key = f"slurm.extra.{name}"
        option = _option(name)
        if option in _OURS:
            own = _OURS[option]
            fix = f"'{own}' sets it" if own else "remove it: fusionrun needs it as it is"
            yield Problem(None, key, f"--{option}", "an option that fusionrun does not set", fix)
        elif option not in _EXTRA:
            near = nearest(option, sorted(_EXTRA))
            fix = f"did you mean '{near}'?" if near else "'sbatch --help' lists them"
            yield Problem(None, key, f"--{option}", "a long option of sbatch", fix)


def _option(name: str) -> str:
    return name.replace("_", "-").lstrip("-")


def _env(settings: Mapping[str, Any]) -> Iterator[Problem]:
    for name in settings["env"]:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            expected = "letters, digits and _, not beginning with a digit"
        elif name.startswith(("SLURM_", "SBATCH_", "SRUN_", "PMI")):
            expected = "no variable of Slurm's own"
        elif name in _LAUNCHERS:
            expected = "no variable that the launcher sets for each process"
        elif name in _BASHS:
            expected = "no variable that bash keeps for itself"
        else:
            continue
        yield Problem(None, f"slurm.env.{name}", f"the name {name!r}", expected)
