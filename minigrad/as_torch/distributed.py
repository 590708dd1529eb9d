"""`torch.distributed` beside `minigrad.distributed`: which backends are there, and the group of all processes. Names
that neither has are refused."""
from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from .. import distributed

__all__ = ["Backend", "GroupMember", "ReduceOp", "get_rank", "get_world_size", "group", "is_gloo_available",
           "is_mpi_available", "is_nccl_available", "is_torchelastic_launched"]


class group:                # noqa: N801
    """`group=group.WORLD`: all processes, which is what minigrad's collectives take for None."""

    WORLD = None


GroupMember = group


class ReduceOp(distributed.ReduceOp):
    """minigrad's, and names that its collectives refuse."""

    BAND, BOR, BXOR, PREMUL_SUM = "band", "bor", "bxor", "premul_sum"
    RedOpType = str


class Backend:
    """The names of backends: "mpi" and "nccl" are minigrad's."""

    UNDEFINED, GLOO, MPI, NCCL = "undefined", "gloo", "mpi", "nccl"


@dataclass(frozen=True)
class Replicate:
    """Of `torch.distributed.tensor`, for tables that libraries write: all processes have the whole."""


@dataclass(frozen=True)
class Shard:
    """Each process has a part along `dim`."""

    dim: int


@dataclass(frozen=True)
class _StridedShard:
    """Each process has `split_factor` parts along `dim`."""

    dim: int
    split_factor: int


@dataclass(frozen=True)
class Partial:
    """Each process has a term of the sum, or what `reduce_op` says."""

    reduce_op: str = "sum"


def get_rank(group: Any = None) -> int:
    """The number of this process, from 0; -1 in a group that is not `WORLD`."""
    return distributed.get_rank() if group is None else -1


def get_world_size(group: Any = None) -> int:
    """The number of processes; -1 for a group that is not `WORLD`."""
    return distributed.get_world_size() if group is None else -1


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
