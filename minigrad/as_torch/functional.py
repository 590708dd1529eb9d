"""`torch.nn.functional` beside `minigrad.nn.functional`: an old name."""
from __future__ import annotations

from typing import Any

from ..nn import functional
from .renamed import renamed

_NEW = {"upsample": "interpolate"}


def __getattr__(name: str) -> Any:
    """The functions that were renamed."""
    return renamed(functional, name, _NEW.get(name, ""))
