"""`minigrad.cuda`: is there a GPU, how many, and waiting for it. The device itself is `minigrad.device("cuda")`."""
from __future__ import annotations

from typing import Any

from .devices import cuda as _cuda
from .devices import open_device as _device
from .devices.cuda import is_available, unavailable

__all__ = ["device_count", "is_available", "synchronize", "unavailable"]


def device_count() -> int:
    """The number of visible GPUs, 0 where `is_available()` is False."""
    return int(_cuda.cp.cuda.runtime.getDeviceCount()) if is_available() else 0


def synchronize(device: Any = "cuda") -> None:
    """Waits until everything launched on a GPU so far is done."""
    _device(device).synchronize()           # type: ignore[attr-defined]
