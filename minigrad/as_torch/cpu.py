"""`torch.cpu` and `torch.cpu.amp`: the one device that is always there, without queues."""
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from .. import amp

Stream = Event = object


def is_available() -> bool:
    """True."""
    return True


is_initialized = is_available


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """"cpu"."""
    return "cpu"


def set_device(device: Any) -> None:
    """Nothing: there is one."""


def synchronize(device: Any = None) -> None:
    """Nothing: a call returns when it is done."""


def current_stream(device: Any = None) -> None:
    """None: there are no queues."""


def stream(stream: Any) -> Any:
    """A block that changes nothing."""
    return nullcontext()


StreamContext = stream


class autocast(amp.autocast):
    """`torch.amp.autocast("cpu", ...)`."""

    def __init__(self, enabled: bool = True, dtype: Any = None, cache_enabled: bool = True) -> None:
        super().__init__("cpu", dtype, enabled, cache_enabled)
