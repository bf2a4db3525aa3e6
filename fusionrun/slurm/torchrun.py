"""What srun starts on each node for `launcher: torchrun`: torchrun, told its own address.

`python -m fusionrun.slurm.torchrun …` takes torchrun's arguments. Left alone, torchrun gives the
host's own name to the ranks of the other nodes, and that name need not resolve there, or resolves
to a loopback address. Imports no torch: it becomes torchrun, in the same process.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

__all__ = ["main", "own_address"]


def main() -> None:
    """Become torchrun."""
    address = own_address(os.environ)
    own = [] if address is None else [f"--local-addr={address}"]
    argv = [sys.executable, "-m", "torch.distributed.run", *own, *sys.argv[1:]]
    os.execv(sys.executable, argv)


def own_address(environ: Mapping[str, str]) -> str | None:
    """The address from which this node speaks to where the ranks meet, so that they reach it.

    Args:
        environ: with MASTER_ADDR, unless there is one rank.

    Returns:
        None where no way leads there: torchrun will say so.
    """
    meeting = environ.get("MASTER_ADDR") or "127.0.0.1"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(meeting, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)  # sends nothing: it only looks up the route
            return str(probe.getsockname()[0])
    except OSError:
        return None


if __name__ == "__main__":
    main()
