"""Which of a run's processes this one is, by its environment, and how it reaches the others."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from fusionrun.errors import UserError

__all__ = ["RankPlace", "name_interface", "rank_place"]

_SIOCGIFADDR: Final = 0x8915
"""Linux: an interface's IPv4 address (netdevice(7))."""


class RankPlace(NamedTuple):
    """What the launcher told this process about itself and the others.

    Attributes:
        rank: counted from 0 over all nodes.
        size: how many processes the run has.
        local_rank: counted from 0 on this node.
        address: where rank 0 listens; empty for a single process.
        port: likewise.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = ""
    port: str = ""

    def describe(self) -> str:
        """In the words of an error: which, of how many, where, and the meeting point."""
        where = f" (rendezvous {self.address}:{self.port})" if self.address else ""
        return f"rank {self.rank} of {self.size} on {socket.gethostname()}{where}"


def rank_place(environ: Mapping[str, str]) -> RankPlace:
    """This process among those of the run, by what torchrun or srun says; joins nothing.

    torchrun's RANK, WORLD_SIZE and LOCAL_RANK come first: srun may have started torchrun. Of
    Slurm, a step's variables count (srun sets them); a batch script itself also has SLURM_PROCID
    and SLURM_NTASKS and yet is one process, so those count only beside a MASTER_ADDR.

    Raises:
        UserError: a number is missing or impossible, or there are several ranks and no address.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    elif "SLURM_PROCID" in environ and "SLURM_NTASKS" in environ and "MASTER_ADDR" in environ:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    else:
        return RankPlace()
    rank, size, local_rank = (_number(environ, name) for name in names)
    if size < 1 or rank >= size:
        raise UserError(
            f"{names[0]}={rank} and {names[1]}={size}: expected a rank below the number of ranks"
        )
    if size == 1:
        return RankPlace()
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environ.get(name):
            raise UserError(
                f"rank {rank} of {size}: {name} is not set, so the ranks cannot find each other. "
                "Fix: start them by `fusionrun submit` or torchrun; for one process, "
                "ask srun for one task (-n 1)"
            )
    return RankPlace(rank, size, local_rank, environ["MASTER_ADDR"], environ["MASTER_PORT"])


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not text.isascii() or not text.isdecimal():
        raise UserError(f"environment variable {name}: got {text!r}, expected a number from 0")
    return int(text)


def name_interface(address: str) -> None:
    """Tells gloo which interface leads to rank 0, unless the user has.

    Left alone, gloo resolves the host's own name, and where that does not resolve it listens on
    the loopback interface, where no other node finds it.
    """
    if "GLOO_SOCKET_IFNAME" not in os.environ and (name := _interface_towards(address)):
        os.environ["GLOO_SOCKET_IFNAME"] = name


def _interface_towards(address: str) -> str | None:
    """Name of the interface whose IPv4 address the system would speak to `address` from."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing: it only looks up the route
            own = probe.getsockname()[0]
    except OSError:
        return None
    if own.startswith("127."):
        own = "127.0.0.1"
    return next((n for _, n in socket.if_nameindex() if _ipv4_of(n) == own), None)


def _ipv4_of(interface: str) -> str | None:
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)
        except OSError:  # it has none
            return None
    return socket.inet_ntoa(answer[20:24])
