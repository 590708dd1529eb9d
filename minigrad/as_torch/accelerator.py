"""`torch.accelerator`: the GPU, if there is one."""
from __future__ import annotations

from typing import Any

from .. import cuda
from ..cuda import current_device as current_device_index
from ..cuda import set_device as set_device_index
from ..devices import device

__all__ = ["current_accelerator", "current_device_index", "device_count", "empty_cache", "is_available",
           "memory_allocated", "memory_reserved", "set_device_index", "synchronize"]

device_count, empty_cache, is_available = cuda.device_count, cuda.empty_cache, cuda.is_available
memory_allocated, memory_reserved, synchronize = cuda.memory_allocated, cuda.memory_reserved, cuda.synchronize


def current_accelerator(check_available: bool = False) -> Any:
    """The GPU as a device, None without one."""
    return device("cuda") if is_available() else None
