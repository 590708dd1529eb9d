"""`torch.cpu` and `torch.cpu.amp`: the one device that is always there, without queues."""
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from .. import amp

Stream = Event = object


def is_available() -> bool:
    """True: there is one, which each call is done with when it returns."""
    return True


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """"cpu"."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Nothing."""


def stream(stream: Any) -> Any:
    """A block that changes nothing."""
    return nullcontext()


is_initialized, StreamContext, set_device, current_stream = is_available, stream, synchronize, synchronize


class autocast(amp.autocast):
    """`torch.amp.autocast("cpu", ...)`."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cpu", dtype, enabled, cache_enabled)
