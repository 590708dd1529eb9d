"""`torch.multiprocessing`: Python's `multiprocessing`. Tensors are copied between processes, not shared."""
from __future__ import annotations

import multiprocessing
from multiprocessing import *  # noqa: F403

from .refused import refused

__all__ = [*multiprocessing.__all__, "get_all_sharing_strategies", "get_sharing_strategy", "set_sharing_strategy",
           "spawn"]       # type: ignore[attr-defined]

spawn = refused("torch.multiprocessing.spawn", "start the processes with mpiexec -n 4 python train.py, or call the "
                "function itself")


def get_sharing_strategy() -> str:
    """"file_system", which PyTorch has everywhere."""
    return "file_system"


def set_sharing_strategy(new_strategy: str) -> None:
    """Nothing: minigrad shares no memory between processes."""


def get_all_sharing_strategies() -> set[str]:
    """The only one."""
    return {"file_system"}
