"""A real Slurm cluster on this machine, for the tests and for trying the tool by hand.

Nothing here imports fusionrun: the cluster knows only Slurm.
"""

from .cluster import Cluster, ClusterError
from .packages import missing

__all__ = ["Cluster", "ClusterError", "missing"]
