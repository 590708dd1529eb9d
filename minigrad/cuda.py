"""`minigrad.cuda`: is there a GPU, waiting for it, its memory. The device itself is `minigrad.device("cuda")`."""
from __future__ import annotations

from typing import Any

from .devices import cuda as _cuda
from .devices import open_device as _open_device
from .devices.cuda import is_available, unavailable
from .devices.memory import empty_cache, pools
from .devices.usage import unused_bytes

__all__ = ["device_count", "empty_cache", "is_available", "memory_allocated", "memory_reserved", "synchronize",
           "unavailable"]


def device_count() -> int:
    """The number of visible GPUs, 0 where `is_available()` is False."""
    return int(_cuda.cp.cuda.runtime.getDeviceCount()) if is_available() else 0


def synchronize(device: Any = None) -> None:
    """Waits until everything launched on a GPU so far is done."""
    _gpu("synchronize", device).synchronize()


def memory_allocated(device: Any = None) -> int:
    """The bytes of a GPU that are in use: those of tensors, of captured programs, of tables that kernels read, and of
    CuPy's arrays. Buffers are up to an eighth larger than their tensors. 0 where there is no GPU."""
    if not is_available():
        return 0
    gpu = _gpu("memory_allocated", device)
    return int(_pool(gpu).used_bytes()) - unused_bytes(pools, gpu)


def memory_reserved(device: Any = None) -> int:
    """The bytes of a GPU that this process has taken from the driver for arrays, in use or not. 0 where there is no
    GPU."""
    return int(_pool(_gpu("memory_reserved", device)).total_bytes()) if is_available() else 0


def _gpu(name: str, device: Any) -> Any:
    """The GPU that is meant; None is the first one."""
    gpu = _open_device("cuda" if device is None else device)
    if gpu.type != "cuda":
        raise ValueError(f"[cuda.{name}] expected a GPU; got {gpu!r}; use 'cuda' or 'cuda:N'")
    return gpu


def _pool(gpu: Any) -> Any:
    """CuPy's memory pool, which tells what it holds of the GPU in use."""
    gpu.use()
    return _cuda.cp.get_default_memory_pool()
