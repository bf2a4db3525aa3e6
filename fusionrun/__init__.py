"""fusionrun: declarative experiments that train several expert networks and fuse them.

Importing this package is cheap: no torch, no pydantic. What a user calls lives in the
submodules; the command line is `fusionrun.cli`.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
