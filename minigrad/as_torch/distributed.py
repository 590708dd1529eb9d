"""`torch.distributed` beside `minigrad.distributed`: which backends are there, and the group of all processes. Names
that neither has are refused."""
from __future__ import annotations

from importlib.util import find_spec

__all__ = ["GroupMember", "group", "is_gloo_available", "is_mpi_available", "is_nccl_available",
           "is_torchelastic_launched"]


class group:                # noqa: N801
    """`group=group.WORLD`: all processes, which is what minigrad's collectives take for None."""

    WORLD = None


GroupMember = group


def is_mpi_available() -> bool:
    """Is mpi4py installed?"""
    return find_spec("mpi4py") is not None


def is_nccl_available() -> bool:
    """Are there CuPy, NCCL and a GPU?"""
    from ..distributed.nccl import unavailable
    return not unavailable()


def is_gloo_available() -> bool:
    """False."""
    return False


is_torchelastic_launched = is_gloo_available
