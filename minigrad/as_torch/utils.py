"""`torch.utils` beside `minigrad.utils`."""
from __future__ import annotations

from typing import Any


def set_module(obj: Any, mod: str) -> None:
    """Sets where an object says that it was defined."""
    if isinstance(mod, str):
        obj.__module__ = mod
