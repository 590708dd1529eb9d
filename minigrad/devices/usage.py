"""What memory is used: the error where there is no more, and what unused buffers hold. Read `memory.py` first."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .native import lib


class OutOfMemoryError(MemoryError, RuntimeError):
    """There is no room for a block. NumPy's programs expect the one, PyTorch's the other."""


def last_try(layout: Any, nbytes: int, home: Any) -> Any:
    """A block of the layout's device, after unused memory was given back. MemoryError with the sizes if there is no
    room."""
    try:
        return layout.device.fresh(nbytes, home)
    except MemoryError as error:
        used = lib.mg_pools_held() - lib.mg_pools_unused()
        raise OutOfMemoryError(
            f"[memory] {layout.device} has no room for {nbytes} bytes ({layout}); tensors hold {used} bytes on all "
            "devices, unused buffers none; use smaller batches, or drop tensors") from error


def unused_bytes(pools: Mapping[tuple[Any, int], Any], device: Any) -> int:
    """The bytes of a device's buffers that wait for their next owner; `pools` are those of `memory.py`."""
    return sum(len(pool) * nbytes for (owner, nbytes), pool in list(pools.items()) if owner is device)
